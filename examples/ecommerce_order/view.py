"""How runs look on a terminal: a board of all orders, and the mirror timeline of one.

The mirror timeline shows a step and its undo on one line and one time axis: what went forward, and how it was taken
back. It is drawn from the run's history alone; every attempt is a bar of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.columns import Columns
from rich.table import Table
from rich.text import Text

from examples.ecommerce_order.ledger import Line

#: step status -> how it looks on the board
GLYPHS: Mapping[str, tuple[str, str]] = {
    "not_started": ("·", "dim"),
    "scheduled": ("○", "cyan"),
    "running": ("▶", "cyan"),
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "unknown": ("?", "yellow"),
    "skipped": ("-", "dim"),
    "compensating": ("◀", "magenta"),
    "compensated": ("↶", "magenta"),
    "compensation_failed": ("!", "bold red"),
}
#: run status -> colour
COLOURS: Mapping[str, str] = {
    "running": "cyan",
    "compensating": "magenta",
    "completed": "green",
    "compensated": "magenta",
    "failed": "yellow",
    "compensation_failed": "bold red",
}
#: run status -> a word that leaves room for three orders on a line
SHORT: Mapping[str, str] = {
    "compensating": "undoing",
    "compensated": "undone",
    "compensation_failed": "undo fails",
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
}


@dataclass(frozen=True)
class Bar:
    """One attempt on the time axis."""

    step: str
    direction: str
    attempt: int
    start: datetime
    #: None while it is in flight
    end: datetime | None
    #: "open", "succeeded", "failed", "lost" or "unknown"
    outcome: str
    worker: str = ""
    error: str = ""


def bars_of(history: Iterable[Any]) -> list[Bar]:
    """Read the attempts out of a run's events: commands open a bar, results and errors close it."""
    bars: dict[str, Bar] = {}
    for event in history:
        if event.type in ("command", "compensation"):
            direction = "do" if event.type == "command" else "undo"
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
            direction, worker = str(event.direction.value), known.worker if known else ""
            bars[event.correlation_id] = Bar(
                event.step, direction, event.attempt, start, event.at, outcome, worker, error
            )
    return sorted(bars.values(), key=lambda bar: bar.start)


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

    for step in steps:
        own = [bar for bar in bars if bar.step == step]
        cells: list[tuple[str, str]] = [(" ", "")] * width
        done = [column(bar.end or last) for bar in own if bar.direction == "do"]
        undone = [column(bar.start) for bar in own if bar.direction == "undo"]
        if done and undone:
            for at in range(max(done) + 1, min(undone)):
                cells[at] = ("·", "dim")
        for bar in own:
            for at in range(column(bar.start), column(bar.end or last) + 1):
                cells[at] = _BARS[bar.direction, bar.outcome]
        picture.append(f"  {step:<13}")
        for glyph, style in cells:
            picture.append(glyph, style=style)
        picture.append(f"  {_remark(own)}".rstrip() + "\n", style="dim")
    return picture


def _remark(bars: Sequence[Bar]) -> str:
    words = []
    for bar in bars:
        if bar.direction == "undo":
            words.append(f"← {bar.worker}" if bar.attempt == 1 else f"{bar.worker} again")
        elif bar.outcome == "lost":
            words.append(f"attempt {bar.attempt} lost with its process")
        elif bar.attempt > 1 and bar.outcome == "succeeded":
            words.append(f"attempt {bar.attempt} ✓")
        elif bar.error:
            words.append(bar.error)
    return ", ".join(words)


@dataclass(frozen=True)
class Row:
    """One order on the board."""

    order_id: str
    status: str
    #: status of each step, in workflow order
    steps: tuple[str, ...]


def board(rows: Sequence[Row], columns: int = 3) -> Columns:
    """All orders side by side, one glyph a step."""
    height = -(-len(rows) // columns)
    tables = []
    for start in range(0, len(rows), height):
        table = Table.grid(padding=(0, 1))
        for row in rows[start : start + height]:
            glyphs = Text()
            for status in row.steps:
                glyphs.append(*GLYPHS.get(status, ("·", "dim")))
            table.add_row(
                row.order_id,
                glyphs,
                Text(f"{SHORT.get(row.status, row.status):<9}", style=COLOURS.get(row.status, "dim")),
            )
        tables.append(table)
    return Columns(tables, padding=(0, 2))


def legend() -> Text:
    """What the glyphs on the board mean, on one line."""
    words = {
        "scheduled": "queued",
        "running": "busy",
        "succeeded": "done",
        "failed": "failed",
        "unknown": "doubt",
        "compensating": "undoing",
        "compensated": "undone",
        "skipped": "skipped",
    }
    line = Text(no_wrap=True, overflow="ellipsis")
    for status, word in words.items():
        line.append(*GLYPHS[status]).append(f" {word}  ", style="dim")
    line.rstrip()
    return line


@dataclass(frozen=True)
class Verdict:
    """How a run ended, against how it was to end."""

    order_id: str
    about: str
    status: str
    expected: str
    reason: str
    as_expected: bool


def outcomes(verdicts: Sequence[Verdict], width: int) -> Table:
    """The table of outcomes against expectations; what is too long for the width is cut, never wrapped."""
    table = Table(title="Outcomes", title_justify="left", title_style="bold", box=None, padding=(0, 1), pad_edge=False)
    table.add_column("order", no_wrap=True)
    longest = max([len(verdict.about) for verdict in verdicts] + [7])
    table.add_column("what is special", no_wrap=True, width=max(16, min(longest, width - 56)))
    table.add_column("ended as", no_wrap=True)
    table.add_column("because of", no_wrap=True)
    table.add_column("right")
    for verdict in verdicts:
        mark = Text("yes", style="green") if verdict.as_expected else Text(f"NO: {verdict.expected}", style="bold red")
        colour = COLOURS.get(verdict.status, "")
        table.add_row(verdict.order_id, verdict.about, Text(verdict.status, style=colour), verdict.reason, mark)
    return table


def books(lines: Sequence[Line]) -> Table:
    """The ledger's rules, and whether they hold."""
    table = Table(title="Ledger", title_justify="left", title_style="bold", box=None, padding=(0, 1), pad_edge=False)
    for heading in ("holds", "rule", "figures"):
        table.add_column(heading)
    for line in lines:
        table.add_row(
            Text("yes", style="green") if line.holds else Text("NO", style="bold red"), line.rule, line.detail
        )
    return table
