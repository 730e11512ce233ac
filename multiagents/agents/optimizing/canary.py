"""Whether a canary does as well as the program that it is to replace, by how the sagas of both have ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from multiagents.state_store.records import Example


class Ruling(StrEnum):
    """What becomes of a canary."""

    WAIT = "wait"
    GOOD = "good"
    WORSE = "worse"


@dataclass
class Tally:
    """How runs have ended: for each the worst of what its steps have come to, from 0 to 1."""

    runs: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, example: Example) -> None:
        """Count a step of a run."""
        run = example.transaction_id, example.nonce
        worth = float(example.outcome == "completed") if example.score is None else example.score
        self.runs[run] = min(worth, self.runs.get(run, 1.0))

    @property
    def rate(self) -> float | None:
        """How well they have ended; None while none has."""
        return sum(self.runs.values()) / len(self.runs) if self.runs else None

    def __len__(self) -> int:
        return len(self.runs)


def tallied(examples: Iterable[Example], version: int, current: int) -> tuple[Tally, Tally]:
    """How the runs have ended that a canary has answered in, and those of the program that is current."""
    canary, others = Tally(), Tally()
    for example in examples:
        if not example.has_ended:
            continue
        asked_with = int(example.experience.program or 0)
        if asked_with == version:
            canary.add(example)
        elif asked_with == current:
            others.add(example)
    return canary, others


def ruling(canary: Tally, others: Tally, *, wanted: int, tolerance: float) -> Ruling:
    """What becomes of a canary once so many of its runs have ended; sooner, if the others can save it no more.

    >>> few, many = Tally({("a", ""): 1.0}), Tally({("b", ""): 1.0, ("c", ""): 0.0})
    >>> ruling(few, many, wanted=2, tolerance=0.05), ruling(few, many, wanted=1, tolerance=0.05)
    (<Ruling.WAIT: 'wait'>, <Ruling.GOOD: 'good'>)
    """
    compared = others.rate
    if compared is not None and len(canary) < wanted:
        best = (sum(canary.runs.values()) + wanted - len(canary)) / wanted
        return Ruling.WORSE if best < compared - tolerance else Ruling.WAIT
    if len(canary) < wanted:
        return Ruling.WAIT
    reached = canary.rate or 0.0
    return Ruling.WORSE if compared is not None and reached < compared - tolerance else Ruling.GOOD
