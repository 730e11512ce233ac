"""What the tests of the rules work with: a deployment, and a scenario's runs, journal and gates."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from multiagents import ErrorEvent, ResultEvent, StatusEvent
from multiagents.event_bus import RedisEventBus
from multiagents.events import Event
from multiagents.testing import WorkerProcess, wait_until
from multiagents.workflow.decider import fold
from tests.support import ROOT
from tests.support.apps import scripted
from tests.support.due import unfinished

#: How many steps at a time.
CONCURRENCY = {"prefork": 4, "threads": 6, "gevent": 6, "solo": 1}
_numbers = itertools.count(1)


def start_worker(
    url: str,
    log_file: Path,
    *,
    broker: str = "",
    pool: str = "prefork",
    app: str = "tests.support.apps.scripted",
    **options: Any,
) -> WorkerProcess:
    """Start a worker of the rules' app; ``options`` are settings, or arguments of `WorkerProcess`.

    Args:
        url: where runs live.
        log_file: where its output goes.
        broker: where messages go; the same Redis if left out.
        pool: Celery's pool.
        app: the module of its app.
        options: settings without ``multiagents_``, and arguments of `WorkerProcess`.
    """
    arguments = {
        name: options.pop(name) for name in ("concurrency", "queues", "name", "extra", "cwd") if name in options
    }
    settings = {**scripted.SETTINGS, **options}
    env: dict[str, str | None] = {f"MULTIAGENTS_{name.upper()}": str(value) for name, value in settings.items()}
    env |= {"CELERY_BROKER_URL": broker or url, "MULTIAGENTS_REDIS_URL": url, "PYTHONPATH": str(ROOT)}
    arguments.setdefault("concurrency", CONCURRENCY[pool])
    arguments.setdefault("cwd", ROOT)
    return WorkerProcess(app, log_file, pool=pool, env=env, **arguments).start()


class Deployment:
    """A database, an orchestrator for it in this process, and a worker process."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        broker: str = "",
        pool: str = "prefork",
        mode: str = "inline",
        **settings: Any,
    ) -> None:
        self.url = url
        self.broker = broker or url
        self.folder = folder
        self.pool = pool
        self.mode = mode
        self.settings = {"orchestration": mode, **settings}
        self.app = scripted.make_app(self.broker, **{**scripted.SETTINGS, **self.settings, "redis_url": url})
        self.orchestrator = self.app.multiagents
        self.redis = scripted.client(url)
        self.workers: list[WorkerProcess] = []

    def start_worker(self, **options: Any) -> WorkerProcess:
        log = self.folder / f"worker-{len(self.workers) + 1}.log"
        started = start_worker(self.url, log, **{"broker": self.broker, "pool": self.pool, **self.settings, **options})
        self.workers.append(started)
        return started

    def __enter__(self) -> Self:
        self.start_worker().ready()
        return self

    def __exit__(self, *_error: object) -> None:
        for started in self.workers:
            started.kill()


