"""What Celery's signals mean for an app that has an orchestrator; all of it happens in worker processes.

Half of them are about the process. The others tell of an attempt that ends, or does not begin, without a word of its
worker: what the sweep would find out later by itself, so that a failure here is logged and left to it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from celery import signals

from multiagents.exceptions import DecodeError, MultiAgentsError, WorkflowNotFoundError
from multiagents.names import HEADER, Correlation
from multiagents.orchestrator.api import Orchestrator
from multiagents.state_store import StateStore
from multiagents.worker_sdk.attempt import broken_off, in_hand
from multiagents.worker_sdk.execution import event_loop

logger = logging.getLogger(__name__)


def _orchestrator_of(worker: Any) -> Orchestrator | None:
    """That of whoever has an app."""
    found = getattr(getattr(worker, "app", None), "multiagents", None)
    return found if isinstance(found, Orchestrator) else None


# --- the process -----------------------------------------------------------------------------------------------------


@signals.celeryd_init.connect(weak=False)
def _choose_connection(instance: Any = None, **_kwargs: Any) -> None:
    """Lean QoS, in worker processes only: set for the whole app it would reach Flower."""
    orchestrator = _orchestrator_of(instance)
    if orchestrator is None:
        return
    from multiagents.worker_sdk.consumer.kombu import connection_of

    chosen, dispatcher = instance.app.conf.broker_transport, orchestrator.dispatcher
    connection = connection_of(chosen, lean=orchestrator.settings.lean_qos and dispatcher.atomic)
    if connection is not None:
        instance.app.amqp.Connection = connection
    elif instance.app.connection_for_read().transport.driver_type == "redis":
        logger.warning(
            "broker_transport is set (%s), so this worker talks to its Redis broker as that does, and not by what "
            "multiagents has in its place: a restart of the broker while a step runs may end this worker, and so does "
            "a server that is full; run it under a supervisor that starts it again, or leave broker_transport out",
            chosen,
        )


@signals.worker_init.connect(weak=False)
def _load_before_fork(sender: Any = None, **_kwargs: Any) -> None:
    """What every pool child needs is loaded once, by their parent; nothing is connected."""
    orchestrator = _orchestrator_of(sender)
    if orchestrator is not None:
        orchestrator.engine.dispatcher.node = sender.hostname or ""


@signals.worker_process_shutdown.connect(weak=False)
def _close_loop(**_kwargs: Any) -> None:
    event_loop.close()


# --- attempts --------------------------------------------------------------------------------------------------------


def _tell(sender: Any, task_id: Any, kwargs: Any, tell: Callable[[Orchestrator, Correlation], object]) -> None:
    """Tell the sender's orchestrator of an attempt, if the task is one.

    Args:
        sender: has the app.
        task_id: the attempt's correlation id.
        kwargs: of the message: they say of which run the attempt is.
        tell: tells it.
    """
    orchestrator = _orchestrator_of(sender)
    if orchestrator is None:
        return
    try:
        attempt = Correlation.parse(str(task_id))._replace(nonce=kwargs["nonce"])
    except (DecodeError, KeyError, TypeError):
        return
    try:
        tell(orchestrator, attempt)
    except MultiAgentsError as error:
        logger.warning("%s is left to the sweep: %s", task_id, error)


@signals.task_unknown.connect(weak=False)
def _not_registered(sender: Any = None, message: Any = None, **kwargs: Any) -> None:
    """A worker took a step that it does not know: another may, or this one after its deploy."""
    if HEADER in (getattr(message, "headers", None) or {}):
        try:
            _, arguments, _ = message.payload
        except Exception:  # noqa: BLE001 - whatever a message that cannot be read raises
            return
        _tell(
            sender,
            kwargs.get("id"),
            arguments,
            lambda orchestrator, attempt: orchestrator.engine.not_registered(attempt),
        )


@signals.task_revoked.connect(weak=False)
def _revoked(sender: Any = None, request: Any = None, terminated: Any = None, **_kwargs: Any) -> None:
    """``celery control revoke`` of a step: a failed attempt, which otherwise would be sent again as if it were lost."""
    _tell(
        sender,
        getattr(request, "id", None),
        getattr(request, "kwargs", None),
        lambda orchestrator, attempt: orchestrator.engine.revoked(attempt, terminated=bool(terminated)),
    )


def _broken_off(task: Any, task_id: str, kwargs: Any, node: str, pid: int, why: str) -> None:
    """The parent of a pool child that has ended knows at once what its lease would tell only later."""
    _tell(task, task_id, kwargs, lambda orchestrator, attempt: _expire(orchestrator.store, attempt, node, pid, why))


broken_off.append(_broken_off)


def _expire(store: StateStore, attempt: Correlation, node: str, pid: int, why: str) -> None:
    if store.expire(attempt, why):
        return
    # That one is over: a local step that follows may have been in hand.
    with contextlib.suppress(WorkflowNotFoundError):
        for held, _ in in_hand(store, attempt, node, pid):
            store.expire(held, why)
