"""Many runs at once: how each of them is to end, what has become of it, and a picture of all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from examples._support.pictures import COLOURS, bars_of, short_type, table, timeline
from examples._support.scene import Scene

#: Statuses of a run that has not ended.
LIVE = frozenset({"pending", "running", "paused", "compensating"})
#: Seconds between two looks at the runs, and for which the live picture stays with one run.
TICK = 0.1
LINGER = 2.0
#: step status -> how it looks on the board, and what the legend calls it
GLYPHS: Mapping[str, tuple[str, str, str]] = {
    "not_started": ("·", "dim", ""),
    "scheduled": ("○", "cyan", "queued"),
    "running": ("▶", "cyan", "busy"),
    "succeeded": ("✓", "green", "done"),
    "failed": ("✗", "red", "failed"),
    "unknown": ("?", "yellow", "doubt"),
    "compensating": ("◀", "magenta", "undoing"),
    "compensated": ("↶", "magenta", "undone"),
    "compensation_failed": ("!", "bold red", ""),
    "skipped": ("-", "dim", "skipped"),
}
#: run status -> a word that leaves room for three runs on a line
SHORT: Mapping[str, str] = {
    "compensating": "undoing",
    "compensated": "undone",
    "compensation_failed": "undo fails",
}


class Expectation(BaseModel):
    """How a run is to end.

    Attributes:
        status: the run's end status.
        reason: class name of the error that led to it.
        undone: the steps that are to be undone, in workflow order.
        skipped: the steps that are to be skipped.
        group: runs of one group compete for the same thing: one of them is to end as ``completed``, each other one as
            the rest of this expectation says.
    """

    model_config = ConfigDict(extra="forbid")

    status: Literal["completed", "compensated", "failed"]
    reason: str = ""
    undone: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    group: str | None = None


class Case(BaseModel):
    """An order to run, and how it is to end."""

    model_config = ConfigDict(extra="forbid")

    about: str
    #: as it came in: an order that does not make sense is a case too
    order: dict[str, Any]
    expect: Expectation

    @property
    def id(self) -> str:
        """The order's id."""
        return str(self.order["id"])


