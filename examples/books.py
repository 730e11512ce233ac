"""What an example checks at its end, and how that looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from examples.world import Effect, World


@dataclass(frozen=True)
class Line:
    """One rule of the books, and whether it holds."""

    rule: str
    holds: bool
    #: the figures, or what broke the rule
    detail: str


def books(lines: Sequence[Line], title: str = "Ledger") -> Table:
    """Rules, and whether they hold."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1), pad_edge=False)
    for heading in ("holds", "rule", "figures"):
        table.add_column(heading)
    for line in lines:
        table.add_row(
            Text("yes", style="green") if line.holds else Text("NO", style="bold red"), line.rule, line.detail
        )
    return table


#: how an effect stands -> how it looks
_STANDS = {"live": ("✓ live", "green"), "undone": ("↶ undone", "magenta"), "void": ("- refused", "dim")}


def effects_table(title: str, effects: Sequence[Effect], kinds: Sequence[str], subjects: Sequence[str]) -> Table:
    """What is live in the world, and what was undone: a line a subject, a column a kind of effect.

    Args:
        title: what stands above it.
        effects: the world's effects.
        kinds: the columns.
        subjects: the lines.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1), pad_edge=False)
    for heading in ("", *kinds):
        table.add_column(heading, no_wrap=True)
    for subject in subjects:
        cells = [Text(subject)]
        for kind in kinds:
            found = [each.status for each in effects if (each.subject, each.kind) == (subject, kind)]
            cell = Text(" ").join(
                Text(f"{found.count(status)} x {words}" if found.count(status) > 1 else words, style=style)
                for status, (words, style) in _STANDS.items()
                if status in found
            )
            cells.append(cell or Text("never", style="dim"))
        table.add_row(*cells)
    return table


def keys_twice(world: World) -> Line:
    """The rule that every example keeps, whatever is retried or killed: no key takes effect twice."""
    with world.transaction(write=False) as db:
        query = "SELECT key FROM journal WHERE answer = 'done' GROUP BY key HAVING count(*) > 1"
        twice = [str(row["key"]) for row in db.execute(query)]
    return Line("no key took effect twice", not twice, ", ".join(twice) or "none")
