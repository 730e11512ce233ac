"""Run a hundred thousand random workflows against their models, on all cores; see `test_random_workflows`.

    make soak                     100,000 of them, other ones each time
    make soak COUNT=2000 FIRST=0  the seeds from 0 to 1999

What failed is printed as a test that is ready to run, and kept in ``once_failed.txt``, which runs first from then on,
also in ``make test``. It keeps the case, not only the seed: the same seed makes another case when a kind is added.
"""

from __future__ import annotations

import argparse
import ast
import logging
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.models.random_workflows import case, comparison, elements, stage
from tests.models.random_workflows.case import Case

#: A line for each: the seed, a tab, and the case.
ONCE_FAILED = Path(__file__).with_name("once_failed.txt")
#: Runs that one process takes at a time.
CHUNK = 250
#: Seconds that a run may take. Most take hundredths; one that takes this long does not end.
LIMIT = 60
#: Seconds between two lines that say how far it is.
EVERY = 5.0
#: After so many failures it is clear that something is wrong.
ENOUGH = 10


class TooLong(BaseException):
    """A run does not end; nobody on the way may take it for the failure of a step."""


class Failure(NamedTuple):
    seed: str
    case: Case
    report: str


def once_failed(path: Path = ONCE_FAILED) -> list[tuple[str, Case]]:
    """The cases that have failed once, with their seeds."""
    found = []
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            seed, _, written = line.partition("\t")
            found.append((seed, read(written)))
    return found


def read(written: str) -> Case:
    """The case whose repr this is."""
    tree = ast.parse(written, mode="eval")
    known = {**vars(elements), **vars(case)}
    found = eval(compile(tree, str(ONCE_FAILED), "eval"), known)  # our own file
    if not isinstance(found, Case):
        raise TypeError(f"{ONCE_FAILED} has {written[:60]!r}..., which is no Case; write it anew as its seed says")
    return found


def attempt(seed: str, case: Case, orchestrator: Any) -> Failure | None:
    """Run a case; what went wrong, if anything did."""

    def too_long(*_: Any) -> None:
        raise TooLong(f"it did not end within {LIMIT} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, LIMIT, 1.0)
    try:
        comparison.compare(orchestrator, case)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return Failure(seed, case, "".join(traceback.format_exception(error, limit=-2)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def chunk(seeds: tuple[int, int]) -> tuple[int, list[Failure]]:
    """Run the cases of some seeds (the first, and how many), in this process; how many there were, and what failed."""
    first, count = seeds
    logging.disable(logging.CRITICAL)
    with stage.engine() as orchestrator:
        failures = [attempt(str(seed), Case.of(seed), orchestrator) for seed in range(first, first + count)]
    return count, [failure for failure in failures if failure is not None]


def again() -> list[Failure]:
    """Run what has failed once."""
    logging.disable(logging.CRITICAL)
    with stage.engine() as orchestrator:
        failures = [attempt(seed, case, orchestrator) for seed, case in once_failed()]
    return [failure for failure in failures if failure is not None]


def as_test(failure: Failure) -> str:
    """A failure as a test that is ready to run, and what the workflow looks like."""
    case = str(failure.case).replace("\n", "\n        ")
    return (
        f"--- seed {failure.seed}\n{failure.report}\n"
        f"# The workflow:\n{failure.case.code()}\n\n"
        f"# The seed, as long as the generator is the same:\n"
        f"#   pytest tests/models/test_random_workflows.py -k of_a_seed --seed {failure.seed}\n"
        f"# The case, as a test for tests/models/test_random_workflows.py:\n"
        f"from tests.models.random_workflows.case import Case\n"
        f"from tests.models.random_workflows.elements import (\n"
        f"    Decision,\n    Fork,\n    Many,\n    Pass,\n    Pick,\n    Rounds,\n    Scope,\n    Work,\n)\n\n\n"
        f"def test_seed_{failure.seed}(orchestrator: Orchestrator) -> None:\n"
        f"    compare(\n        orchestrator,\n        {case},\n    )\n"
    )


def keep(failure: Failure, path: Path = ONCE_FAILED) -> None:
    """Write a case down that has failed, unless it is there already."""
    line = f"{failure.seed}\t{failure.case!r}\n"
    if line not in path.read_text():
        with path.open("a") as file:
            file.write(line)


def progress(done: int, count: int, failed: int, seconds: float) -> str:
    """How far it is, in a line."""
    rate = done / seconds if seconds else 0.0
    left = f"{(count - done) / rate / 60:.1f} min left" if rate else "no end in sight"
    return f"{done:>9,} of {count:,} ({done / count:.0%}), {rate:.0f} a second, {left}, {failed} failed"


def soak(first: int, count: int, jobs: int, say: Callable[[str], None] = print) -> list[Failure]:
    """Run the cases of so many seeds side by side.

    Args:
        first: the first seed.
        count: how many.
        jobs: how many processes.
        say: what a line of progress, or a failure, is given to.
    """
    starts = range(first, first + count, CHUNK)
    chunks = [(start, min(CHUNK, first + count - start)) for start in starts]
    failures: list[Failure] = []
    began = time.monotonic()
    done = 0
    # New processes now and then: what a process has built it keeps.
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=8) as pool:
        results = pool.imap_unordered(chunk, chunks)
        while done < count and len(failures) < ENOUGH:
            try:
                size, found = results.next(timeout=EVERY)
            except multiprocessing.TimeoutError:
                size, found = 0, []
            done += size
            failures += found
            for failure in found:
                say(as_test(failure))
            say(progress(done, count, len(failures), time.monotonic() - began))
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="how many workflows (default: %(default)s)")
    parser.add_argument("--first", type=int, help="the first seed (default: the time, in seconds, times a million)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many processes (default: all cores)")
    asked = parser.parse_args()
    first = int(time.time()) * 1_000_000 if asked.first is None else asked.first

    old = again()
    print(f"{len(once_failed())} that have failed once, of which {len(old)} fail now", flush=True)
    print(f"then {asked.count:,} on {asked.jobs} processes; the same ones again: FIRST={first}", flush=True)
    for failure in old:
        print(as_test(failure), flush=True)
    found = soak(first, asked.count, asked.jobs, lambda line: print(line, flush=True))
    for failure in found:
        keep(failure)
    if found:
        print(f"{len(found)} failed, and are in {ONCE_FAILED.relative_to(Path.cwd())} from now on")
    return 1 if old or found else 0


if __name__ == "__main__":
    sys.exit(main())