def read_cases(path: Path) -> list[Case]:
    """Read the cases of a JSONL file, one JSON object a line: ``{"about", "order", "expect"}``."""
    return [Case.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


@dataclass
class Followed:
    """One run of one case, as last seen."""

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
        status, steps = str(seen.status), {name: str(step.status) for name, step in seen.steps.items()}
        told = ("compensated", "compensation_failed", "unknown", "failed")
        changes = [f"{name} {now}" for name, now in steps.items() if now in told and now != self.steps.get(name)]
        if seen.error is not None:
            self.reason = short_type(seen.error.type)
        if status != self.status and status not in LIVE:
            changes.append(status + (f" because of {self.reason}" if self.reason else ""))
        if (status, steps) != (self.status, self.steps):
            self.changed_at = time.monotonic()
        self.status, self.steps = status, steps
        return changes

    def named(self, *statuses: str) -> tuple[str, ...]:
        """The steps that have one of these statuses."""
        return tuple(name for name, status in self.steps.items() if status in statuses)

    def picture(self, width: int, title: str = "", now: datetime | None = None) -> Text:
        """Its timeline."""
        heading = f"{title}: {self.case.id}" if title else f"{self.case.id}: {self.case.about}"
        return timeline(heading, self.status, list(self.steps), bars_of(self.run.history()), width, now=now)


@dataclass(frozen=True)
class Verdict:
    """How a run ended, against how it was to end."""

    case_id: str
    about: str
    status: str
    reason: str
    as_expected: bool
    expected: str


class Board:
    """The runs of all cases.

    Attributes:
        runs: the runs.
        note: what stands under the live picture.
        spotlight: the run that the live picture shows in full until it has ended.
    """

    def __init__(self, runs: Sequence[Followed]) -> None:
        self.runs = list(runs)
        self.note = ""
        self.spotlight: Followed | None = None
        self._shown: Followed | None = None
        self._shown_since = 0.0

    @property
    def unfinished(self) -> list[Followed]:
        """The runs that have not ended."""
        return [followed for followed in self.runs if not followed.is_over]

    def of(self, case_id: str) -> Followed:
        """The run of a case."""
        return next(followed for followed in self.runs if followed.case.id == case_id)

    # -- while they run ------------------------------------------------------------------------------------------------

    def follow(self, scene: Scene, meanwhile: Callable[[], None]) -> None:
        """Watch the runs until the last one has ended, as a live picture or, where that cannot be, as lines.

        Args:
            scene: where they run.
            meanwhile: called after each look at a run: looking at all of them takes its time.
        """
        plain = "CI" in os.environ or not scene.console.is_terminal
        with Live(console=scene.console, auto_refresh=False, transient=True) as live:
            while self.unfinished:
                for followed in self.unfinished:
                    changes = followed.refresh()
                    for change in changes if plain else ():
                        scene.say(f"{followed.case.id}  {change}")
                    meanwhile()
                if not plain:
                    live.update(self._picture(scene), refresh=True)
                if self.unfinished:
                    ids = ", ".join(followed.case.id for followed in self.unfinished)
                    scene.tick(f"these runs have not ended: {ids}", TICK)

    def _picture(self, scene: Scene) -> RenderableType:
        ended = len(self.runs) - len(self.unfinished)
        parts: list[RenderableType] = [
            Text(f"{scene.seconds:5.1f} s  {ended} of {len(self.runs)} runs have ended", style="bold"),
            self.grid(),
            _legend(),
            Text(self.note, style="bold yellow"),
        ]
        if (shown := self._to_show()) is not None:
            parts.append(shown.picture(scene.console.width, now=None if shown.is_over else datetime.now(UTC)))
        return Group(*parts)

    def _to_show(self) -> Followed | None:
        """The run to show in full: the one in the spotlight for as long as it lives, else one on its way back."""
        lit, now = self.spotlight, time.monotonic()
        if lit is not None and (not lit.is_over or now - lit.changed_at < LINGER):
            return lit
        if self._shown is None or now - self._shown_since > LINGER:
            back = [followed for followed in self.runs if followed.named("compensating", "compensated")]
            self._shown = max(back or self.runs, key=lambda followed: followed.changed_at, default=None)
            self._shown_since = now
        return self._shown

    def grid(self, columns: int = 3) -> Columns:
        """All runs side by side, one glyph a step."""
        height = -(-len(self.runs) // columns)
        tables = []
        for start in range(0, len(self.runs), height):
            part = Table.grid(padding=(0, 1))
            for followed in self.runs[start : start + height]:
                glyphs = Text().join(Text(*GLYPHS[status][:2]) for status in followed.steps.values())
                word = SHORT.get(followed.status, followed.status)
                part.add_row(followed.case.id, glyphs, Text(f"{word:<9}", style=COLOURS.get(followed.status, "dim")))
            tables.append(part)
        return Columns(tables, padding=(0, 2))

    # -- at their ends -------------------------------------------------------------------------------------------------

    def verdicts(self) -> list[Verdict]:
        """How each run ended, against how it was to end. Of a group, the first that completed is its winner."""
        winners: dict[str, str] = {}
        for followed in self.runs:
            if followed.case.expect.group and followed.status == "completed":
                winners.setdefault(followed.case.expect.group, followed.case.id)
        groups = {followed.case.expect.group for followed in self.runs if followed.case.expect.group}
        return [_verdict(followed, winners) for followed in self.runs] + [
            Verdict("-", f"the group {group!r}", "no winner", "", as_expected=False, expected="one of them completed")
            for group in sorted(groups - set(winners))
        ]


def outcomes(verdicts: Sequence[Verdict], width: int) -> Table:
    """The table of outcomes against expectations; what is too long for the width is cut."""
    room = max(16, width - 56)
    rows = []
    for verdict in verdicts:
        about = verdict.about if len(verdict.about) <= room else f"{verdict.about[: room - 1]}…"
        status = Text(verdict.status, style=COLOURS.get(verdict.status, ""))
        right = Text("✓", style="green") if verdict.as_expected else Text(f"✗ {verdict.expected}", style="bold red")
        rows.append((verdict.case_id, about, status, verdict.reason, right))
    return table("Outcomes", ["order", "what is special", "ended as", "because of", "right"], rows)


def _verdict(followed: Followed, winners: Mapping[str, str]) -> Verdict:
    case, expect = followed.case, followed.case.expect
    expected = " ".join([expect.status, *expect.undone, expect.reason]).rstrip()
    found = (followed.status, followed.reason, followed.named("compensated"), followed.named("skipped"))
    as_expected = found == (expect.status, expect.reason, expect.undone, expect.skipped)
    if expect.group and followed.status == "completed":
        as_expected = winners[expect.group] == case.id
        expected = f"only {winners[expect.group]} completed"
    return Verdict(case.id, case.about, followed.status, followed.reason, as_expected, expected)


def _legend() -> Text:
    """What the glyphs on the board mean, on one line."""
    words = [Text(glyph, style).append(f" {word}", "dim") for glyph, style, word in GLYPHS.values() if word]
    return Text("  ", no_wrap=True, overflow="ellipsis").join(words)
