"""Rule S22: a fork takes over what another run has done, and says which effects it takes as live; in one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from multiagents import (
    Orchestrator,
    RetryPolicy,
    RunStatus,
    Sleep,
    StatusEvent,
    Step,
    TerminalError,
    Wait,
    WorkflowAlreadyExistsError,
    WorkflowBuilder,
    WorkflowNotEndedError,
    current_step,
    init_app,
    worker,
)
from multiagents.exceptions import UnknownStepError, WorkflowError
from multiagents.state_store.memory import InMemoryStateStore
from multiagents.workflow.decider import fold

ONCE = RetryPolicy(max_attempts=1)
#: what the workers did: (direction, step, idempotency key)
called: list[tuple[str, str, str]] = []
#: steps, or ``undo <step>``, that fail for good
broken: set[str] = set()


def did() -> list[str]:
    return [step if direction == "do" else f"undo {step}" for direction, step, _ in called]


def _note() -> Any:
    step = current_step()
    called.append((step.direction, step.step, step.idempotency_key))
    if (step.step if step.direction == "do" else f"undo {step.step}") in broken:
        raise TerminalError(f"{step.step} is broken")
    return step


@worker("forking.do", retry=ONCE)
def do(context: dict[str, Any]) -> dict[str, Any]:
    step = _note()
    return {step.step: f"{step.transaction_id}:{context.get('n')}", "last": step.step}


@worker("forking.undo")
def undo(context: dict[str, Any]) -> None:
    step = _note()
    assert step.result is not None
    assert context[step.step] == step.result[step.step]


@worker("forking.silent")
def silent(context: dict[str, Any]) -> None:
    _note()


@worker("forking.square")
def square(context: dict[str, Any]) -> int:
    step = _note()
    return int(context["item"]) ** 2 if "item" in context else step.attempt


def undoable(name: str, **options: Any) -> Step:
    return Step(name, do, compensation=undo, undo_retry=ONCE, **options)


def order(**steps: Any) -> Any:
    return (
        WorkflowBuilder("forking-order")
        .add_step("check", do)
        .add_step("reserve", do, compensation=undo, undo_retry=ONCE, inputs={"n": "n"})
        .add_parallel("both", [undoable("pack"), [Step("label", silent), undoable("print")]])
        .add_step("charge", do, compensation=undo)
        .add_step("ship", do)
        .build(register=False)
    )


ORDER = order()


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    app = Celery("forking", broker="redis://127.0.0.1:1/0", set_as_current=False, task_always_eager=True)
    made = init_app(app, {"key_prefix": "forking"})
    called.clear()
    broken.clear()
    yield made
    for run in made.list(limit=100):
        snapshot = made.store.load(run.transaction_id)
        assert fold(snapshot.definition, run.transaction_id, run.history()) == snapshot.state
    assert made.store.visibility.unattended() == []
    InMemoryStateStore.shared(keys=made.keys).clear()
    app.close()


def ended(run: Any, status: str) -> Any:
    called.clear()
    broken.clear()
    assert run.status == status
    return run


def forked(fork: Any) -> dict[str, Any]:
    """What the first fact of a fork says."""
    first = fork.history()[0]
    assert (first.status, first.payload["workflow"]) == ("running", fork.describe().workflow)
    said: dict[str, Any] = first.payload["forked"]
    return said


# What is taken over -------------------------------------------------------------------------------------------------


def test_S22_a_fork_of_a_completed_run_begins_in_its_middle(orchestrator: Orchestrator) -> None:
    run = ended(orchestrator.start(ORDER, {"n": 1}, "A-1", attributes={"customer": "c-1"}), "completed")

    fork = run.fork("charge", transaction_id="A-2", reason="charged the wrong card", actor="ann")

    assert did() == ["charge", "ship"]
    seen = fork.describe()
    assert (seen.status, seen.forked_from, seen.input) == ("completed", "A-1", {"n": 1})
    before = run.describe()
    for step in ("check", "reserve", "pack", "label", "print"):
        assert seen.steps[step].result == before.steps[step].result
        assert (seen.steps[step].status, seen.steps[step].attempts) == ("succeeded", 0)
        assert seen.steps[step].taken_over_from == "A-1"
    assert seen.steps["charge"].taken_over_from is None
    assert seen.context == {**before.context, "charge": "A-2:1", "ship": "A-2:1"}
    assert fork.result() == seen.context
    assert seen.effects == before.effects
    assert seen.attributes == {"customer": "c-1"}
    assert (fork.history()[0].reason, fork.history()[0].actor) == ("charged the wrong card", "ann")
    assert forked(fork) == {
        "transaction_id": "A-1",
        "step": "charge",
        "live": ["check", "reserve", "pack", "label", "print"],
        "again": [],
        "left": {"charge": "live", "ship": "live"},
    }


def test_S25_a_fork_does_its_steps_under_keys_of_its_own(orchestrator: Orchestrator) -> None:
    run = ended(orchestrator.start(ORDER, {"n": 1}, "A-1"), "completed")

    run.fork("charge", transaction_id="A-2")

    assert called == [("do", "charge", "A-2/charge"), ("do", "ship", "A-2/ship")]


def test_S22_S25_a_fork_that_fails_undoes_what_it_took_over_under_the_key_it_was_done_with(
    orchestrator: Orchestrator,
) -> None:
    run = ended(orchestrator.start(ORDER, {"n": 1}, "A-1"), "completed")
    broken.add("ship")

    fork = run.fork("charge", transaction_id="A-2")

    assert fork.status == "compensated"
    undone = [(step, key) for direction, step, key in called if direction == "undo"]
    assert undone[0] == ("charge", "A-2/charge")
    assert sorted(undone[1:3]) == [("pack", "A-1/pack"), ("print", "A-1/print")]
    assert undone[3:] == [("reserve", "A-1/reserve")]
    assert fork.describe().effects["reserve"] == "undone"
    # The other run is only read.
    assert (run.status, run.describe().effects["reserve"]) == ("completed", "live")


def test_S22_a_fork_of_a_fork_undoes_under_the_key_of_the_run_that_did_it(orchestrator: Orchestrator) -> None:
    first = ended(orchestrator.start(ORDER, {"n": 1}, "A-1"), "completed")
    second = ended(first.fork("charge", transaction_id="A-2"), "completed")
    broken.add("ship")

    third = second.fork("ship", transaction_id="A-3")

    undone = [key for direction, _, key in called if direction == "undo"]
    assert (undone[0], undone[-1]) == ("A-2/charge", "A-1/reserve")
    assert (third.describe().forked_from, third.describe().steps["pack"].taken_over_from) == ("A-2", "A-1")


def test_S22_a_run_that_failed_before_anything_could_be_undone_is_forked_where_it_failed(
    orchestrator: Orchestrator,
) -> None:
    workflow = WorkflowBuilder("forking-plain").add_step("a", do).add_step("b", do).build(register=False)
    broken.add("b")
    run = ended(orchestrator.start(workflow, {"n": 1}, "A-1"), "failed")

    fork = run.fork("b", {"n": 2, "m": 3}, transaction_id="A-2")

    assert did() == ["b"]
    assert fork.describe().input == {"n": 2, "m": 3}
    assert fork.result() == {"n": 2, "m": 3, "a": "A-1:1", "b": "A-2:2", "last": "b"}


def test_S22_a_fork_of_a_compensated_run_does_again_what_was_undone(orchestrator: Orchestrator) -> None:
    broken.add("ship")
    run = ended(orchestrator.start(ORDER, {"n": 1}, "A-1"), "compensated")

    fork = run.fork("ship", transaction_id="A-2")

    assert sorted(did()) == sorted(["reserve", "pack", "label", "print", "charge", "ship"])
    assert fork.status == "completed"
    assert forked(fork) == {
        "transaction_id": "A-1",
        "step": "ship",
        "live": ["check"],
        "again": ["reserve", "pack", "label", "print", "charge"],
        "left": {"label": "live"},
    }


def test_S17_S22_an_effect_that_was_left_by_an_operator_is_taken_as_live(orchestrator: Orchestrator) -> None:
    broken.update({"ship", "undo reserve"})
    run = ended(orchestrator.start(ORDER, {"n": 1}, "A-1"), "compensation_failed")

    with pytest.raises(WorkflowError, match="cannot build upon step 'reserve': its undo waits for a person; settle it"):
        run.fork("charge")
    run.abandon("reserve", "it is reserved all the same")
    fork = run.fork("charge", transaction_id="A-2")

    # Beside the step that was left, what needs no undo and follows from it alone is still there.
    assert sorted(did()) == ["charge", "pack", "print", "ship"]
    assert forked(fork)["live"] == ["check", "reserve", "label"]


def test_S22_what_nobody_knows_is_not_built_upon(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("forking-external")
        .add_parallel("both", [Step("a", do, external=True), Step("b", do, external=True)])
        .add_step("c", do)
        .build(register=False)
    )
    run = orchestrator.start(workflow, {}, "A-1")
    run.terminate()

    with pytest.raises(WorkflowError, match="upon step 'b': nobody knows whether its effect is there"):
        run.fork("a")
    with pytest.raises(WorkflowError, match="upon step 'a'"):
        run.fork("c")


def test_a_choice_is_taken_over_with_what_was_chosen(orchestrator: Orchestrator) -> None:
    run = ended(orchestrator.start(ROUTED, {"kind": "card", "n": 1}, "A-1"), "completed")

    fork = run.fork("receipt", transaction_id="A-2")

    assert did() == ["receipt", "end"]
    steps = {name: str(step.status) for name, step in fork.describe().steps.items()}
    assert steps == {name: str(step.status) for name, step in run.describe().steps.items()}
    assert steps["cash"] == "skipped"
    assert fork.describe().steps["route"].result == "card"


def test_a_fork_from_a_choice_asks_again(orchestrator: Orchestrator) -> None:
    run = ended(orchestrator.start(ROUTED, {"kind": "card", "n": 1}, "A-1"), "completed")

    fork = run.fork("route", {"kind": "cash"}, transaction_id="A-2")

    assert did() == ["cash", "end"]
    assert fork.status == "completed"
    assert fork.describe().steps["card"].status == "skipped"


def test_a_branch_that_was_not_taken_is_no_place_to_begin(orchestrator: Orchestrator) -> None:
    run = ended(orchestrator.start(ROUTED, {"kind": "card"}, "A-1"), "completed")

    with pytest.raises(WorkflowError, match=r"in the branch 'cash' of 'route', which the run did not take; fork from"):
        run.fork("cash")


def test_a_fork_begins_in_the_round_of_a_loop(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("forking-loop")
        .add_step("first", do)
        .add_loop("write", [Step("draft", square), Step("review", silent)], lambda ctx: "done" in ctx, 3)
        .add_step("end", do)
        .build()
    )
    run = ended(orchestrator.start(workflow, {}, "A-1"), "completed")

    fork = run.fork("review#2", {"done": True}, transaction_id="A-2")

    assert did() == ["review#2", "end"]
    assert fork.describe().steps["draft#3"].status == "skipped"
    with pytest.raises(WorkflowError, match=r"fork from 'write.until#2'"):
        ended(fork, "completed").fork("draft#3")


def test_a_map_is_taken_over_with_all_its_items(orchestrator: Orchestrator) -> None:
    run = ended(orchestrator.start(MAPPED, {"items": [1, 2, 3]}, "A-1"), "completed")
    broken.add("end")

    fork = run.fork("end", transaction_id="A-2")

    assert did()[0] == "end"
    assert sorted(did()[1:]) == ["undo squares[0]", "undo squares[1]", "undo squares[2]"]
    assert {key for direction, _, key in called if direction == "undo"} == {f"A-1/squares[{n}]" for n in range(3)}
    assert fork.status == "compensated"
    assert fork.describe().steps["squares"].result == [1, 4, 9]
    assert fork.describe().context["squares"] == [1, 4, 9]


def test_a_fork_from_a_map_makes_its_list_anew(orchestrator: Orchestrator) -> None:
    run = ended(orchestrator.start(MAPPED, {"items": [1, 2]}, "A-1"), "completed")

    fork = run.fork("squares", {"items": [5]}, transaction_id="A-2")

    assert did() == ["squares[0]", "end"]
    assert fork.result()["squares"] == [25]
    with pytest.raises(WorkflowError, match="an item of a map"):
        run.fork("squares[1]")


def test_S11_S22_a_child_that_a_fork_has_taken_over_is_undone_with_it(orchestrator: Orchestrator) -> None:
    pay = WorkflowBuilder("forking-pay").add_step("debit", do, compensation=undo).build()
    workflow = WorkflowBuilder("forking-parent").add_child("pay", pay).add_step("end", do).build(register=False)
    run = ended(orchestrator.start(workflow, {"n": 1}, "A-1"), "completed")
    broken.add("end")

    fork = run.fork("end", transaction_id="A-2")

    assert did() == ["end", "undo debit"]
    assert (fork.status, fork.describe().steps["pay"].child) == ("compensated", "A-1:pay")
    assert orchestrator.get("A-1:pay").status == "compensated"


def test_waits_and_sleeps_that_are_over_are_taken_over(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("forking-waits")
        .add_parallel("both", [[Wait("paid")], [Sleep("nap", 60)]])
        .add_step("a", do, when=lambda ctx: ctx["paid"]["amount"] > 10)
        .add_step("end", do)
        .build()
    )
    run = orchestrator.start(workflow, {}, "A-1")
    run.signal("paid", {"amount": 5})
    ended(run, "completed")

    fork = run.fork("end", transaction_id="A-2")

    assert did() == ["end"]
    assert fork.result()["paid"] == {"amount": 5}
    assert fork.describe().steps["a"].status == "skipped"
    waits = run.fork("paid", transaction_id="A-3")
    assert waits.status == "running"
    waits.signal("paid", {"amount": 50})
    assert did() == ["end", "a", "end"]


def test_a_pivot_that_was_taken_over_leaves_no_way_back(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("forking-pivot")
        .add_step("a", do, compensation=undo)
        .add_step("pay", do, pivot=True)
        .add_step("end", do)
        .build(register=False)
    )
    run = ended(orchestrator.start(workflow, {}, "A-1"), "completed")
    broken.add("end")

    fork = run.fork("end", transaction_id="A-2")

    assert fork.status == "paused"
    broken.clear()
    assert fork.retry("end") == "completed"


# Asking for one ------------------------------------------------------------------------------------------------------


def test_G3_a_fork_that_is_asked_for_twice_is_one_run(orchestrator: Orchestrator) -> None:
    run = ended(orchestrator.start(ORDER, {"n": 1}, "A-1"), "completed")

    first, second = (run.fork("ship", {"m": 1}, transaction_id="A-2") for _ in range(2))

    assert first == second
    assert did() == ["ship"]
    for step, given in (("charge", {"m": 1}), ("ship", {"m": 2})):
        with pytest.raises(WorkflowAlreadyExistsError, match="another origin, step or input"):
            run.fork(step, given, transaction_id="A-2")
    with pytest.raises(WorkflowAlreadyExistsError):
        run.fork("ship", transaction_id="A-1")
    with pytest.raises(WorkflowAlreadyExistsError):
        orchestrator.start(ORDER, {"n": 1, "m": 1}, "A-2")


def test_two_forks_without_an_id_are_two_runs(orchestrator: Orchestrator) -> None:
    run = ended(orchestrator.start(ORDER, {"n": 1}, "A-1"), "completed")

    assert run.fork("ship") != run.fork("ship")


def test_what_cannot_be_forked_is_refused_and_starts_nothing(orchestrator: Orchestrator) -> None:
    waiting = WorkflowBuilder("forking-waiting").add_wait("paid").add_step("end", do).build(register=False)
    run = orchestrator.start(waiting, {}, "A-1")

    with pytest.raises(WorkflowNotEndedError, match="'A-1' is running, and fork takes a run that has ended"):
        run.fork("end")
    run.cancel()
    with pytest.raises(UnknownStepError, match="did you mean"):
        run.fork("ends")
    with pytest.raises(WorkflowError, match="expected a dict"):
        run.fork("end", ["n"])  # type: ignore[arg-type]
    with pytest.raises(WorkflowError, match="cannot be written as JSON"):
        run.fork("end", {"n": object()})
    with pytest.raises(WorkflowError, match="cannot be used"):
        run.fork("end", transaction_id="A 2")

    assert [found.transaction_id for found in orchestrator.list()] == ["A-1"]
    with pytest.raises(WorkflowError, match="no bulk verb 'fork'"):
        orchestrator.bulk("fork", status=list(RunStatus), arguments={"from_step": "end"})


def test_S22_every_step_that_is_taken_over_is_a_fact_of_the_fork_without_its_data(orchestrator: Orchestrator) -> None:
    run = ended(orchestrator.start(ORDER, {"n": 1}, "A-1"), "completed")

    fork = run.fork("ship", transaction_id="A-2")

    facts = [event for event in fork.history() if isinstance(event, StatusEvent) and event.status == "taken_over"]
    assert [fact.step for fact in facts] == ["check", "reserve", "pack", "label", "print", "charge"]
    assert {str(fact.payload) for fact in facts} == {"{'outcome': 'succeeded', 'origin': 'A-1'}"}
    assert orchestrator.store.payloads("A-2").inputs == {"reserve": {"n": 1}}


ROUTED = (
    WorkflowBuilder("forking-routed")
    .add_step("first", do)
    .add_choice(
        "route",
        lambda ctx: ctx["kind"],
        {"card": [Step("card", do, compensation=undo), Step("receipt", do)], "cash": [Step("cash", do)]},
    )
    .add_step("end", do)
    .build()
)
MAPPED = (
    WorkflowBuilder("forking-mapped")
    .add_map("squares", Step("squares", square), over="items", compensation=silent)
    .add_step("end", do)
    .build(register=False)
)
