"""Run every example, or those that are named, each in a process of its own, and sum up.

``python run_examples.py``, or ``python run_examples.py trip_booking money_transfer``. The exit code is 0 when all of
them ended as they should.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from examples import EXAMPLES

#: Seconds that an example may take.
TIMEOUT = 300.0


def run(name: str) -> str:
    """Run one example; how it went, in words."""
    try:
        code = subprocess.run([sys.executable, "-m", f"examples.{name}.main"], timeout=TIMEOUT, check=False).returncode
    except subprocess.TimeoutExpired:
        return f"took longer than {TIMEOUT:g} s"
    return "ok" if code == 0 else f"failed with exit code {code}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python run_examples.py", description="Run the examples and sum up.")
    known = f"any of {', '.join(EXAMPLES)}; without a name, all of them"
    parser.add_argument("names", nargs="*", metavar="name", help=known)
    names = parser.parse_args(arguments).names or EXAMPLES
    if unknown := [name for name in names if name not in EXAMPLES]:
        parser.error(f"there is no example {', '.join(map(repr, unknown))}; expected {known}")
    console = Console()
    outcomes = []
    for name in names:
        console.rule(name, align="left")
        began = time.monotonic()
        outcome = run(name)
        outcomes.append((name, outcome, f"{time.monotonic() - began:.1f}"))
    console.rule("summary", align="left")
    for name, outcome, seconds in outcomes:
        style = "green" if outcome == "ok" else "bold red"
        console.print(f"{name:<22} [{style}]{outcome}[/]  [dim]{seconds:>5} s[/]", highlight=False)
    return 0 if all(outcome == "ok" for _, outcome, _ in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
