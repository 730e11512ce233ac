"""What a user writes as code in a workflow, with answers that are known beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Always:
    """A chooser with one answer."""

    label: str

    def __call__(self, _context: dict[str, Any]) -> str:
        return self.label


@dataclass(frozen=True)
class Listed:
    """The list that a map runs over."""

    length: int

    def __call__(self, _context: dict[str, Any]) -> list[int]:
        return [*range(self.length)]


@dataclass(frozen=True)
class Reached:
    """Whether a loop's counter has reached a number."""

    counter: str
    rounds: int

    def __call__(self, context: dict[str, Any]) -> bool:
        return bool(context[self.counter] >= self.rounds)
