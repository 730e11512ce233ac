"""What a step waits for, in words: `StepView.waiting_for`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from multiagents.clock import from_ms
from multiagents.orchestrator.dispatch import Dispatcher
from multiagents.orchestrator.engine import child_of, is_unannounced, named, others
from multiagents.state_store import StateStore
from multiagents.state_store.records import CallKind, Delivery, InFlight, Snapshot, awaited_call, awaited_canary
from multiagents.workflow.decider import settleable
from multiagents.workflow.definition import StepKind
from multiagents.workflow.state import ActivityStatus, RunStatus

__all__ = ["Waiting", "waiting_for", "with_arguments"]


@dataclass(frozen=True)
class Waiting:
    """One thing that a step waits for.

    Attributes:
        kind: ``worker`` (one that has what the step needs), ``queue`` (its turn in it, or somebody who consumes it),
            ``signal``, ``approval``, ``tool`` (a person who approves or rejects a call of it), ``limit``, ``lock``,
            ``child`` (a run), ``canary`` (runs that are to show whether what an agent has learned does as well),
            ``external`` (a result that somebody publishes) or ``operator`` (a person who says what
            is to become of it).
        id: of the attempt that waits, of the child, or of the call; None where nothing has been sent.
        name: of the worker, the queue, the signal, ...
        since: since when, if that is known.
        text: all of it, for people.
        arguments: what is to be decided upon, where there is something.
    """

    kind: str
    id: str | None
    name: str
    since: datetime | None
    text: str
    arguments: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return self.text


def waiting_for(snapshot: Snapshot, dispatcher: Dispatcher) -> dict[str, tuple[Waiting, ...]]:
    """What each step waits for; steps that wait for nothing are left out.

    Args:
        snapshot: the run.
        dispatcher: knows what worker processes have announced.
    """
    state, found = snapshot.state, {}
    if state.status.is_end and state.status is not RunStatus.COMPENSATION_FAILED:
        return {}
    for name in snapshot.definition.steps:
        in_flight = snapshot.in_flight.get(name)
        waits = tuple(
            _unsent(snapshot, dispatcher, name) if in_flight is None else _sent(snapshot, dispatcher, in_flight)
        )
        if waits:
            found[name] = waits
    return found


def with_arguments(
    store: StateStore, transaction_id: str, waits: Mapping[str, tuple[Waiting, ...]]
) -> dict[str, tuple[Waiting, ...]]:
    """The same, with what each call that waits for approval is to be called with, as it may be shown."""
    return {
        step: tuple(_with_arguments(store, transaction_id, step, each) for each in found)
        for step, found in waits.items()
    }


def _with_arguments(store: StateStore, transaction_id: str, step: str, waiting: Waiting) -> Waiting:
    if waiting.kind != "tool" or waiting.id is None:
        return waiting
    slot = waiting.id.rpartition("/")[2]
    for call in store.journal.calls(transaction_id, step):
        if call.slot == slot and call.kind == CallKind.APPROVAL:
            return replace(waiting, arguments=call.request, since=call.started)
    return waiting


def _sent(snapshot: Snapshot, dispatcher: Dispatcher, found: InFlight) -> Iterator[Waiting]:
    step = snapshot.definition.steps[found.step]
    attempt = snapshot.state.correlation(found.step, found.direction, found.attempt)
    since = from_ms(found.first_ms or found.since_ms)
    about: dict[str, Any] = {"id": str(attempt), "since": since}
    match found.delivery:
        case Delivery.EXTERNAL if step.awaits_signal:
            kind = "approval" if step.kind is StepKind.APPROVAL else "signal"
            yield Waiting(kind, name=step.signal or "", text=f'{kind} "{step.signal}"', **about)
        case Delivery.EXTERNAL:
            yield Waiting("external", name=found.step, text="a result that somebody else publishes", **about)
        case Delivery.LOCK:
            key = f'the lock on "{found.target}"' if found.target else "its lock"
            yield Waiting("lock", name=found.target or found.step, text=key, **about)
        case Delivery.CHILD:
            child = child_of(snapshot, found.step)
            yield Waiting("child", child, found.step, since, f"the end of run {child}")
        case Delivery.TIMER if (call := awaited_call(found.target)) is not None:
            about["id"] = f"{found.step}/{call.slot}"
            text = f'a person, who approves or rejects a call of tool "{call.tool}"'
            yield Waiting("tool", name=call.tool, text=text, **about)
        case Delivery.TIMER if (canary := awaited_canary(found.target)) is not None:
            yield Waiting("canary", name=found.step, text=canary, **about)
        case Delivery.TIMER if found.target:
            yield Waiting("limit", name=found.target, text=f'its turn under the limit "{found.target}"', **about)
        case Delivery.PUSH | Delivery.OUTBOX | Delivery.UNREGISTERED | Delivery.LINK:
            worker = step.worker_of(found.direction, probe=snapshot.state.is_probe(attempt))
            yield from _message(dispatcher, found, worker, about)


def _message(dispatcher: Dispatcher, found: InFlight, worker: str, about: dict[str, Any]) -> Iterator[Waiting]:
    announced, queue = dispatcher.announced(fresh=True), dispatcher.queue_of(found.target)
    here = dispatcher.workers_here()
    where = f' of queue "{queue}"' if queue else ""
    if found.delivery is Delivery.UNREGISTERED:
        near = announced.near_worker(worker, here)
        text = f'a worker process{where} that has worker "{worker}"; one took the step and does not{near}'
        yield Waiting("worker", name=worker, text=text, **about)
    elif announced.nodes and is_unannounced(worker, announced, dispatcher):
        near = announced.near_worker(worker, here)
        text = f'worker "{worker}", which no worker process of this store has announced{near}'
        yield Waiting("worker", name=worker, text=text, **about)
    if not queue:
        return
    if not announced.nodes:
        text = f'queue "{queue}": no worker of this store is running'
    elif announced.is_consumed(queue):
        text = f'its turn in queue "{queue}"'
    elif announced.knows(queue):
        text = f'queue "{queue}": no worker of this store consumes it now'
    else:
        text = f'no worker of this store consumes queue "{queue}"{announced.near_queue(queue)}'
    yield Waiting("queue", name=queue, text=text, **about)


def _unsent(snapshot: Snapshot, dispatcher: Dispatcher, name: str) -> Iterator[Waiting]:
    """Of a step that nothing was sent of: its code is elsewhere, or a person has to say what becomes of it."""
    definition, state = snapshot.definition, snapshot.state
    if any(name == waiting for waiting, _ in settleable(definition, state)):
        yield Waiting("operator", None, name, None, "a person, who retries, skips or supplies it")
    step, own = state.step(name), definition.steps[name]
    is_next = step.do.status is ActivityStatus.IDLE and all(state.step(before).is_done for before in own.after)
    if not (is_next and own.has_code and state.status is RunStatus.RUNNING):
        return
    announced = dispatcher.announced(fresh=True)
    found = announced.lacking(definition.content_hash)
    if found is None and announced.nodes:
        return
    have = f": {found}" if found else others(definition, announced) if announced.nodes else "; no worker is running"
    text = f"a worker that has this content of {named(definition)}{have}"
    yield Waiting("worker", None, definition.name, None, text)
