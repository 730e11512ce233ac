"""The context that a claim comes with: put together at once, or when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic_core import from_json

from multiagents.state_store.payloads.context import merge
from multiagents.state_store.payloads.policy import Reading


def merged_context(
    context: Mapping[str, str], given: str, results: Mapping[str, Any], parts: Iterable[str]
) -> dict[str, Any]:
    """The context of a step: the run's input, what trunk steps have returned, and what ran beside the way to it."""
    merged: dict[str, Any] = from_json(given)
    merged.update((key, from_json(value)) for key, value in context.items())
    return merge(merged, results, parts)


def by_place(context: Mapping[str, str], values: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """The stored context and the other values in one: a context may have a key that is also the name of a field."""
    return {("c", key): text for key, text in context.items()} | {("v", name): text for name, text in values.items()}


def apart(texts: Mapping[tuple[str, str], str]) -> tuple[dict[str, str], dict[str, str]]:
    """The inverse of `by_place`."""
    context = {key: text for (place, key), text in texts.items() if place == "c"}
    return context, {name: text for (place, name), text in texts.items() if place == "v"}


class DeferredContext(Mapping[str, Any]):
    """A context that is read when it is first asked for."""

    def __init__(self, reading: Reading, texts: Mapping[tuple[str, str], str], parts: Iterable[str]) -> None:
        self._reading = reading
        self._texts = texts
        self._parts = parts
        self._merged: dict[str, Any] | None = None

    def _read(self) -> dict[str, Any]:
        if self._merged is None:
            context, values = apart(self._reading.texts(self._texts))
            results = {part: from_json(values[f"r:{part}"]) for part in self._parts if f"r:{part}" in values}
            self._merged = merged_context(context, values["i"], results, self._parts)
        return self._merged

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())
