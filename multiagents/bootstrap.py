"""Wire the library to a Celery app: the one place that knows both the orchestrator and the workers' side.

`init_app` only registers: it connects nothing, starts no thread and reads no setting, because ``config_from_object``
may come after it and a fork after that.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import Celery, bootsteps, signals

from multiagents.exceptions import MultiAgentsError
from multiagents.names import HEADER, Correlation
from multiagents.orchestrator import tasks as _orchestrator_tasks  # noqa: F401 - registers the orchestrator's task
from multiagents.orchestrator.api import Orchestrator
from multiagents.orchestrator.engine.engine import Engine
from multiagents.orchestrator.engine.revocation import revoked
from multiagents.orchestrator.engine.unclaimable import unclaimable
from multiagents.orchestrator.recovery.maintenance import Upkeep
from multiagents.worker_sdk.attempt.runtime import WorkerRuntime
from multiagents.worker_sdk.execution import event_loop as loop
from multiagents.worker_sdk.tasks import install

if TYPE_CHECKING:
    from multiagents.event_bus.base import EventBus

__all__ = ["init_app"]

logger = logging.getLogger(__name__)


def init_app(app: Celery, settings: Any = None) -> Orchestrator:
    """Give a Celery app durable workflows; calling it again returns the same orchestrator.

    Args:
        app: the app; ``app.multiagents`` is the orchestrator from then on.
        settings: a mapping of settings that win over ``app.conf`` and the environment; or ``Settings``.

    Returns:
        the orchestrator: ``orchestrator.start(order, {...})``.

    >>> from celery import Celery
    >>> app = Celery("shop", broker="redis://localhost:6379/0")
    >>> orchestrator = init_app(app)
    >>> init_app(app) is orchestrator is app.multiagents
    True
    """
    known = getattr(app, "multiagents", None)
    return known if isinstance(known, Orchestrator) else Orchestrator(app, settings)


def _wire(orchestrator: Orchestrator) -> None:
    """What `Orchestrator` cannot do itself, because it does not know the workers' side."""
    app = orchestrator.app
    install(app, partial(_worker_runtime, orchestrator))
    app.steps["worker"].add(UpkeepStep)
    app.steps["consumer"].add("multiagents.worker_sdk.consumer.celery:HardLimits")


def _worker_runtime(orchestrator: Orchestrator) -> WorkerRuntime:
    """What a process runs the app's steps with."""
    engine = orchestrator.engine
    return WorkerRuntime(
        store=engine.store,
        new_store=orchestrator.runtime.new_store,
        settings=orchestrator.settings,
        settle=engine.settle,
        unclaimable=partial(unclaimable, engine),
        limited=not orchestrator.app.conf.task_always_eager,
    )


Orchestrator.created.append(_wire)


class UpkeepStep(bootsteps.StartStopStep):
    """Run the upkeep in every worker of an app that has an orchestrator."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_kwargs: Any) -> None:
        orchestrator: Orchestrator = worker.app.multiagents
        # A wrong setting ends the worker here, and says why: a signal's receivers would only log it.
        _ = orchestrator.settings, orchestrator.runtime.store_url, orchestrator.runtime.payload_policy
        self._upkeep = Upkeep(lambda: _patient(orchestrator), lambda: _bus(orchestrator), worker.hostname)

    def start(self, _worker: Any) -> None:
        """Begin when the worker does."""
        self._upkeep.start()

    def stop(self, _worker: Any) -> None:
        """End with it."""
        self._upkeep.stop()

    def terminate(self, worker: Any) -> None:
        """End with it, also when it is shut down cold."""
        self.stop(worker)


def _patient(orchestrator: Orchestrator) -> Engine:
    """An engine for the sweep: its store gives up at once, and tries again at the next tick."""
    return Engine(orchestrator.store.for_sweep(), orchestrator.dispatcher, orchestrator.settings)


def _bus(orchestrator: Orchestrator) -> EventBus:
    url = orchestrator.runtime.store_url
    if url.startswith("memory://"):
        from multiagents.event_bus.memory import InMemoryEventBus

        return InMemoryEventBus()
    from multiagents.event_bus.redis import RedisEventBus

    return RedisEventBus(url, prefix=orchestrator.keys.prefix, partitions=orchestrator.keys.partitions)


@signals.celeryd_init.connect(weak=False)
def _choose_transport(instance: Any = None, **_kwargs: Any) -> None:
    """Lean QoS, in worker processes only: set for the whole app it would reach Flower."""
    orchestrator = getattr(getattr(instance, "app", None), "multiagents", None)
    if not isinstance(orchestrator, Orchestrator) or not orchestrator.dispatcher.atomic:
        return
    from multiagents.worker_sdk.consumer.kombu import choose_transport

    transport = choose_transport(instance.app.conf, orchestrator.settings.lean_qos)
    if transport:
        instance.app.conf.broker_transport = transport


@signals.worker_init.connect(weak=False)
def _load_before_fork(sender: Any = None, **_kwargs: Any) -> None:
    """What every pool child needs is loaded once, by their parent; nothing is connected."""
    orchestrator = getattr(getattr(sender, "app", None), "multiagents", None)
    if isinstance(orchestrator, Orchestrator):
        _ = orchestrator.engine


@signals.worker_process_shutdown.connect(weak=False)
def _close_loop(**_kwargs: Any) -> None:
    loop.close()


@signals.task_unknown.connect(weak=False)
def _not_registered(sender: Any = None, message: Any = None, **kwargs: Any) -> None:
    """A worker took a step that it does not know: another may, or this one after its deploy."""
    orchestrator = getattr(getattr(sender, "app", None), "multiagents", None)
    ours = HEADER in (getattr(message, "headers", None) or {})
    task_id = str(kwargs.get("id", ""))
    if isinstance(orchestrator, Orchestrator) and ours and task_id.count("/") == 3:
        try:
            orchestrator.engine.not_registered(Correlation.parse(task_id))
        except MultiAgentsError as error:
            logger.warning("%s is left to the sweep: %s", task_id, error)


@signals.task_revoked.connect(weak=False)
def _revoked(sender: Any = None, request: Any = None, **kwargs: Any) -> None:
    """``celery control revoke`` of a step: a failed attempt, which otherwise would be sent again as if it were lost."""
    orchestrator = getattr(getattr(sender, "app", None), "multiagents", None)
    task_id = str(getattr(request, "id", ""))
    if isinstance(orchestrator, Orchestrator) and task_id.count("/") == 3:
        try:
            revoked(orchestrator.engine, Correlation.parse(task_id), terminated=bool(kwargs.get("terminated")))
        except MultiAgentsError as error:
            logger.warning("%s was revoked, which is left to the sweep: %s", task_id, error)


@signals.task_failure.connect(weak=False)
def _report_lost(sender: Any = None, task_id: str = "", exception: Any = None, **_kwargs: Any) -> None:
    """The parent of a killed pool child knows at once what its lease would tell only later."""
    if type(exception).__name__ not in ("WorkerLostError", "TimeLimitExceeded"):
        return
    orchestrator = getattr(getattr(sender, "app", None), "multiagents", None)
    if isinstance(orchestrator, Orchestrator) and task_id.count("/") == 3:
        try:
            orchestrator.store.expire(Correlation.parse(task_id))
        except MultiAgentsError as error:
            logger.warning("%s is left to its lease: %s", task_id, error)
