"""What the examples draw on a terminal: the mirror timeline of a run, and plain tables.

The timeline shows a step and its undo on one line and one time axis: what went forward, and how it was taken back. It
is drawn from the run's history alone; every attempt is a bar of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from rich.table import Table
from rich.text import Text

from examples._support.world import Check, Effect

#: run status -> colour
COLOURS: Mapping[str, str] = {
    "running": "cyan",
    "compensating": "magenta",
    "completed": "green",
    "compensated": "magenta",
    "failed": "yellow",
    "compensation_failed": "bold red",
}
#: how an attempt ended -> what its bar is made of, and its colour; doing and undoing differ
_BARS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("do", "open"): ("█", "cyan"),
    ("do", "succeeded"): ("█", "green"),
    ("do", "failed"): ("▚", "red"),
    ("do", "lost"): ("░", "bold yellow"),
    ("do", "unknown"): ("▚", "yellow"),
    ("undo", "open"): ("▒", "bold magenta"),
    ("undo", "succeeded"): ("▒", "magenta"),
    ("undo", "failed"): ("▚", "red"),
    ("undo", "lost"): ("░", "bold yellow"),
    ("undo", "unknown"): ("▚", "yellow"),
    ("wait", "open"): ("─", "bold cyan"),
    ("wait", "succeeded"): ("─", "green"),
    ("wait", "failed"): ("─", "red"),
    ("wait", "unknown"): ("─", "dim"),
    ("told", "succeeded"): ("◆", "bold yellow"),
}
#: what a person may say about a step -> how that reads
_TOLD: Mapping[str, str] = {
    "retry_requested": "tried again",
    "skip_requested": "skipped",
    "result_supplied": "result supplied",
}


@dataclass(frozen=True)
class Bar:
    """One attempt on the time axis, a wait, or what a person said about the step."""

    step: str
    #: "do", "undo", "wait" or "told"
    direction: str
    attempt: int
    start: datetime
    #: None while it is in flight
    end: datetime | None
    #: "open", "succeeded", "failed", "lost" or "unknown"
    outcome: str
    worker: str = ""
    error: str = ""
    #: the person who decided, and why
    by: str = ""


def bars_of(history: Iterable[Any]) -> list[Bar]:
    """Read the attempts out of a run's events: commands open a bar, results, errors and signals close it."""
    bars: dict[str, Bar] = {}
    signals: dict[str, str] = {}
    for event in history:
        if event.type == "status":
            if event.status == "signalled":
                signals[event.payload["key"]] = _by(event)
            elif event.step is not None and event.status in _TOLD:
                said = f"{_TOLD[event.status]} by {_by(event)}"
                bars[event.id] = Bar(event.step, "told", 0, event.at, event.at, "succeeded", by=said)
            elif event.step is not None:
                _settle(bars, event, signals)
        elif event.type in ("command", "compensation"):
            direction = "undo" if event.type == "compensation" else "do" if event.worker else "wait"
            worker = event.worker
            bars[event.correlation_id] = Bar(event.step, direction, event.attempt, event.at, None, "open", worker)
        elif event.type in ("result", "error") and event.correlation_id:
            known = bars.get(event.correlation_id)
            if known is not None and known.end is not None:
                continue  # a late or repeated answer
            outcome, error = "succeeded", ""
            if event.type == "error":
                outcome = {"failed": "failed", "lost": "lost"}.get(str(event.kind), "unknown")
                error = f"{short_type(event.error.type)}: {event.error.message}"
            start = getattr(event, "started_at", None) or (known.start if known else event.at)
            direction = known.direction if known else str(event.direction.value)
            worker = known.worker if known else ""
            bars[event.correlation_id] = Bar(
                event.step, direction, event.attempt, start, event.at, outcome, worker, error
            )
    return sorted(bars.values(), key=lambda bar: bar.start)


def _settle(bars: dict[str, Bar], event: Any, signals: Mapping[str, str]) -> None:
    """Close the bar of a wait that took its signal, or of what the run, going back, does not wait for."""
    key = next((key for key, bar in bars.items() if bar.step == event.step and bar.end is None), None)
    if key is None:
        return
    if event.status == "received":
        by, outcome = signals.get(event.payload["key"], ""), "failed" if event.error else "succeeded"
        bars[key] = replace(bars[key], end=event.at, outcome=outcome, by=by)
    elif event.status == "abandoned" or bars[key].direction == "wait":
        bars[key] = replace(bars[key], end=event.at, outcome="unknown")
    elif event.status == "recalled":
        del bars[key]  # nobody had begun it


def _by(event: Any) -> str:
    return f"{event.actor or 'somebody'}{f': {event.reason}' if event.reason else ''}"


def short_type(name: str) -> str:
    """The class name without its module."""
    return name.rpartition(".")[2]


