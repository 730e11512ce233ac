"""Run a random workflow, be the people that it asks, and hold what is seen of it against its model."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from multiagents import Orchestrator
from multiagents.events import CommandEvent, CompensationEvent, StatusEvent
from multiagents.exceptions import WorkflowError, WorkflowNotFoundError
from multiagents.names import Direction
from multiagents.orchestrator import Run, WorkflowState
from multiagents.state_store.records import Snapshot
from multiagents.workflow.decider import Fact, fold, settleable
from tests.models.random_workflows.case import Case
from tests.models.random_workflows.elements import (
    MAX_ATTEMPTS,
    MAX_UNDOS,
    Decision,
    Model,
    Pass,
    Scope,
    out_of_round,
    seen_as,
)
from tests.models.random_workflows.stage import Entry, Stage, hear_again, on_stage, said_of


def compare(orchestrator: Orchestrator, case: Case) -> None:
    """Run a case, and hold what is seen of it against the model."""
    with on_stage(case) as stage:
        definition = case.definition()
        run = orchestrator.start(definition, {})
        _come_to_its_end(orchestrator, run, stage)
        if not case.again:
            return
        keys = {entry.key for entry in stage.seen("do", "undo")}
        earlier = said_of(orchestrator, _family(orchestrator, run))
        if case.again == "deleted":
            run.delete(reason="its id is to be used again")
        stage.next_life(earlier)
        run = orchestrator.start(definition, {}, run.transaction_id, on_conflict="replace_ended")
        _come_to_its_end(orchestrator, run, stage)
        # Its steps have keys of their own (S32), and what the first run was told is still none of its own.
        assert keys.isdisjoint(entry.key for entry in stage.seen("do", "undo"))
        ended = orchestrator.store.load(run.transaction_id)
        for events in earlier.values():
            for event in events:
                orchestrator.engine.receive(event)
        assert orchestrator.store.load(run.transaction_id).state == ended.state


def _come_to_its_end(orchestrator: Orchestrator, run: Run, stage: Stage) -> None:
    be_the_people(orchestrator, run, stage)
    if stage.case.doubled:
        ended = orchestrator.store.load(run.transaction_id).state
        hear_again(orchestrator, run.transaction_id)
        assert orchestrator.store.load(run.transaction_id).state == ended
    _hold_against_model(orchestrator, run, stage)


# --- the people -----------------------------------------------------------------------------------------------------


def be_the_people(orchestrator: Orchestrator, run: Run, stage: Stage) -> None:
    """Give signals, resume what is held, and settle what waits for a person, until nobody is waited for."""
    for _ in range(200):
        if not any(
            _help(each, orchestrator.store.load(each.transaction_id), stage) for each in _family(orchestrator, run)
        ):
            assert run.status.is_end, f"it is {run.status}, and nothing is there to wait for"
            return
    raise AssertionError(f"it does not come to an end: it is {run.status}")


def _family(orchestrator: Orchestrator, run: Run) -> list[Run]:
    """A run and its children."""
    found = [run]
    for step in run.describe().steps.values():
        if step.child is not None:
            with suppress(WorkflowNotFoundError):
                found.append(orchestrator.get(step.child))
    return found


def _help(run: Run, snapshot: Snapshot, stage: Stage) -> bool:
    """Do one thing that a run waits for; whether there was one."""
    state, definition = snapshot.state, snapshot.definition
    left = [each for each in settleable(definition, state) if _answer(stage, *each)]
    waits = [step for step in snapshot.in_flight if definition.own(step).awaits_signal]
    if state.paused:
        run.resume(reason="the pause is over")
    elif left and (state.status.is_end or state.status == "paused"):
        _settle(run, stage, *left[0])
    elif waits and not state.status.is_end:
        _tell(run, definition.own(waits[0]).signal or waits[0], stage.asked[out_of_round(waits[0])])
    else:
        return False
    return True


def _tell(run: Run, signal: str, wait: Pass | Decision) -> None:
    if isinstance(wait, Decision):
        for unclear in (None, {}, {"approved": "yes"}, {"aproved": True}):
            try:
                run.signal(signal, unclear)
            except WorkflowError:
                continue
            raise AssertionError(f"{unclear} was taken for a decision")
    run.signal(signal, wait.data)


def _answer(stage: Stage, step: str, direction: Direction) -> str:
    """What the person says who is asked about a step; of the check of a loop, and of a no: go on."""
    written = stage.works.get(out_of_round(step))
    if written is None:
        held = stage.asked.get(out_of_round(step))
        return held.answer if isinstance(held, Scope) else "skip"
    return written.answer if direction is Direction.DO else written.undo_answer


def _settle(run: Run, stage: Stage, step: str, direction: Direction) -> None:
    verb, name = _answer(stage, step, direction), seen_as(run.transaction_id, step)
    asked = [entry.came_to for entry in stage.seen("asked") if (entry.step, entry.key) == (name, direction)]
    if verb in asked:
        # In a run that goes back nothing is tried again, and behind the pivot a cancel changes nothing.
        assert verb in ("retry", "cancel")
        verb = "skip"
    assert verb not in asked, f"{step} was skipped, and waits for a person again"
    stage.journal.append(Entry("asked", name, str(direction), verb))
    match verb:
        case "retry":
            stage.tried_again.add((str(direction), name))
            with suppress(WorkflowError):
                run.retry(step, reason="once more")
        case "skip":
            run.skip(step, "it does not matter")
        case "supply":
            run.supply(step, {}, reason="by phone")
        case _:
            run.cancel(reason="no more of it")


# --- the comparison -------------------------------------------------------------------------------------------------


def _hold_against_model(orchestrator: Orchestrator, run: Run, stage: Stage) -> None:
    model = Model(stage.case.tree)
    seen = run.describe()
    snapshot = orchestrator.store.load(run.transaction_id)

    _every_step_as_written(model, stage)
    turned = _turned_back(model, stage)
    effects = _effects(model, stage)
    undone = [entry.step for entry in stage.seen("undo") if entry.came_to == "result"]

    # What is undone: every effect that has a compensation, once, newest first, after everything else (S6, S9).
    by_person = {entry.step: entry.came_to for entry in stage.seen("asked") if entry.key == "undo"}
    given_up = {
        name
        for name, n in Counter(e.step for e in stage.seen("undo") if e.came_to == "failed").items()
        if n >= MAX_UNDOS
    }
    settled_by_hand = {name for name in given_up if by_person.get(name) != "retry"}
    due = {name for name in effects if model.written[name].undone and (turned or name in model.undone_inside)}
    assert Counter(undone) == Counter(due - settled_by_hand)
    assert given_up <= due
    in_order = [name for name in undone if name not in given_up]
    for number, name in enumerate(in_order):
        assert not model.before[name] & set(in_order[:number])
    _what_is_in_flight_settles_first(run, stage)
    # One key for a step and its undo, and no other step's (S25).
    keys = {(entry.step, entry.key) for entry in stage.seen("do", "undo")}
    assert len(keys) == len({key for _, key in keys}) == len({name for name, _ in keys})
    # How it ends (S18), and what is seen of it (S28).
    if not turned:
        assert seen.status == "completed"
        assert {entry.step for entry in stage.seen("do")} | model.undone_inside == set(model.before)
        assert set(map(out_of_round, snapshot.definition.steps)) == set(map(out_of_round, seen.steps))
        assert all(step.status in ("succeeded", "skipped") for step in seen.steps.values())
        assert {name for name, step in seen.steps.items() if step.status == "skipped"}.isdisjoint(effects)
        _what_was_told_is_in_the_context(seen, stage)
    elif any(not by_person.get(name) for name in given_up):
        assert seen.status == "compensation_failed"
    elif "skip" in by_person.values():
        assert seen.status == "compensated_partially"
    else:
        by_hand = {name for name, verb in by_person.items() if verb == "supply"}
        ends = {"compensated" if {*undone, *by_hand} - model.inside else "failed"} if "failure" in turned else set()
        if ends and model.units:
            ends.add("compensated")  # a child counts as undone as a unit, whatever there was to undo in it
        assert seen.status in ends | ({"cancelled"} if "cancel" in turned else set())
    by_hand = {name for name, verb in by_person.items() if verb == "supply"}
    expected = effects | dict.fromkeys({*undone, *by_hand}, "undone")
    known = {name: effect for name, effect in seen.effects.items() if name in model.written}
    assert known == {name: effect for name, effect in expected.items() if name not in model.inside}
    # What holds for every run (G1, G4).
    for each in _family(orchestrator, run):
        snapshot = orchestrator.store.load(each.transaction_id)
        assert snapshot.in_flight == {}
        assert snapshot.state.status.is_end
        assert fold(snapshot.definition, each.transaction_id, each.history()) == snapshot.state
        _nothing_is_sent_while_it_is_held(each)
    assert orchestrator.store.visibility.unattended() == []


def _what_was_told_is_in_the_context(seen: WorkflowState, stage: Stage) -> None:
    """Under the wait's name, where it takes no other's place; or merged, if that was asked for."""
    for name, step in seen.steps.items():
        wait = stage.asked.get(out_of_round(name))
        if not isinstance(wait, Pass | Decision) or step.status != "succeeded" or wait == Pass(wait.name):
            continue
        assert step.result == wait.data
        if wait.merge:
            assert wait.name not in seen.context
            assert seen.context[f"told.{wait.name}"] is True
        else:
            assert seen.context[wait.name] == wait.data


def _every_step_as_written(model: Model, stage: Stage) -> None:
    """Only steps of the model run, as often as was written, and after all that stands before them."""
    ended: set[str] = set()
    tried: Counter[str] = Counter()
    for entry in stage.journal:
        if entry.what == "do":
            assert entry.step in model.before
            assert model.before[entry.step] <= ended
            tried[entry.step] += 1
        if (entry.what == "do" and entry.came_to == "result") or (
            entry.what == "asked" and entry.key == "do" and entry.came_to in ("skip", "supply")
        ):
            ended.add(entry.step)
    again = {entry.step for entry in stage.seen("asked") if entry.key == "do" and entry.came_to == "retry"}
    turned = _turned_back(model, stage)
    for name, times in tried.items():
        allowed = min(model.written[name].failures + 1, MAX_ATTEMPTS) + (name in again)
        assert times == allowed or ((turned or name in model.undone_inside) and times < allowed)


def _turned_back(model: Model, stage: Stage) -> set[str]:
    """What may have turned the run back: a ``failure``, a ``cancel``, both, or nothing."""
    turned = {"failure"} if model.fails else set()
    if model.given_up:
        turned.add("cancel")
    past = gone = back = False
    running: set[str] = set()  # the steps during whose attempt somebody cancelled
    for entry in stage.journal:
        written = model.written.get(entry.step)
        of_pivot = written is not None and written.pivot
        if gone and entry.what == "do" and entry.step not in model.inside:
            # A child whose step was in flight may still begin, and is cancelled then.
            assert entry.step in running, "a step began after the cancel"
            running.discard(entry.step)
        if of_pivot and (entry.what, entry.came_to) in (("do", "result"), ("asked", "supply")):
            past, gone = True, False  # there is no way back, and there was none when somebody asked for it (S12)
        back |= entry.what == "undo" and entry.step not in model.undone_inside
        if entry.what == "cancel" and entry.came_to == "do" and not past:
            gone = True
            running.add(entry.step)
        if entry.what == "cancel" and entry.came_to == "undo" and entry.step in model.undone_inside and not back:
            # A child goes back, and its parent does not yet.
            turned.add("cancel")
            gone |= not model.fails
    return turned | ({"cancel"} if gone else set())


def _effects(model: Model, stage: Stage) -> dict[str, str]:
    """Step -> ``live`` or ``unknown``, of those that have an effect before anything is undone."""
    effects: dict[str, str] = {}
    for entry in stage.journal:
        if entry.what == "do" and entry.came_to != "failed":
            effects[entry.step] = {"result": "live", "unknown": "unknown"}[entry.came_to]
        if entry.what == "asked" and entry.key == "do" and entry.step in model.written:
            if entry.came_to == "supply":
                effects[entry.step] = "live"
            if entry.came_to == "skip":
                effects.pop(entry.step, None)
    return effects


def _what_is_in_flight_settles_first(run: Run, stage: Stage) -> None:
    """Before a run undoes anything, all that it does, and all that its children do, is over (S5, S7, S11)."""
    over: set[str] = set()
    for entry in stage.seen("do", "undo"):
        of = entry.key.rpartition("/")[0]
        if entry.what == "undo":
            over.add(of)
        else:
            assert over.isdisjoint({of, run.transaction_id}), "something was done after something was undone"


def _nothing_is_sent_while_it_is_held(run: Run) -> None:
    held = False
    for event in run.history():
        if isinstance(event, StatusEvent) and event.status in (
            Fact.PAUSE_REQUESTED,
            Fact.RESUME_REQUESTED,
            "cancel_requested",
        ):
            held = event.status == Fact.PAUSE_REQUESTED
        assert not (held and isinstance(event, CommandEvent | CompensationEvent)), "something was sent out meanwhile"
