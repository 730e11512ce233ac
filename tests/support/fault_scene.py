"""What every test of the fault suite needs: a client, workers, the ledger, and the audit of how it all ended."""

from __future__ import annotations

import heapq
import os
import random
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import redis

from multiagents.events import ErrorEvent, ResultEvent
from multiagents.names import Direction
from multiagents.orchestrator import Run
from multiagents.orchestrator.dispatch.kombu import SEPARATOR
from multiagents.testing import WorkerProcess, wait_until
from multiagents.testing.plugin import WorkerStarter
from multiagents.workflow.decider import evolve, fold
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunState, RunStatus
from tests.support import ROOT
from tests.support.apps.fault_sagas import FOLDER, Ledger, make_app
from tests.support.due import unfinished

#: Seconds. Short, so that a test is; long enough for a machine that is busy with other tests.
LEASE = 1.5
#: Rule of the issue: a run is on its way again within a lease and this many seconds.
RECOVERY = 5.0


class Scene:
    """One database, one ledger, a client, and as many workers as a test starts.

    Args:
        folder: where the ledger goes.
        url: the database: state and broker.
        starter: the fixture ``start_worker``.
        settings: settings of client and workers.
    """

    def __init__(self, folder: Path, url: str, starter: WorkerStarter, **settings: Any) -> None:
        self.url = url
        self.ledger = Ledger(folder)
        self.settings = {"lease": LEASE, "sweep_interval": 0.25, "orchestration": "inline", **settings}
        self.orchestrator = make_app(url, self.settings).multiagents
        self.store = self.orchestrator.store
        self.redis = redis.Redis.from_url(url, decode_responses=True)
        self._pushed_before = self._pushed()
        self._starter = starter
        self._numbers = iter(range(1_000_000))

    def worker(
        self, *, env: dict[str, str] | None = None, path: Iterable[Path] = (), **arguments: Any
    ) -> WorkerProcess:
        """A worker, ready; ``path`` comes first where it looks for modules."""
        settings = {f"MULTIAGENTS_{name.upper()}": str(value) for name, value in self.settings.items()}
        servers = {"CELERY_BROKER_URL": self.url, "MULTIAGENTS_REDIS_URL": self.url}
        modules = os.pathsep.join(map(str, [*path, ROOT]))
        given = {**servers, **settings, FOLDER: str(self.ledger.folder), "PYTHONPATH": modules, **(env or {})}
        return self._starter("tests.support.apps.fault_sagas", env=given, **arguments)

    def start(self, definition: Definition, orders: dict[str, Any] | None = None, name: str | None = None) -> Run:
        """Start a run; what its steps are to do is in ``orders``, as `fault_sagas.act` reads it."""
        return self.orchestrator.start(definition, orders or {}, transaction_id=name or f"r{next(self._numbers)}")

    def wait_for(self, timeout: float = 60.0, number: int = 1, **wanted: Any) -> dict[str, Any]:
        """Wait until the ledger has so many such lines, and return the last."""
        what = f"{number} lines {wanted} in the ledger"
        return wait_until(lambda: self.ledger.rows(**wanted)[number - 1 :], timeout, what)[0]

    def ended(self, runs: Iterable[Run], timeout: float = 90.0) -> dict[str, RunStatus]:
        """Wait until all are over; how each ended."""
        give_up = time.monotonic() + timeout
        return {
            run.transaction_id: self.store.wait_for_end(run.transaction_id, max(0.1, give_up - time.monotonic()))
            for run in runs
        }

    def sent(self) -> int:
        """How many messages commits have pushed, to queues of all priorities."""
        return self._pushed() - self._pushed_before

    def _pushed(self) -> int:
        stats: dict[str, Any] = self.redis.info("commandstats")
        pushed, moved = (int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("lpush", "lrem"))
        return pushed - moved  # a start that goes on in another list is no other message

    def waiting(self, queue: str = "celery") -> int:
        """How many messages wait in a queue, of all priorities."""
        lists = [queue, *(f"{queue}{SEPARATOR}{priority}" for priority in (3, 6, 9))]
        return sum(self.redis.llen(name) for name in lists)

    def audit(self, runs: Iterable[Run], *statuses: str) -> None:
        """Nothing lost, stranded or counted twice; every compensation complete; history and state agree.

        Args:
            runs: all runs there are.
            statuses: how they may have ended.
        """
        runs = list(runs)
        assert set(self.ended(runs).values()) <= set(statuses)
        assert self.store.visibility.unattended() == []
        assert {run.transaction_id for run in runs} == _known(self)
        effects = _by_run(self.ledger.rows(event="took"))
        for run in runs:
            snapshot = self.store.load(run.transaction_id)
            definition, state = snapshot.definition, snapshot.state
            assert snapshot.in_flight == {}, run
            assert fold(definition, run.transaction_id, run.history()) == state, run
            _no_reply_counted_twice(definition, state, run)
            _effects_agree(definition, state, effects.get(run.transaction_id, []))
        part = self.orchestrator.keys.of_partition(0)
        assert unfinished(self.redis.zrange(part.due, 0, -1)) == []
        assert self.redis.keys(f"{part.tag}:sent:*") == []


