"""What an example checks at its end, and how that looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Line:
    """One rule of the books, and whether it holds."""

    rule: str
    holds: bool
    #: the figures, or what broke the rule
    detail: str


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
