"""Which reply a request gets."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from multiagents.exceptions import ConfigurationError, did_you_mean
from multiagents.testing.lm_stub import replies
from multiagents.testing.lm_stub.replies import Reply, Scripted
from multiagents.testing.lm_stub.request import LMRequest

__all__ = ["Matching", "Script", "imported", "read_script"]

#: The functions that a script in a file may call, by name.
_HELPERS: Mapping[str, Callable[..., Any]] = {
    name: getattr(replies, name) for name in replies.__all__ if name[0].islower()
}


class Matching:
    """The replies to requests that match; see `LMStub.when`."""

    def __init__(self, matches: Callable[[LMRequest], bool]) -> None:
        self.matches = matches
        self._replies: deque[Scripted] = deque()

    def reply(self, *scripted: Scripted) -> None:
        """Answer the requests that match with these, in this order; the last one stays for all that follow.

        Args:
            scripted: texts, replies, or functions that make one of the `LMRequest`.
        """
        self._replies.extend(scripted)

    def take(self) -> Scripted | None:
        """Take the next reply, if there is any."""
        return self._replies.popleft() if len(self._replies) > 1 else next(iter(self._replies), None)


class Script:
    """What is to be answered: matching replies first, then those in order, then the function for the rest."""

    def __init__(self) -> None:
        self.matching: list[Matching] = []
        self.in_order: deque[Scripted] = deque()
        self.otherwise: Callable[[LMRequest], str | Reply | None] | None = None
        self._used = 0

    def take(self, request: LMRequest) -> Scripted | None:
        """Take the reply for a request, if there is any."""
        for one in self.matching:
            if one.matches(request) and (found := one.take()) is not None:
                return found
        if self.in_order:
            self._used += 1
            return self.in_order.popleft()
        return self.otherwise

    def why_none(self) -> str:
        """Say why there was no reply."""
        if self._used:
            return f"all replies that were scripted in order ({self._used}) have been used"
        return "nothing of what is scripted matches" if self.matching or self.otherwise else "nothing is scripted"


def matcher(texts: tuple[str | Callable[[LMRequest], bool], ...], model: str | None) -> Callable[[LMRequest], bool]:
    """Whether a request has all these texts, fulfils all these conditions, and is for this model."""

    def matches(request: LMRequest) -> bool:
        return model in {None, request.model} and all(
            one in request.text if isinstance(one, str) else one(request) for one in texts
        )

    return matches


# --- scripts as files


def read_script(
    script: Mapping[str, Any] | str | Path,
) -> tuple[list[tuple[Callable[[LMRequest], bool], Any]], Any, Any]:
    """Read a script as `LMStub.load` takes it: matching replies, those in order, and the function for the rest.

    Raises:
        ConfigurationError: when something in it has no meaning.
    """
    found = script if isinstance(script, Mapping) else json.loads(Path(script).read_text(encoding="utf-8"))
    _only(found, {"replies", "when", "answer_with"}, "a script")
    rules = []
    for rule in found.get("when", []):
        _only(rule, {"texts", "model", "replies"}, '"when" of a script')
        rules.append(
            (matcher(tuple(rule.get("texts", [])), rule.get("model")), [_read(one) for one in rule["replies"]])
        )
    function = found.get("answer_with")
    return rules, [_read(one) for one in found.get("replies", [])], imported(function) if function else None


def imported(address: str) -> Callable[[LMRequest], str | Reply | None]:
    """Import a function by its address, ``module:function``.

    Raises:
        ConfigurationError: when there is none.
    """
    module, _, name = address.partition(":")
    try:
        function: Callable[[LMRequest], str | Reply | None] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"a function that answers is given as module:function, got {address!r}: {error}"
        ) from error
    return function


def _read(reply: Any) -> Scripted:
    if isinstance(reply, str):
        return reply
    if not isinstance(reply, Mapping) or len(reply) != 1:
        raise ConfigurationError(
            f'a reply of a script is a text, or one name with its arguments as {{"react": ["thought", "tool", {{}}]}}, '
            f"got {reply!r}"
        )
    ((name, given),) = reply.items()
    if name not in _HELPERS:
        raise ConfigurationError(
            f'there is no reply "{name}"{did_you_mean(name, _HELPERS)} (one of {", ".join(_HELPERS)})'
        )
    try:
        if isinstance(given, Mapping):
            made: Scripted = _HELPERS[name](**given)
        else:
            made = _HELPERS[name](*given) if isinstance(given, list) else _HELPERS[name](given)
    except TypeError as error:
        raise ConfigurationError(f'the reply "{name}" of a script cannot be made of {given!r}: {error}') from error
    return made


def _only(found: Mapping[str, Any], known: set[str], what: str) -> None:
    for name in found:
        if name not in known:
            raise ConfigurationError(
                f'{what} has no "{name}"{did_you_mean(name, known)} (one of {", ".join(sorted(known))})'
            )