def timeline(
    title: str, status: str, steps: Sequence[str], bars: Sequence[Bar], width: int, *, now: datetime | None = None
) -> Text:
    """Draw one run as a mirror timeline.

    Args:
        title: what stands above it.
        status: the run's status.
        steps: its steps, in workflow order.
        bars: its attempts.
        width: columns of the terminal; the time axis takes what the names and the remarks leave.
        now: where bars in flight end; None: at the last time that any event names.
    """
    picture = Text(no_wrap=True, overflow="ellipsis")
    room = max(20, width - len(status) - 12)  # what its status and its time leave
    picture.append(title if len(title) <= room else f"{title[: room - 1]}…", style="bold")
    picture.append(f"  {status}", style=COLOURS.get(status, ""))
    if not bars:
        return picture
    width = min(56, max(20, width - 60))
    first = min(bar.start for bar in bars)
    last = max([bar.end or bar.start for bar in bars] + ([now] if now and any(b.end is None for b in bars) else []))
    seconds = max((last - first).total_seconds(), 0.001)
    picture.append(f"  {seconds:.1f} s\n", style="dim")

    def column(moment: datetime) -> int:
        return min(width - 1, max(0, round((moment - first).total_seconds() / seconds * (width - 1))))

    longest = max([12, *map(len, steps)]) + 1
    for step in steps:
        own = [bar for bar in bars if bar.step == step]
        cells: list[tuple[str, str]] = [(" ", "")] * width
        done = [column(bar.end or last) for bar in own if bar.direction != "undo"]
        undone = [column(bar.start) for bar in own if bar.direction == "undo"]
        if done and undone:
            for at in range(max(done) + 1, min(undone)):
                cells[at] = ("·", "dim")
        for bar in own:
            for at in range(column(bar.start), column(bar.end or last) + 1):
                cells[at] = _BARS[bar.direction, bar.outcome]
        picture.append(f"  {step:<{longest}}")
        for glyph, style in cells:
            picture.append(glyph, style=style)
        picture.append(f"  {_remark(own)}".rstrip() + "\n", style="dim")
    return picture


def _remark(bars: Sequence[Bar]) -> str:
    words = [bar.by for bar in bars if bar.by]
    for bar in bars:
        if bar.by:
            continue
        if bar.direction == "undo":
            words.append(f"← {bar.worker}" if bar.attempt == 1 else f"{bar.worker} again")
        elif bar.outcome == "lost":
            words.append(f"attempt {bar.attempt} lost with its process")
        elif bar.attempt > 1 and bar.outcome == "succeeded":
            words.append(f"attempt {bar.attempt} ✓")
        elif bar.error:
            words.append(bar.error)
    return ", ".join(
        word if times == 1 else f"{times} x {word}"
        for word, times in ((w, len(list(same))) for w, same in groupby(words))
    )


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table without lines between its cells; columns of numbers stand to the right."""
    rows = list(rows)
    drawn = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        show_header=any(headings),
        box=None,
        padding=(0, 1),
        pad_edge=False,
    )
    for heading, *cells in zip(headings, *rows, strict=True):
        numbers = cells and all(str(cell).translate(_IN_NUMBERS).isdigit() for cell in cells)
        drawn.add_column(heading, justify="right" if numbers else "left")
    for row in rows:
        drawn.add_row(*row)
    return drawn


_IN_NUMBERS = str.maketrans("", "", ".,")
#: how an effect stands -> how it looks
_STANDS = {"live": ("✓ live", "green"), "undone": ("↶ undone", "magenta"), "void": ("- refused", "dim")}


def effects_table(effects: Mapping[str, Sequence[Effect]], kinds: Sequence[str]) -> Table:
    """What is live in the world, and what was undone: a line for each name, a column for each kind of effect."""

    def cell(effects: Sequence[Effect], kind: str) -> Text:
        found = [effect.status for effect in effects if effect.kind == kind]
        return Text(" ").join(
            Text(f"{found.count(status)} x {words}" if found.count(status) > 1 else words, style=style)
            for status, (words, style) in _STANDS.items()
            if status in found
        ) or Text("never", style="dim")

    rows: list[list[str | Text]] = [[name, *(cell(own, kind) for kind in kinds)] for name, own in effects.items()]
    return table("What the world has", ["", *kinds], rows)


def checks_table(checks: Iterable[Check]) -> Table:
    """What was checked, and whether it holds."""
    no = {True: Text("-", style="yellow"), False: Text("✗", style="bold red")}
    yes = Text("✓", style="green")
    rows = [
        [yes if check.holds else no[check.free], Text(check.rule), Text(check.figures, style="dim")] for check in checks
    ]
    return table("Checked", ["", "", ""], rows)
