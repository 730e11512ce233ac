"""Follow many runs until the last one has ended: what is known of each, and what has just changed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from examples.ecommerce_order.order import Case
from examples.ecommerce_order.view import Row, Verdict
from examples.timeline import Bar, bars_of, short_type

#: Statuses of a run that has not ended.
LIVE = frozenset({"pending", "running", "paused", "compensating"})


@dataclass
class Followed:
    """One run of one order, as last seen."""

    case: Case
    run: Any
    status: str = "pending"
    #: step -> status, in workflow order
    steps: dict[str, str] = field(default_factory=dict)
    #: class name of the error that turned it back
    reason: str = ""
    #: when something last changed (monotonic seconds)
    changed_at: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status not in LIVE

    def refresh(self) -> list[str]:
        """Look at the run again; the changes that a reader wants to hear of, in words."""
        seen = self.run.describe()
        steps = {name: str(step.status) for name, step in seen.steps.items()}
        changes = [
            f"{name} {status}"
            for name, status in steps.items()
            if status != self.steps.get(name) and status in ("compensated", "compensation_failed", "unknown", "failed")
        ]
        if seen.error is not None:
            self.reason = short_type(seen.error.type)
        if str(seen.status) != self.status and str(seen.status) not in LIVE:
            changes.append(str(seen.status) + (f" because of {self.reason}" if self.reason else ""))
        if changes or steps != self.steps or str(seen.status) != self.status:
            self.changed_at = time.monotonic()
        self.status, self.steps = str(seen.status), steps
        return changes

    def bars(self) -> list[Bar]:
        """Its attempts, read from its history."""
        return bars_of(self.run.history())

    def row(self) -> Row:
        """What the board shows of it."""
        return Row(self.case.id, self.status, tuple(self.steps.values()))

    def named(self, *statuses: str) -> tuple[str, ...]:
        """The steps that have one of these statuses."""
        return tuple(name for name, status in self.steps.items() if status in statuses)


class Watch:
    """The runs of all orders."""

    def __init__(self, runs: Sequence[Followed]) -> None:
        self.runs = list(runs)

    def refresh(self) -> Iterator[tuple[Followed, str]]:
        """Look at every run that has not ended; yield what changed."""
        for followed in self.runs:
            if not followed.is_over:
                for change in followed.refresh():
                    yield followed, change

    @property
    def unfinished(self) -> list[Followed]:
        """The runs that have not ended."""
        return [followed for followed in self.runs if not followed.is_over]

    def of_order(self, order_id: str) -> Followed:
        """The run of an order."""
        return next(followed for followed in self.runs if followed.case.id == order_id)

    def completed(self) -> dict[str, int]:
        """Id -> total in cents of the completed orders."""
        return {
            followed.case.id: int(followed.case.order["total_amount"])
            for followed in self.runs
            if followed.status == "completed"
        }

    def verdicts(self) -> list[Verdict]:
        """How each run ended, against how it was to end. Of a group, the first that completed is its winner."""
        winners: dict[str, str] = {}
        for followed in self.runs:
            if followed.case.expect.group and followed.status == "completed":
                winners.setdefault(followed.case.expect.group, followed.case.id)
        verdicts = [self._verdict(followed, winners) for followed in self.runs]
        groups = {followed.case.expect.group for followed in self.runs if followed.case.expect.group}
        verdicts.extend(
            Verdict("-", f"the group {group!r}", "no winner", "one of them completed", "", as_expected=False)
            for group in sorted(groups - set(winners))
        )
        return verdicts

    def _verdict(self, followed: Followed, winners: Mapping[str, str]) -> Verdict:
        case, expect = followed.case, followed.case.expect
        expected = " ".join([expect.status, *expect.undone, expect.reason or ""]).rstrip()
        as_expected = (
            followed.status == expect.status
            and followed.reason == (expect.reason or "")
            and followed.named("compensated") == expect.undone
            and followed.named("skipped") == expect.skipped
        )
        if expect.group and followed.status == "completed":
            as_expected = winners[expect.group] == case.id
            expected = f"only {winners[expect.group]} completed"
        return Verdict(case.id, case.about, followed.status, expected, followed.reason, as_expected)
