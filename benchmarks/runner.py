"""Play the rounds: every workload on one side and right after it on the other.

A workload is a function from a warm `Deployment` and the `Sizes` to measured values by name. To add one, write it,
enter it in `WORKLOADS`, and give its values a line in `report.LINES`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise

from benchmarks import agents
from benchmarks.conditions import LONG, WIDE, Sizes
from benchmarks.processes import ROOT, Bystanders, Cost, Deployment, SideFailedError
from benchmarks.report import Results

Values = dict[str, float]
Workload = Callable[[Deployment, Sizes], Values]
Tell = Callable[[str], None]

SIDES = ("plain", "ours")
#: Every interpreter of the import time runs one of these.
IMPORTS = {"plain": "from celery import Celery", "ours": "import multiagents"}


def many_runs(side: Deployment, sizes: Sizes) -> Values:
    """W1: runs of three steps started at once; also what a step costs in CPU, round trips and memory."""
    before = side.cost()
    seconds = side.ask("burst", "three", sizes.runs)["seconds"]
    used = _settled(side) - before
    steps = sizes.runs * 3
    return {
        "w1.rate": sizes.runs / seconds,
        "w1.steps": steps / seconds,
        "w1.cpu": 1000 * sum(used.cpu.values()) / steps,
        **{f"w1.cpu.{role}": 1000 * seconds / steps for role, seconds in used.cpu.items()},
        "w1.reads": used.reads / steps,
        "w1.commands": used.commands / steps,
        "w1.scripts": used.scripts / steps,
        # Left when the worker has fetched each message and the client has started each run.
        "w1.trips": (used.reads - used.fetches - sizes.runs) / steps,
        "w1.memory": used.memory / sizes.runs / 1000,
    }


def one_at_a_time(side: Deployment, sizes: Sizes) -> Values:
    """Latency of a run of three steps: to its last step, and until the caller has the result."""
    answer = side.ask("series", "three", sizes.singles, wait=True)
    last = [1000 * marks[-1] for marks in answer["marked"]]
    observed = [1000 * seconds for seconds in answer["observed"]]
    return {
        "latency.p50": statistics.median(last),
        "latency.p99": _percentile(last, 99),
        "latency.result.p50": statistics.median(observed),
        "latency.result.p99": _percentile(observed, 99),
    }


def fan_out(side: Deployment, sizes: Sizes) -> Values:
    """W2: a hundred parallel steps and a join, one at a time and many at once."""
    answer = side.ask("series", "fan_out", sizes.fans)
    before = side.cost()
    seconds = side.ask("burst", "fan_out", sizes.fans_at_once)["seconds"]
    used = _settled(side) - before
    steps = sizes.fans_at_once * (WIDE + 1)
    return {
        "w2.time": 1000 * statistics.median(marks[-1] for marks in answer["marked"]),
        "w2.rate": steps / seconds,
        "w2.cpu": 1000 * sum(used.cpu.values()) / steps,
        "w2.reads": used.reads / steps,
    }


def long_run(side: Deployment, sizes: Sizes) -> Values:
    """W3: one run of two hundred steps; does the last step cost more than the first?"""
    runs = side.ask("series", "long", sizes.longs, each=LONG)["marked"]
    gaps = [[later - earlier for earlier, later in pairwise(marks)] for marks in runs]
    first = statistics.mean(1000 * gap for run in gaps for gap in run[:20])
    last = statistics.mean(1000 * gap for run in gaps for gap in run[-20:])
    return {
        "w3.rate": LONG / statistics.median(marks[-1] for marks in runs),
        "w3.first": first,
        "w3.last": last,
        "w3.growth": last / first,
    }


def local_steps(side: Deployment, sizes: Sizes) -> Values:
    """W4: runs of two hundred local steps, some at once, beside chains of as many tasks."""
    seconds = side.ask("burst", "local", sizes.locals)["seconds"]
    return {"w4.rate": sizes.locals * LONG / seconds}


def synced_always(side: Deployment, sizes: Sizes) -> Values:
    """W1 once more, with the server's AOF synced to disk at every write."""
    side.set_fsync("always")
    try:
        return {"aof.rate": sizes.runs / side.ask("burst", "three", sizes.runs)["seconds"]}
    finally:
        side.set_fsync("everysec")


def raw_tasks(side: Deployment, sizes: Sizes) -> Values:
    """Bare Celery tasks without results: the floor that plain Celery itself cannot go beneath."""
    if side.side != "plain":
        return {}
    return {"raw.rate": sizes.raws / side.ask("burst", "raw", sizes.raws)["seconds"]}


#: What one may ask for with ``--only``; "idle", "import" and "agents" are measured apart: they need both sides or none.
WORKLOADS: dict[str, Workload] = {
    "W1": many_runs,
    "latency": one_at_a_time,
    "W2": fan_out,
    "W3": long_run,
    "W4": local_steps,
    "aof": synced_always,
    "raw": raw_tasks,
}
NAMES = (*WORKLOADS, "idle", "import", "agents")


