"""From a decision to the one commit that makes it true."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from multiagents.events import CommandEvent, Event, ResultEvent, StatusEvent
from multiagents.exceptions import DecodeError
from multiagents.failpoints import WriteSite
from multiagents.names import Correlation, Direction, idempotency_key
from multiagents.state_store.payloads import Payloads, as_mapping, dumps, merge
from multiagents.state_store.records import REVIVED, Commit, Dispatch, encode_attributes
from multiagents.workflow.decider.decider import (
    CHOSEN,
    GATHERED,
    LAID_OUT,
    REACHED,
    RECEIVED,
    ROLLED_BACK,
    SIGNALLED,
    TAKEN_OVER,
)
from multiagents.workflow.decider.interventions import SUPPLY
from multiagents.workflow.decider.joins import merge_note
from multiagents.workflow.definition import Definition, item_name
from multiagents.workflow.state.run_state import RunState, RunStatus, StepState


def changed_steps(before: RunState, after: RunState) -> dict[str, StepState]:
    """The steps that differ."""
    return {name: step for name, step in after.steps.items() if before.steps.get(name) is not step}


def newly_done(before: RunState, changed: Mapping[str, StepState]) -> list[str]:
    """Those of the changed steps after which others may start, and might not before."""
    return [name for name, step in changed.items() if step.is_done and not before.step(name).is_done]


def joins(definition: Definition, done: Sequence[str]) -> dict[str, tuple[int, int]]:
    """The joins that these steps land on: step -> how many of them land, and how many steps it waits for in all.

    The end of the run is one, too. One commit may bring several: a decision may skip two branches at once.
    """
    landings: dict[str, tuple[int, int]] = {}
    for name in done:
        for after in definition.successors[name]:
            if after not in definition.superseded and (members := len(definition.steps[after].after)) > 1:
                landings[after] = (landings.get(after, (0, 0))[0] + 1, members)
        if not definition.successors[name] and len(definition.exits) > 1:
            landings[""] = (landings.get("", (0, 0))[0] + 1, len(definition.exits))
    return landings


def folded(
    definition: Definition, done: Sequence[str], results: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    """What the stored context gains: a finished trunk step takes in all that ran beside the way to it.

    Args:
        definition: what the run follows.
        done: the steps that this commit finishes.
        results: step -> result, of steps that finished before.
        own: step -> result, of the steps that this commit finishes.
    """
    gained: dict[str, Any] = {}
    for name in done:
        if definition.is_trunk(name):
            merge(gained, results, definition.parts(name))
            if name in own:
                gained.update(as_mapping(name, own[name]))
    return gained


def _context_kept(definition: Definition, after: RunState, results: Mapping[str, Any]) -> dict[str, Any]:
    """The stored context of a run that has gone back: what trunk steps have returned that were not undone."""
    done = [name for name in definition.graph.trunks if after.step(name).is_done]
    return merge({}, results, (*definition.ancestors(done[-1]), done[-1])) if done else {}


def _landed_before(definition: Definition, after: RunState, known: int) -> dict[str, tuple[int, int]]:
    """How many of those that the joins of a new pass wait for are done already, beside what was undone."""
    passed = {f"#{number + 2}" for number in range(known, len(after.rollbacks))}
    landings = {}
    for name, origin in definition.origins.items():
        step = definition.steps[name]
        if len(step.after) > 1 and name.removeprefix(origin) in passed:
            landed = sum(after.step(before).is_done for before in step.after)
            landings[name] = (landed, len(step.after))
    return landings


def merge_notes(
    definition: Definition,
    done: Sequence[str],
    results: Mapping[str, Any],
    after: RunState,
    *,
    ended: bool,
    now: datetime,
) -> list[Event]:
    """What the history has to say of results with the same key, where branches meet in this commit.

    Args:
        definition: what the run follows.
        done: the steps that this commit finishes.
        results: step -> result, of all steps whose results meet here.
        after: the run after the commit.
        ended: the run completes in this commit.
        now: the time of the fact.
    """
    met: list[tuple[str | None, Sequence[str]]] = [
        (name, definition.parts(name)) for name in done if definition.is_trunk(name)
    ]
    if ended and len(definition.exits) > 1:
        met.append((None, definition.tail_parts()))
    notes = [
        merge_note(definition, steps, results, transaction_id=after.transaction_id, step=step, now=now)
        for step, steps in met
        if len(steps) > 1
    ]
    return [note for note in notes if note is not None]


def build_commit(
    definition: Definition,
    before: RunState,
    after: RunState,
    facts: Sequence[Event],
    dispatches: Sequence[Dispatch],
    *,
    site: WriteSite,
    retention: float,
    stored_results: Mapping[str, Any] | None = None,
    stored_context: Mapping[str, Any] | None = None,
    stop: bool = False,
    attributes: Mapping[str, str] | None = None,
    **fences: Any,
) -> Commit:
    """Put a decision into the form that the store applies whole or not at all.

    Args:
        definition: what the run follows.
        before: the run, or the projection, that was decided upon.
        after: the same after the facts.
        facts: the event that came and the commands that follow from it, in order; results still carry their payloads.
        dispatches: how the commands go out.
        site: where it is made.
        retention: seconds to keep the run once it is over.
        stored_results: results of earlier steps, where a finished trunk step has to fold some in.
        stored_context: the context as it is stored, where the run goes back to a save-point.
        stop: tell steps in flight that the run is to stop.
        attributes: what the run is found by, as it is stored; what an answered attempt has set is added.
        fences: ``answers``, ``epoch``, ``version``, ... of the `Commit`.
    """
    definition = definition.expanded(after.sizes, after.rollbacks)
    changed = changed_steps(before, after)
    done = newly_done(before, changed)
    own = {event.step: result for event in facts if event.step and not says_nothing(result := _result_of(event))}
    inputs = _inputs_in(facts)
    header = changed_header(before, after)
    if stop:
        header["stop"] = "1"
    if before.status is RunStatus.COMPENSATING and after.status is RunStatus.RUNNING:
        header["stop"] = ""
    context = folded(definition, done, stored_results or {}, own) if done else {}
    landings = joins(definition, done) if done else {}
    forgotten: tuple[str, ...] = ()
    if stored_context is not None:
        context |= _context_kept(definition, after, {**(stored_results or {}), **own})
        forgotten = tuple(key for key in stored_context if key not in context)
        landings |= _landed_before(definition, after, len(before.rollbacks))
    moved = None
    retention_ms: int | None = None
    if before.status is not after.status:
        moved = (definition.name, before.status.value, after.status.value)
        if after.status.is_end:
            retention_ms = max(
                1, round((definition.retention if definition.retention is not None else retention) * 1000)
            )
        elif before.status.is_end:
            retention_ms = REVIVED
    notes: list[Event] = []
    if stored_results:
        results = {**stored_results, **own}
        ended = before.status is not after.status is RunStatus.COMPLETED
        notes = merge_notes(definition, done, results, after, ended=ended, now=facts[-1].at)
    return Commit(
        transaction_id=after.transaction_id,
        events=[*(without_payload(event) for event in facts), *notes],
        header=header,
        steps=changed,
        results=own,
        inputs=inputs,
        signals=_signals_in(facts),
        context=context,
        forgotten=forgotten,
        dispatches=dispatches,
        joins=landings,
        moved=moved,
        retention_ms=retention_ms,
        outlives=after.parent is not None,
        attributes=attributes or _attributes_set(facts, fences.get("answers")),
        site=site,
        **fences,
    )


def _result_of(event: Event) -> Any:
    """What a fact adds to the results: of a step that was done, of a choice its label, of a wait its signal's data."""
    if isinstance(event, ResultEvent):
        return event.payload if event.direction is Direction.DO else None
    if isinstance(event, StatusEvent) and event.error is None:
        if event.status == CHOSEN:
            return event.payload["label"]
        if event.status == RECEIVED:
            return event.payload["data"]
        if event.status in (REACHED, ROLLED_BACK):
            return event.payload["result"]
        if event.status == GATHERED:
            return event.payload["results"]
        if event.status == TAKEN_OVER:
            return event.payload["result"]
        if event.status == SUPPLY and event.payload["direction"] == Direction.DO:
            return event.payload["result"]
    return None


