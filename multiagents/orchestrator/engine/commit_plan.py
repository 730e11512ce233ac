"""From a decision to the one commit that makes it true."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from multiagents.events import CommandEvent, Event, ResultEvent, StatusEvent
from multiagents.exceptions import DecodeError
from multiagents.failpoints import WriteSite
from multiagents.names import Direction, idempotency_key
from multiagents.orchestrator.engine.child_ids import child_of
from multiagents.orchestrator.engine.view import RunView
from multiagents.plain_json import digest
from multiagents.state_store.payloads import Payloads
from multiagents.state_store.records import REVIVED, Commit, Dispatch, Lesson, encode_attributes
from multiagents.workflow.decider import (
    FACTS,
    NOT_YET,
    Fact,
    changed_steps,
    fan_in,
    has_result,
    meets,
    result_of,
    signal_id,
    stops_others,
)
from multiagents.workflow.definition import Definition, item_name
from multiagents.workflow.state import RunState, RunStatus, StepState

__all__ = ["changed_header", "commit_of"]


def commit_of(
    view: RunView,
    definition: Definition,
    after: RunState,
    events: Sequence[Event],
    dispatches: Sequence[Dispatch],
    *,
    site: WriteSite,
    retention: float,
    attributes: Mapping[str, str] | None = None,
    keeps_results: bool = True,
    **fences: Any,
) -> Commit:
    """Put a decision into the form that the store applies whole or not at all.

    Args:
        view: the run that was decided upon.
        definition: what it follows, expanded as it is after the decision.
        after: the run, or the projection, after the decision.
        events: the event that came and those that follow from it, in order; results still carry their payloads.
        dispatches: how the commands go out.
        site: where it is made.
        retention: seconds to keep the run once it is over.
        attributes: what the run is found by, as it is stored; what an answered attempt has set is added.
        keeps_results: what the events return are results of the run; else it is on record, and no more.
        fences: ``answers``, ``epoch``, ``version``, ``pending``, ... of the `Commit`.
    """
    before = view.state
    changed = changed_steps(before, after)
    data = _data_of(definition, before, events)
    if not keeps_results:
        data.results.clear()
    back = after.rollbacks is not before.rollbacks
    joined = fan_in(
        definition,
        before,
        after,
        changed,
        data.results,
        results=view.results() if not view.whole or meets(definition, before, after, changed) else {},
        context=view.payloads().context if back else None,
        now=events[-1].at if events else NOT_YET,
    )
    undone = {name: step for name, step in changed.items() if step.undo.attempt}
    header = changed_header(before, after)
    moved = None
    retention_ms: int | None = None
    if before.status is not after.status:
        moved = (definition.name, before.status.value, after.status.value)
        if after.status.is_end:
            kept = definition.retention if definition.retention is not None else retention
            retention_ms = max(1, round(kept * 1000))
        elif before.status.is_end:
            retention_ms = REVIVED
        if before.status is RunStatus.COMPENSATING and after.status is RunStatus.RUNNING:
            header["stop"] = ""
    if stops_others(definition, before, after):
        header["stop"] = "1"
    if events and _is_by_hand(events[0]):
        header["edited"] = "1"
    return Commit(
        transaction_id=after.transaction_id,
        events=[*data.events, *joined.notes],
        header=header,
        steps=changed,
        results=data.results,
        inputs=data.inputs,
        signals=data.signals,
        context=joined.context,
        forgotten=joined.forgotten,
        dead_letters=_dead_letters(view, definition, after, undone) if undone else {},
        answered=_settled_by_hand(before, undone) if undone else (),
        dispatches=dispatches,
        arrivals=joined.arrivals,
        moved=moved,
        retention_ms=retention_ms,
        attributes=attributes or _attributes_set(events, fences.get("answers")),
        lesson=_lesson_of(events, fences.get("answers")),
        site=site,
        nonce=after.nonce,
        **fences,
    )


class _Data(NamedTuple):
    """What events bring, each thing where it is kept: a payload lives once, and the history has its digest."""

    events: list[Event]
    results: dict[str, Any]
    #: what ``inputs`` have answered; of a map, what its items share, and each item
    inputs: dict[str, Any]
    #: `signal_id` -> the data of a signal
    signals: dict[str, Any]


def _data_of(definition: Definition, before: RunState, events: Sequence[Event]) -> _Data:
    data = _Data([], {}, {}, {})
    for event in events:
        step = event.step
        if isinstance(event, CommandEvent):
            if step and event.payload is not None:
                data.inputs[step] = event.payload
            data.events.append(without_payload(event, silent=True))
            continue
        result = result_of(event) if step else None
        silent = (result is None or result == {}) and _is_silent(definition, before, event, result)
        if step and not silent:
            data.results[step] = result
        data.events.append(without_payload(event, silent=silent))
        if isinstance(event, StatusEvent):
            _take_data(data, event, step)
    return data


def _is_silent(definition: Definition, before: RunState, event: Event, result: Any) -> bool:
    """Whether an event has no result, or one that is read back without being stored (`StepDefinition.silence`)."""
    step = event.step
    if step is None or not has_result(event):
        return True
    # A late success has stored another one.
    return bool(result == definition.steps[step].silence) and not before.step(step).late


def _take_data(data: _Data, event: StatusEvent, step: str | None) -> None:
    if event.status == Fact.SIGNALLED:
        data.signals[signal_id(event.payload["signal"], event.payload["key"])] = event.payload["data"]
    elif step and event.status == Fact.TAKEN_OVER and "input" in event.payload:
        data.inputs[step] = event.payload["input"]
    elif step and event.status == Fact.EXPANDED:
        data.inputs[step] = event.payload["shared"]
        given = event.payload.get("given") or repeat({})
        for index, (item, own) in enumerate(zip(event.payload["items"], given, strict=False)):
            data.inputs[item_name(step, index)] = {"item": item, "index": index, **own}


def _attributes_set(events: Sequence[Event], answered: tuple[str, str] | None) -> Mapping[str, str]:
    """What the answered attempt has set; what comes late or twice sets nothing."""
    given = getattr(events[0], "attributes", None) if answered is not None and events else None
    return encode_attributes(given) if given else {}


def _lesson_of(events: Sequence[Event], answered: tuple[str, str] | None) -> Lesson | None:
    """What the answered attempt, or who answers in its place, leaves to learn from; what comes late leaves nothing."""
    counts = events and (answered is not None or _is_by_hand(events[0]))
    lesson = events[0].lesson if counts else None
    return lesson if isinstance(lesson, Lesson) else None  # else somebody has sent something under that name


def _is_by_hand(event: Event) -> bool:
    """Whether a person says what a step has come to: whoever learns from the run is to know."""
    if not isinstance(event, StatusEvent) or event.status != Fact.RESULT_SUPPLIED:
        return False
    return bool(event.payload["direction"] == Direction.DO)


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


def _settled_by_hand(before: RunState, undone: Mapping[str, StepState]) -> list[str]:
    """The dead letters of undos that a person has settled; an earlier release has written them without the nonce."""
    settled: list[str] = []
    for name, step in undone.items():
        old = before.step(name)
        if old.undo.is_over and not old.abandoned and (step.abandoned or not step.undo.is_over):
            attempt = before.correlation(name, Direction.UNDO, old.undo.attempt)
            settled += (attempt.of_its_run, str(attempt))
    return settled


def _dead_letters(
    view: RunView, definition: Definition, after: RunState, undone: Mapping[str, StepState]
) -> dict[str, Any]:
    """Rule S17: an undo that is over without success goes to the dead letters, with what it takes to act on it."""
    letters: dict[str, Any] = {}
    for name, step in undone.items():
        if not step.undo.is_over or view.state.step(name).undo.is_over:
            continue
        data, unread = _readable(view.payloads)
        letters[after.correlation(name, Direction.UNDO, step.undo.attempt).of_its_run] = {
            "why": "the undo is over without success" + unread,
            "nonce": after.nonce,
            "workflow": definition.name,
            "step": name,
            "compensation": definition.own(name).compensation,
            "input": data.input_of(definition, name),
            "result": data.results.get(name, definition.own(name).silence if step.outcome == "succeeded" else None),
            "idempotency_key": idempotency_key(after.transaction_id, name, view.generation, step.origin),
            "child": child_of(view, name) if definition.own(name).is_undone_as_child else None,
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


def without_payload(event: Event, *, silent: bool) -> Event:
    """The fact as the history keeps it: a payload lives once, in the run's data; the event has its digest.

    What came late has its payload in the history: it is what a person needs to see, and nobody else reads it.

    Args:
        event: the fact.
        silent: it brings no result, or one that is not stored; so None is told from ``{}`` by having a digest.
    """
    if event.late is not None:
        return event
    if isinstance(event, StatusEvent):
        kind = FACTS.get(event.status)
        if event.payload is None or kind is None or not kind.carries:
            return event
        kept = {name: value for name, value in event.payload.items() if name not in kind.carries}
        data = event.payload[kind.carries[0]]
        return event.model_copy(update={"payload": kept, "digest": None if data is None else digest(data)})
    if isinstance(event, ResultEvent):
        if silent and event.payload is None:
            return event
        if silent and event.payload == {}:
            return event.model_copy(update={"payload": None})  # the result that most steps have goes without saying
    elif not isinstance(event, CommandEvent) or event.payload is None:
        return event
    return event.model_copy(update={"payload": None, "digest": event.digest or digest(event.payload)})
