"""Wire the library to a Celery app: the one place that knows both the orchestrator and the workers' side.

`init_app` only registers: it connects nothing, starts no thread and reads no setting, because ``config_from_object``
may come after it and a fork after that. What it registers, in the order in which it comes to something:

1. Celery's signals: a worker's transport, and attempts that end without their worker's word (`celery_signals`).
2. In a worker's main process, the thread that sweeps and reads the bus.
3. In its consumer, what sees to the end of steps: over their hard limit, or with the worker.
4. In every process that runs a step, what steps are run with.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from celery import Celery, bootsteps
from celery.app import utils as celery_reports
from celery.app.trace import setup_worker_optimizations
from celery.worker import state

import multiagents.worker_sdk.worker  # noqa: F401 - makes workers of Celery tasks that are steps
from multiagents import celery_signals as _celery_signals  # noqa: F401 - listens from now on
from multiagents.address import Kind
from multiagents.exceptions import ConfigurationError
from multiagents.names import HEADER
from multiagents.orchestrator import tasks as _orchestrator_tasks  # noqa: F401 - registers the orchestrator's task
from multiagents.orchestrator.api import Orchestrator
from multiagents.orchestrator.dispatch.kombu import is_accepted
from multiagents.orchestrator.engine import Engine
from multiagents.orchestrator.recovery import Upkeep
from multiagents.state_store.records import Node
from multiagents.worker_sdk import WorkerRuntime, install

if TYPE_CHECKING:
    from multiagents.event_bus import EventBus
    from multiagents.state_store import StateStore

__all__ = ["Orchestrator", "init_app"]

logger = logging.getLogger(__name__)

#: Of how many messages that it holds a worker announces the ids; that it holds more is announced, too.
MOST_HELD = 500


def init_app(app: Celery, settings: Any = None) -> Orchestrator:
    """Give a Celery app durable workflows; calling it again returns the same orchestrator.

    Args:
        app: the app; ``app.multiagents`` is the orchestrator from then on.
        settings: a mapping of settings that win over ``app.conf`` and the environment; or ``Settings``.

    Returns:
        the orchestrator: ``orchestrator.start(order, {...})``.

    Raises:
        ConfigurationError: when it is no Celery app.

    >>> from celery import Celery
    >>> app = Celery("shop", broker="redis://localhost:6379/0")
    >>> orchestrator = init_app(app)
    >>> init_app(app) is orchestrator is app.multiagents
    True
    """
    if not isinstance(app, Celery):
        raise ConfigurationError(f"init_app() was given {app!r:.80}; expected the Celery app: init_app(app)")
    known = getattr(app, "multiagents", None)
    return known if isinstance(known, Orchestrator) else Orchestrator(app, settings)


def _wire(orchestrator: Orchestrator) -> None:
    """What `Orchestrator` cannot do itself, because it does not know the workers' side."""
    app = orchestrator.app
    app.steps["worker"].add(UpkeepStep)
    app.steps["consumer"].add("multiagents.worker_sdk.consumer.celery:StepMessages")
    app.steps["consumer"].add("multiagents.worker_sdk.consumer.celery:StepsInHand")
    install(app, partial(_worker_runtime, orchestrator), lru_cache(partial(_patient_store, orchestrator)))


Orchestrator.created.append(_wire)


def _hide_secrets(reports: Any) -> None:
    """Have Celery mask our settings that hold passwords when it tells what is set: report, remote control, Flower."""
    # It goes by the settings' names, and has no other way to be told.
    names = "MULTIAGENTS_REDIS_URL|MULTIAGENTS_CLAIM_CHECK_STORE"
    reports.HIDDEN_SETTINGS = re.compile(f"{reports.HIDDEN_SETTINGS.pattern}|{names}", re.IGNORECASE)


_hide_secrets(celery_reports)


class UpkeepStep(bootsteps.StartStopStep):
    """Run the upkeep in every worker of an app that has an orchestrator."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_kwargs: Any) -> None:
        orchestrator: Orchestrator = worker.app.multiagents
        # A wrong setting ends the worker here, and says why: a signal's receivers would only log it.
        _ = orchestrator.settings, orchestrator.runtime.address, orchestrator.runtime.payload_policy
        _accept_json(worker)
        if worker.time_limit:
            worker.app.conf.task_time_limit = worker.time_limit  # of the command line: its children read it here
        from multiagents.worker_sdk.consumer.celery import held

        self._upkeep = Upkeep(
            lambda: _patient(orchestrator), lambda: _bus(orchestrator), worker.hostname, lambda: _about(worker), held
        )

    def start(self, _worker: Any) -> None:
        """Begin when the worker does."""
        self._upkeep.start()

    def stop(self, _worker: Any) -> None:
        """End with it."""
        self._upkeep.stop()

    def terminate(self, worker: Any) -> None:
        """End with it, also when it is shut down cold."""
        self.stop(worker)


def _accept_json(worker: Any) -> None:
    """Have this process take the engine's messages: a worker that does not throws them away, one by one."""
    conf = worker.app.conf
    if not is_accepted(conf.accept_content):
        logger.warning(
            'accept_content is %r and lacks "json", which the messages of steps are, whatever task_serializer says; '
            'this worker takes JSON, too. Add "json" to accept_content',
            conf.accept_content,
        )
        conf.accept_content = [*conf.accept_content, "json"]
        setup_worker_optimizations(worker.app, worker.hostname)  # which has taken down what is accepted


def _about(worker: Any) -> Node:
    """What a worker is, which queues it consumes now (``celery control`` may have added some), and what it holds."""
    app: Celery = worker.app
    consumer = getattr(getattr(worker, "consumer", None), "task_consumer", None)
    queues = app.amqp.queues.consume_from if consumer is None else [queue.name for queue in list(consumer.queues)]
    home = app.multiagents.settings.queue or app.conf.task_default_queue  # type: ignore[attr-defined]  # ours
    try:
        held = [request.id for request in list(state.reserved_requests) if HEADER in request.request_dict]
    except RuntimeError:  # its main loop has just taken one more
        held = []
        more = True
    else:
        more = len(held) > MOST_HELD
    names = worker.hostname, app.main or "", home
    return Node(*names, tuple(sorted(queues)), holds=tuple(held[:MOST_HELD]), holds_more=more)


def _patient_store(orchestrator: Orchestrator) -> StateStore:
    return orchestrator.store.for_sweep()


def _patient(orchestrator: Orchestrator) -> Engine:
    """An engine for the sweep: its store gives up at once, and tries again at the next tick."""
    return Engine(_patient_store(orchestrator), orchestrator.dispatcher, orchestrator.settings)


def _bus(orchestrator: Orchestrator) -> EventBus:
    address = orchestrator.runtime.address
    if address.kind is Kind.MEMORY:
        from multiagents.event_bus import InMemoryEventBus

        return InMemoryEventBus()
    from multiagents.event_bus import RedisEventBus

    return RedisEventBus(address, prefix=orchestrator.keys.prefix, partitions=orchestrator.keys.partitions)


def _worker_runtime(orchestrator: Orchestrator) -> WorkerRuntime:
    """What a process runs steps with."""
    engine = orchestrator.engine
    return WorkerRuntime(
        store=engine.store,
        new_store=orchestrator.runtime.new_store,
        settings=orchestrator.settings,
        settle=engine.settle,
        unclaimable=engine.unclaimable,
        came_late=engine.came_late,
        limited=not orchestrator.app.conf.task_always_eager,
        time_limit=orchestrator.app.conf.task_time_limit,
    )
