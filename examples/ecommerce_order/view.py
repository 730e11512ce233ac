"""How the orders look on a terminal: a board of all of them, and how they ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.columns import Columns
from rich.table import Table
from rich.text import Text

from examples.timeline import COLOURS

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
#: run status -> a word that leaves room for three orders on a line
SHORT: Mapping[str, str] = {
    "compensating": "undoing",
    "compensated": "undone",
    "compensation_failed": "undo fails",
}


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
