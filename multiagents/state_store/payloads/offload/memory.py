"""Large payloads in the memory of this process: for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class InMemoryPayloadStore:
    """Keep payloads in this process.

    >>> store = InMemoryPayloadStore()
    >>> store.put("order-1", {"a1": "[1, 2]"})
    >>> store.get("order-1", ["a1", "b2"])
    {'a1': '[1, 2]'}
    >>> store.forget("order-1")
    >>> store.get("order-1", ["a1"])
    {}
    """

    name = "memory"

    def __init__(self) -> None:
        self._runs: dict[str, dict[str, str]] = {}

    def put(self, transaction_id: str, payloads: Mapping[str, str]) -> None:
        """Keep payloads of a run."""
        self._runs[transaction_id] = {**self._runs.get(transaction_id, {}), **payloads}

    def get(self, transaction_id: str, names: Sequence[str]) -> Mapping[str, str]:
        """The payloads of a run by name; what is not there is left out."""
        kept = self._runs.get(transaction_id, {})
        return {name: kept[name] for name in names if name in kept}

    def forget(self, transaction_id: str) -> None:
        """Remove all payloads of a run."""
        self._runs.pop(transaction_id, None)
