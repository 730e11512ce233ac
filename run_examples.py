"""Run every example, or those that are named, each in a process of its own, and sum up.

``python run_examples.py``, or ``python run_examples.py hello research_assistant``. Where there is no key for a model,
agents ask a stand-in, and the summary says so. The exit code is 0 when all of them ended as they should.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from examples import EXAMPLES
from examples._support import model
from examples._support.pictures import table

#: Seconds that an example may take on top of the time after which it gives up by itself.
GRACE = 120.0


@dataclass(frozen=True)
class Outcome:
    """How an example ended."""

    name: str
    #: "ok", or what was wrong
    words: str
    seconds: float
    checks: int = 0
    #: what its agents have asked; empty for those without agents
    model: str = ""


def run(name: str) -> Outcome:
    """Run one example; how it went."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", f"examples.{name}.main", "--report", str(report)]
        # Real models take their time: an example gives up by itself after 10 minutes.
        limit = GRACE + (600.0 if model.is_real() else 90.0)
        try:
            code = subprocess.run(command, timeout=limit, check=False).returncode
        except subprocess.TimeoutExpired:
            return Outcome(name, f"took longer than {limit:g} s", time.monotonic() - began)
        seconds = time.monotonic() - began
        if not report.exists():
            return Outcome(name, f"failed with exit code {code}", seconds)
        told = json.loads(report.read_text(encoding="utf-8"))
    words = "ok" if code == 0 else f"{len(told['wrong'])} checks do not hold" if told["wrong"] else f"exit code {code}"
    return Outcome(name, words, seconds, told["checks"], told["model"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python run_examples.py", description="Run the examples and sum up.")
    known = f"any of {', '.join(EXAMPLES)}; without a name, all of them"
    parser.add_argument("names", nargs="*", metavar="name", help=known)
    parser.add_argument("--offline", action="store_true", help="agents ask the stand-in, though there is a key")
    given = parser.parse_args(arguments)
    names = given.names or EXAMPLES
    if unknown := [name for name in names if name not in EXAMPLES]:
        parser.error(f"there is no example {', '.join(map(repr, unknown))}; expected {known}")
    if given.offline:
        os.environ[model.OFFLINE] = "1"  # for the examples, too
    console = Console()
    outcomes: list[Outcome] = []
    for number, name in enumerate(names, start=1):
        console.rule(f"{number} of {len(names)}: {name}", align="left")
        outcomes.append(run(name))
        last = outcomes[-1]
        console.print(f"{number} of {len(names)} done: {name} {last.words}, {last.seconds:.1f} s", style="dim")
    console.rule("summary", align="left")
    console.print(summary(outcomes))
    if any(outcome.model == model.in_words([model.STAND_IN]) for outcome in outcomes):
        console.print(Text(f"A stand-in is no model: a program answered, {model.why_not()}.", style="bold yellow"))
    return 0 if all(outcome.words == "ok" for outcome in outcomes) else 1


def summary(outcomes: Sequence[Outcome]) -> object:
    """A line for each example: how it went, and what its agents have asked."""
    rows = [
        (
            outcome.name,
            Text(outcome.words, style="green" if outcome.words == "ok" else "bold red"),
            str(outcome.checks),
            Text(outcome.model or "no agents", style="yellow" if "stand-in" in outcome.model else "dim"),
            f"{outcome.seconds:.1f}",
        )
        for outcome in outcomes
    ]
    return table("", ["example", "ended", "checks", "its agents asked", "seconds"], rows)


if __name__ == "__main__":
    sys.exit(main())