def _known(scene: Scene) -> set[str]:
    found: set[str] = set()
    cursor = None
    while True:
        page = scene.orchestrator.list(limit=1000, cursor=cursor)
        found |= {run.transaction_id for run in page}
        cursor = page.cursor
        if cursor is None:
            return found


def _by_run(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    parted: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        parted.setdefault(row["run"], []).append(row)
    return parted


def _no_reply_counted_twice(definition: Definition, end: RunState, run: Run) -> None:
    """Rule G2: of all replies in the history, one success of each step and direction at most has changed it."""
    state = RunState(run.transaction_id, definition.name)
    counted: dict[tuple[str, Direction], int] = {}
    for event in run.history():
        after = evolve(definition, state, event)
        if isinstance(event, ResultEvent | ErrorEvent) and event.step is not None:
            moved = after.step(event.step).activity(event.direction) != state.step(event.step).activity(event.direction)
            if isinstance(event, ResultEvent) and moved:
                place = (event.step, event.direction)
                counted[place] = counted.get(place, 0) + 1
        state = after
    again = {(name, Direction.UNDO) for name, step in end.steps.items() if step.late}  # rule S5
    assert {place: n for place, n in counted.items() if n > 1 and place not in again} == {}, run


def _effects_agree(definition: Definition, state: RunState, effects: list[dict[str, Any]]) -> None:
    """What the outside world saw is what the run says: done, and where the run went back, undone, in order."""
    done = {row["step"]: row for row in effects if row["direction"] == "do"}  # the last of each
    undone = {row["step"]: row for row in effects if row["direction"] == "undo"}
    first_undo: dict[str, float] = {}
    for row in effects:
        assert row["key"] == f"{state.transaction_id}/{row['step']}"
        if row["direction"] == "undo":
            first_undo.setdefault(row["step"], row["at"])
    where = f"run {state.transaction_id}: {effects}"
    if state.status is RunStatus.COMPLETED:
        assert done.keys() == definition.steps.keys(), where
        assert undone == {}, where
        return
    undoable = {name for name, step in definition.steps.items() if step.compensation}
    assert done.keys() & undoable <= undone.keys(), where
    for name, row in undone.items():
        assert name not in done or done[name]["at"] < row["at"], f"the undo of {name} came before its effect: {where}"
        for after in _descendants(definition, name) & first_undo.keys():
            assert undone[after]["at"] < first_undo[name] or (
                after in done and done[after]["at"] > first_undo[name]
            ), where


def _descendants(definition: Definition, name: str) -> set[str]:
    found: set[str] = set()
    ahead = list(definition.successors[name])
    while ahead:
        step = ahead.pop()
        if step not in found:
            found.add(step)
            ahead += definition.successors[step]
    return found


class Postman(threading.Thread):
    """Carries messages from one list to another: every one twice, out of order, some later than a lease.

    Args:
        url: the database.
        source: the list that the engine and Celery push to.
        target: the queue that the workers consume.
        late: how many of a hundred copies come later than a lease.
    """

    def __init__(self, url: str, source: str, target: str, late: int = 3) -> None:
        super().__init__(daemon=True)
        self.carried = 0
        self._redis = redis.Redis.from_url(url)
        self._source, self._target, self._late = source, target, late
        self._random = random.Random(20)
        self._over = threading.Event()

    def run(self) -> None:
        """Carry until told to stop."""
        bag: list[tuple[float, int, bytes]] = []
        while not self._over.wait(0.005):
            now = time.monotonic()
            for message in self._redis.rpop(self._source, 200) or []:
                for _ in range(2):
                    self.carried += 1
                    late = self._random.randrange(100) < self._late
                    delay = LEASE * 1.5 if late else self._random.uniform(0, 0.06)
                    heapq.heappush(bag, (now + delay, self.carried, message))
            while bag and bag[0][0] <= now:
                self._redis.lpush(self._target, heapq.heappop(bag)[2])

    def stop(self) -> None:
        """Stop, and wait for it."""
        self._over.set()
        self.join()