def _inputs_in(facts: Sequence[Event]) -> dict[str, Any]:
    """What ``inputs`` have answered; of a map, what its items share, and each item."""
    found: dict[str, Any] = {}
    for event in facts:
        if isinstance(event, CommandEvent) and event.step and event.payload is not None:
            found[event.step] = event.payload
        elif isinstance(event, StatusEvent) and event.status == TAKEN_OVER and event.step:
            if "input" in event.payload:
                found[event.step] = event.payload["input"]
        elif isinstance(event, StatusEvent) and event.status == LAID_OUT and event.step:
            found[event.step] = event.payload["shared"]
            for index, item in enumerate(event.payload["items"]):
                found[item_name(event.step, index)] = {"item": item, "index": index}
    return found


def _signals_in(facts: Sequence[Event]) -> dict[str, Any]:
    found = [event.payload for event in facts if isinstance(event, StatusEvent) and event.status == SIGNALLED]
    return {payload["key"]: payload["data"] for payload in found}


def _attributes_set(facts: Sequence[Event], answered: tuple[str, str] | None) -> Mapping[str, str]:
    """What the answered attempt has set; what comes late or twice sets nothing."""
    given = getattr(facts[0], "attributes", None) if answered is not None and facts else None
    return encode_attributes(given) if given else {}