@dataclass
class Contest:
    """All rounds of one call, and what they found.

    A side that fails is left out for the rest of its round, and the notes say so. No workload is begun after
    ``sizes.limit`` seconds.

    Args:
        sizes: how much work.
        names: which of `NAMES`.
        sides: which of `SIDES`.
        tell: called with a line of progress.
    """

    sizes: Sizes
    names: Sequence[str]
    sides: Sequence[str]
    tell: Tell
    results: Results = field(default_factory=Results)

    def play(self) -> Results:
        """Play all rounds and return what was measured."""
        self._deadline = time.monotonic() + self.sizes.limit
        if "import" in self.names:
            self._take_import_time()
        if "agents" in self.names:
            self._take_agents()
        if set(self.names) <= {"import", "agents"}:
            return self.results
        for number in range(1, self.sizes.rounds + 1):
            if self._is_late():
                self._note(f"time was up after {number - 1} of {self.sizes.rounds} rounds")
                break
            self._play_round(number)
        return self.results

    def _play_round(self, number: int) -> None:
        where = f"round {number}/{self.sizes.rounds}"
        with ExitStack() as stack:
            up: dict[str, Deployment] = {}
            others: dict[str, float] = {}
            for side in self.sides if number % 2 else reversed(self.sides):
                self.tell(f"{where}: starting {side}")
                try:
                    up[side] = stack.enter_context(Deployment(side, patience=self.sizes.patience))
                except SideFailedError as error:
                    self._note(f"{where}: {side} did not start: {error}")
            for name in (name for name in WORKLOADS if name in self.names):
                for side in list(up):
                    if self._is_late():
                        self._note(f"{where}: time was up before {name} on {side}")
                        return
                    try:
                        bystanders = Bystanders(up.values())
                        values = WORKLOADS[name](up[side], self.sizes)
                        if values:
                            others[side] = max(others.get(side, 0.0), bystanders.cores())
                    except SideFailedError as error:
                        self._note(f"{where}: {name} failed on {side}, the round goes on without it: {error}")
                        up.pop(side).close()
                        continue
                    self._record(number, side, values, f"{where}: {name:8} {side:6}")
            for side, cores in others.items():
                self.results.add(number, side, {"others": cores})
            if "idle" in self.names and up and not self._is_late():
                self.tell(f"{where}: idle, {self.sizes.idle:.0f} s")
                for side, values in _watch_idle(up, self.sizes.idle).items():
                    self._record(number, side, values, f"{where}: idle     {side:6}")

    def _take_import_time(self) -> None:
        """Take the wall time of fresh interpreters, in turns; the first of each side only fills the file cache."""
        for number in range(self.sizes.imports + 1):
            for side in self.sides if number % 2 else reversed(self.sides):
                command = [sys.executable, "-c", IMPORTS[side]]
                began = time.monotonic()
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
                seconds = time.monotonic() - began
                if done.returncode:
                    self._note(f"{IMPORTS[side]!r} failed: {(done.stderr.splitlines() or ['?'])[-1]}")
                    return
                if number:
                    self.results.add(number, side, {"import.time": seconds})
        medians = (f"{side} {self.results.median(side, 'import.time'):.2f} s" for side in self.sides)
        self.tell("import: " + ", ".join(medians))

    def _take_agents(self) -> None:
        """Take what agents cost, as often as there are rounds."""
        for number in range(1, self.sizes.rounds + 1):
            try:
                found = agents.measure(self.sizes.calls, self.sizes.patience, self.tell)
            except SideFailedError as error:
                self._note(f"agents: {error}")
                return
            for side in self.sides:
                self.results.add(number, side, found[side])

    def _record(self, number: int, side: str, values: Values, heading: str) -> None:
        self.results.add(number, side, values)
        if values:
            first = list(values.items())[:4]
            self.tell(f"{heading} " + "  ".join(f"{name} {value:.4g}" for name, value in first))

    def _note(self, text: str) -> None:
        self.results.notes.append(text)
        self.tell(text)

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline


def _settled(side: Deployment) -> Cost:
    """The cost once the last acks, results and commits are through."""
    time.sleep(0.3)
    return side.cost()


def _watch_idle(up: dict[str, Deployment], seconds: float) -> dict[str, Values]:
    """Watch all sides at once while they have nothing to do; in percent of a core."""
    time.sleep(1.0)
    before = {name: side.cost() for name, side in up.items()}
    time.sleep(seconds)
    used = {name: side.cost() - before[name] for name, side in up.items()}
    return {
        name: {
            "idle.worker": 100 * (cost.cpu["worker main"] + cost.cpu["pool children"]) / seconds,
            "idle.server": 100 * cost.cpu["server"] / seconds,
        }
        for name, cost in used.items()
    }


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