class Scenario:
    """The runs of one test. Ids begin with the test's name, so they are easy to find in the worker's log."""

    def __init__(self, deployment: Deployment, name: str) -> None:
        self.deployment = deployment
        self.orchestrator = deployment.orchestrator
        self.store = deployment.orchestrator.store
        self.redis = deployment.redis
        self.runs: dict[str, Any] = {}
        self._name = re.sub(r"[^A-Za-z0-9._:@-]", "-", name)[:60]

    # --- runs

    def start(
        self, workflow: Any, input: dict[str, Any] | None = None, *, tid: str | None = None, **script: Any
    ) -> Any:
        """Start a run. ``script``: what each attempt of a step does; ``__`` stands for a dot: ``a__undo=["fail"]``."""
        identity = tid or f"{self._name}-{next(_numbers)}"
        actions = {step.replace("__", "."): each for step, each in script.items()}
        given = {**(input or {}), **({"script": actions} if actions else {})}
        run = self.runs[identity] = self.orchestrator.start(workflow, given, transaction_id=identity)
        return run

    def end(self, run: Any, timeout: float = 60.0) -> Any:
        """Wait for the end of a run and describe it."""
        self.store.wait_for_end(run.transaction_id, timeout)
        return run.describe()

    def play(self, workflow: Any, input: dict[str, Any] | None = None, **script: Any) -> Any:
        """Start a run, wait for its end and describe it."""
        return self.end(self.start(workflow, input, **script))

    # --- what the workers did

    def journal(self, run: Any) -> list[dict[str, Any]]:
        """What every attempt that was begun had been given, in the order in which they began."""
        return [json.loads(entry) for entry in self.redis.lrange(f"journal:{run.transaction_id}", 0, -1)]

    def began(self, run: Any, *names: str) -> list[str]:
        """The journal in short: ``"a"`` for a do, ``"a.undo"``, ``"a.probe"``; only of these, if any are named."""
        kinds = [
            (e["step"], ".undo" if e["direction"] == "undo" else ".probe" * e["probing"]) for e in self.journal(run)
        ]
        all_of_them = [step + kind for step, kind in kinds]
        return [name for name in all_of_them if not names or name in names]

    def until_begun(self, run: Any, name: str, times: int = 1) -> None:
        """Wait until an attempt was begun."""
        wait_until(lambda: len(self.began(run, name)) >= times, 20, f"attempt {times} of {name}")

    def open_gate(self, run: Any, step: str) -> None:
        """Let a step that does ``wait`` go on."""
        self.redis.rpush(f"gate:{run.transaction_id}:{step}", "go")

    def publish(self, *events: Event) -> None:
        """Publish events as a foreign process does."""
        bus = RedisEventBus(self.deployment.url)
        for event in events:
            bus.publish(event)
        bus.close()

    # --- the invariants that hold for every run

    def close(self) -> None:
        """Check every run of the test: it has ended, nothing is left over, and its history tells how it came to be."""
        for identity, run in self.runs.items():
            # A late success may have reopened it, where an attempt that was over its limit could not be stopped.
            with contextlib.suppress(TimeoutError):
                self.store.wait_for_end(identity, 0.1 if run.status == "paused" else 10)
            assert run.status.is_end or run.status == "paused", f"{identity} is still {run.status}: {run.describe()}"
            self.check_history(run)
        assert [name for name in self.store.visibility.unattended() if name in self.runs] == []

    def check_history(self, run: Any) -> None:
        """Rules G1 and G2, as far as they can be seen afterwards."""
        snapshot = self.store.load(run.transaction_id)
        history = run.history()
        assert fold(snapshot.definition, run.transaction_id, history) == snapshot.state
        commands = [event.correlation_id for event in history if event.type in ("command", "compensation")]
        assert len(set(commands)) == len(commands), "an attempt was dispatched twice"
        if snapshot.state.status.is_end:
            assert snapshot.in_flight == {}
            # Whoever has ended it may still be telling its parent.
            wait_until(lambda: self._left_over(run) == [], 5, f"what is left over to go: {self._left_over(run)}")

    def _left_over(self, run: Any) -> list[str]:
        left = self.redis.zrange(self.orchestrator.keys.of_partition(0).due, 0, -1)
        return [entry for entry in unfinished(left) if f"|{run.transaction_id}|" in f"{entry}|"]


def events(run: Any, kind: type[Event] | None = None, step: str | None = None) -> list[Any]:
    """Events of a run's history, of one kind and of one step if given."""
    return [
        event
        for event in run.history()
        if (kind is None or isinstance(event, kind)) and (step is None or event.step == step)
    ]


def statuses(run: Any) -> list[str]:
    """The statuses that the run went through."""
    return [event.status for event in events(run, StatusEvent) if event.step is None]


def outcomes(run: Any, step: str) -> list[str]:
    """How the attempts of a step ended: ``"result"``, ``"failed"``, ``"lost"``, ``"timeout"``, ``"unknown"``."""
    kinds: Iterable[Any] = (e for e in run.history() if e.step == step and isinstance(e, ResultEvent | ErrorEvent))
    return ["result" if isinstance(event, ResultEvent) else event.kind.value for event in kinds]