def changed_header(before: RunState, after: RunState) -> dict[str, str]:
    """The header fields that differ; an empty value removes one."""
    if (
        before.status is after.status
        and before.error is after.error
        and before.cause is after.cause
        and before.cancel_requested is after.cancel_requested
        and before.paused is after.paused
        and before.stopped_at == after.stopped_at
        and before.deadline_at == after.deadline_at
        and before.signals is after.signals
        and before.sizes is after.sizes
        and before.rollbacks is after.rollbacks
        and before.back_to is after.back_to
        and before.parent is after.parent
        and before.finished_at == after.finished_at
    ):
        return {}
    old, new = before.encode_header(), after.encode_header()
    changed = {name: value for name, value in new.items() if old.get(name) != value}
    return changed | {name: "" for name in old if name not in new}


def dead_letters_settled(before: RunState, after: RunState) -> list[str]:
    """The dead letters of undos that a person has settled."""
    return [
        str(Correlation(after.transaction_id, name, Direction.UNDO, step.undo.attempt))
        for name, step in before.steps.items()
        if step.undo.is_over and not step.abandoned and _is_settled(after.step(name))
    ]


def _is_settled(step: StepState) -> bool:
    return step.abandoned or not step.undo.is_over


def dead_letters_of(
    definition: Definition, before: RunState, after: RunState, payloads: Callable[[], Payloads], generation: int
) -> dict[str, Any]:
    """Rule S17: an undo that is over without success goes to the dead letters, with what it takes to act on it.

    Args:
        definition: what the run follows.
        before: the run, or the projection, that was decided upon.
        after: the same after the facts.
        payloads: loads the run's data; called only if there is a letter to write.
        generation: of the run, for the key that its steps have.
    """
    letters: dict[str, Any] = {}
    for name, step in after.steps.items():
        if not step.undo.is_over or before.step(name).undo.is_over:
            continue
        data, unread = _readable(payloads)
        letters[str(Correlation(after.transaction_id, name, Direction.UNDO, step.undo.attempt))] = {
            "why": "the undo is over without success" + unread,
            "workflow": definition.name,
            "step": name,
            "compensation": definition.own(name).compensation,
            "input": data.input_of(definition, name),
            "result": data.results.get(name),
            "idempotency_key": idempotency_key(after.transaction_id, name, generation, step.origin),
            "error": step.undo.error.model_dump(mode="json") if step.undo.error else None,
            "original_error": after.error.model_dump(mode="json") if after.error else None,
        }
    return letters


def _readable(payloads: Callable[[], Payloads]) -> tuple[Payloads, str]:
    """The run's data, or none of it and why: what cannot be read must not keep the undo from being parked (S27)."""
    try:
        return payloads(), ""
    except DecodeError as error:
        return Payloads({}, {}, {}, {}), f"; its data is left out: {error}"


#: What status events carry that is kept with the run's data: status -> the names of it in their payload.
_CARRIED = {
    SIGNALLED: ("data",),
    RECEIVED: ("data",),
    SUPPLY: ("result",),
    LAID_OUT: ("items", "shared"),
    GATHERED: ("results",),
    TAKEN_OVER: ("result", "input"),
}


def without_payload(event: Event) -> Event:
    """The fact as the history keeps it: a payload lives once, in the run's data; the event has its digest."""
    if event.payload is None:
        return event
    if isinstance(event, StatusEvent) and event.status in _CARRIED:
        carried = _CARRIED[event.status]
        facts = {name: value for name, value in event.payload.items() if name not in carried}
        data = event.payload[carried[0]]
        return event.model_copy(update={"payload": facts, "digest": None if data is None else digest(data)})
    if not isinstance(event, ResultEvent | CommandEvent):
        return event
    if isinstance(event, ResultEvent) and says_nothing(event.payload):
        return event.model_copy(update={"payload": None})
    return event.model_copy(update={"payload": None, "digest": event.digest or digest(event.payload)})


def says_nothing(payload: Any) -> bool:
    """Whether a result is that of a worker that has nothing to tell; such a one is not stored, and read back as {}."""
    return payload is None or payload == {}


def digest(payload: Any) -> str:
    """A short hash of a payload, to compare it without keeping it twice."""
    return sha256(dumps(payload).encode()).hexdigest()[:16]
