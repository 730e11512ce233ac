"""Run the benchmarks and print what came out: ``python -m benchmarks`` or ``make bench``."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from benchmarks import report
from benchmarks.conditions import FULL, QUICK
from benchmarks.runner import NAMES, SIDES, Contest

#: The table in a page of the documentation stands between these.
_MARKED = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)


def _names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[str]:
    if value is None:
        return list(NAMES)
    by_lower = {name.lower(): name for name in NAMES}
    asked = [name.strip() for name in value.split(",")]
    if unknown := [name for name in asked if name.lower() not in by_lower]:
        raise click.BadParameter(f"there is no workload {unknown[0]!r}; choose from {', '.join(NAMES)}")
    return [by_lower[name.lower()] for name in asked]


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="One small round of about a minute, to see that all works.")
@click.option("--rounds", type=click.IntRange(1, 20), help="How many rounds (default: 3; 1 with --quick).")
@click.option("--only", "names", callback=_names, metavar="NAMES", help=f"Some of: {','.join(NAMES)}.")
@click.option("--side", type=click.Choice([*SIDES, "both"]), default="both", help="Measure one side alone.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all values there.")
@click.option(
    "--page",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Put the tables into this Markdown page, between its two <!-- figures --> marks.",
)
def main(
    *, quick: bool, rounds: int | None, names: list[str], side: str, json_file: Path | None, page: Path | None
) -> None:
    """Run the benchmarks; the exit code is 1 when something could not be measured."""
    # A terminated run cleans up as an interrupted one does; a shell's background job would ignore the interrupt.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    # Into a file or a pipe the tables go as wide as they are, not folded to the 80 columns of no terminal.
    console = Console(width=None if sys.stdout.isatty() else 140)
    progress = Console(stderr=True, highlight=False)
    sizes = QUICK if quick else FULL
    if rounds is not None:
        sizes = replace(sizes, rounds=rounds)
    if page is not None and not _MARKED.search(page.read_text()):
        raise click.UsageError(f"{page} has no '<!-- figures -->' and '<!-- end of figures -->' lines; add them")
    began = time.monotonic()

    def tell(line: str) -> None:
        progress.print(line, style="dim", markup=False, soft_wrap=True)

    try:
        results = Contest(sizes, names, SIDES if side == "both" else (side,), tell).play()
    except KeyboardInterrupt:
        progress.print("stopped; all processes have ended")
        sys.exit(130)
    filled, facts = report.rows(results), report.environment()
    for table in report.tables(filled):
        console.print(table)
    if busy := report.caution(results):
        console.print(f"! {busy}", style="yellow", markup=False, highlight=False)
    for note in results.notes:
        console.print(f"! {note}", style="yellow", markup=False, highlight=False)
    console.print(f"{time.monotonic() - began:.0f} s; " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(filled, results, facts), indent=1) + "\n")
    if page is not None:
        text = report.markdown(filled, results, facts)
        page.write_text(_MARKED.sub(lambda _: text, page.read_text()))
    sys.exit(1 if results.notes else 0)


if __name__ == "__main__":
    main()
