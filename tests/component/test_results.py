"""``{}``, None and no result are three things, wherever a result is looked at and whoever has brought it."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import ErrorEvent, ErrorInfo, Orchestrator, ResultEvent, Run, Step, WorkflowBuilder
from multiagents.events import ErrorKind, Event
from multiagents.state_store.payloads import as_mapping
from multiagents.state_store.records import Claim, parse_attempt_key
from multiagents.workflow.decider import resolved
from multiagents.workflow.definition import Definition

RESULTS: dict[str, Any] = {
    "none": None,
    "empty": {},
    "list": [],
    "zero": 0,
    "some": {"a": 1},
}


@pytest.fixture(params=RESULTS.values(), ids=RESULTS)
def result(request: pytest.FixtureRequest) -> Any:
    return request.param


def flow(**steps: dict[str, Any]) -> Definition:
    """One step after the other, each with its options; the worker has the step's name."""
    builder = WorkflowBuilder("with-results")
    for name, options in steps.items():
        builder.add_step(name, None if "external" in options else name, **options)
    return builder.build(register=False)


def claimed(orchestrator: Orchestrator, run: Run, step: str) -> Claim:
    snapshot = orchestrator.store.load(run.transaction_id)
    attempt = snapshot.state.correlation(step, *parse_attempt_key(snapshot.in_flight[step].attempt_key))
    content = snapshot.state.definition_hash
    return orchestrator.store.claim(attempt, content, owner="w", worker="here", timeout=30)


def does(orchestrator: Orchestrator, run: Run, step: str, result: Any) -> Claim:
    """Do what is in flight of a step, as a worker does."""
    claim = claimed(orchestrator, run, step)
    said = ResultEvent.about(claim.correlation, result, at=claim.now, worker="here")
    orchestrator.engine.settle(resolved(said, "probe") if claim.probing else said, claim)
    return claim


def fails(orchestrator: Orchestrator, run: Run, step: str, kind: ErrorKind = ErrorKind.FAILED) -> None:
    claim = claimed(orchestrator, run, step)
    error = ErrorInfo(type="Declined", message="declined")
    orchestrator.engine.settle(
        ErrorEvent.about(claim.correlation, error, at=claim.now, kind=kind, retryable=False), claim
    )


def published(orchestrator: Orchestrator, run: Run, step: str, result: Any, nonce: str | None = None) -> None:
    """Have somebody elsewhere say on the bus what came of the first attempt of a step."""
    event = ResultEvent(
        transaction_id=run.transaction_id,
        correlation_id=f"{run.transaction_id}/{step}/do/1",
        payload=result,
        nonce=nonce,
    )
    orchestrator.engine.receive(ResultEvent.model_validate_json(event.to_json()))


def seen(orchestrator: Orchestrator, run: Run, step: str) -> tuple[Any, bool]:
    """A step's result and whether it has one, wherever users see that."""
    view, results = run.describe().steps[step], orchestrator.store.results(run.transaction_id)
    assert (results.get(step), step in results) == (view.result, view.has_result)
    return view.result, view.has_result


def ended(run: Run, step: str) -> Event:
    [event] = [event for event in run.history() if isinstance(event, ResultEvent) and event.step == step]
    return event


def test_of_a_worker(orchestrator: Orchestrator, result: Any) -> None:
    run = orchestrator.start(flow(a={}, b={}), {"n": 1})
    assert seen(orchestrator, run, "a") == (None, False)

    does(orchestrator, run, "a", result)

    assert seen(orchestrator, run, "a") == (result, True)
    assert seen(orchestrator, run, "b") == (None, False)
    assert run.describe().context == claimed(orchestrator, run, "b").context == {"n": 1, **as_mapping("a", result)}
    assert (ended(run, "a").digest is None) is (result == {})


def test_of_somebody_elsewhere(orchestrator: Orchestrator, result: Any) -> None:
    run = orchestrator.start(flow(a={"external": True}, b={}), {})

    published(orchestrator, run, "a", result)

    assert seen(orchestrator, run, "a") == (result, True)


@pytest.mark.parametrize("items", [1, 2, 3])
def test_of_the_items_of_a_map(orchestrator: Orchestrator, result: Any, items: int) -> None:
    each = WorkflowBuilder("with-items").add_map("each", "each", over="items").build(register=False)
    run = orchestrator.start(each, {"items": list(range(items))})
    orchestrator.engine.advance(run.transaction_id)

    for index in range(items):
        assert seen(orchestrator, run, f"each[{index}]") == (None, False)
        does(orchestrator, run, f"each[{index}]", result)
        assert seen(orchestrator, run, f"each[{index}]") == (result, True)

    assert seen(orchestrator, run, "each") == ([result] * items, True)
    assert run.result(timeout=0)["each"] == [result] * items


@pytest.mark.parametrize("items", [2, 3])
def test_an_item_without_a_result_is_told_from_one_with_none(
    orchestrator: Orchestrator, result: Any, items: int
) -> None:
    each = (
        WorkflowBuilder("with-items")
        .add_map("each", "each", over="items", compensation="undo", compensate_each=False)
        .build(register=False)
    )
    run = orchestrator.start(each, {"items": list(range(items))})
    orchestrator.engine.advance(run.transaction_id)
    does(orchestrator, run, "each[0]", result)

    fails(orchestrator, run, "each[1]")

    assert claimed(orchestrator, run, "each").result == [result] + [None] * (items - 1)
    results = orchestrator.store.results(run.transaction_id)
    assert [name for name in results if name != "each"] == ["each[0]"]


def test_of_steps_side_by_side(orchestrator: Orchestrator, result: Any) -> None:
    both = WorkflowBuilder("with-branches").add_parallel("both", [Step("a", "a"), Step("b", "b")]).add_step("c", "c")
    run = orchestrator.start(both.build(register=False), {})

    for step in ("b", "a"):
        does(orchestrator, run, step, result)

    assert {step: seen(orchestrator, run, step) for step in ("a", "b")} == dict.fromkeys("ab", (result, True))
    expected = {**as_mapping("a", result), **as_mapping("b", result)}
    assert claimed(orchestrator, run, "c").context == run.describe().context == expected


@pytest.mark.parametrize("merge", [False, True], ids=["apart", "merged"])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another"])
def test_of_a_signal(orchestrator: Orchestrator, result: Any, merge: bool, beside: bool) -> None:
    told = WorkflowBuilder("with-signals")
    if beside:
        told.add_step("x", "x").add_wait("a", merge=merge, after=[]).add_step("b", "b", after=["x", "a"])
    else:
        told.add_wait("a", merge=merge).add_step("b", "b")
    run = orchestrator.start(told.build(register=False), {})

    run.signal("a", result)

    assert seen(orchestrator, run, "a") == (result, True)
    if beside:
        does(orchestrator, run, "x", {})
    expected = as_mapping("a", result, apart=not merge)
    assert claimed(orchestrator, run, "b").context == run.describe().context == expected


def test_of_a_wait_that_somebody_elsewhere_ends(orchestrator: Orchestrator, result: Any) -> None:
    told = WorkflowBuilder("with-signals").add_wait("a").add_step("b", "b")
    run = orchestrator.start(told.build(register=False), {})

    published(orchestrator, run, "a", result)

    assert seen(orchestrator, run, "a") == (result, True)
    assert run.describe().context == as_mapping("a", result, apart=True)


def test_of_what_a_person_supplies(orchestrator: Orchestrator, result: Any) -> None:
    parked = flow(a={"on_failure": "park"}, b={})
    run = orchestrator.start(parked, {})
    fails(orchestrator, run, "a")
    assert seen(orchestrator, run, "a") == (None, False)

    run.supply("a", result)

    assert seen(orchestrator, run, "a") == (result, True)


def test_of_what_a_probe_has_found(orchestrator: Orchestrator, result: Any) -> None:
    asked = flow(a={"on_unknown": "resolve", "resolve_with": "probe"}, b={})
    run = orchestrator.start(asked, {})
    fails(orchestrator, run, "a", ErrorKind.UNKNOWN)
    assert seen(orchestrator, run, "a") == (None, False)

    does(orchestrator, run, "a", {"outcome": "succeeded", "result": result})

    assert seen(orchestrator, run, "a") == (result, True)


def test_of_a_probe_that_says_no_more_than_that_it_took_effect(orchestrator: Orchestrator) -> None:
    asked = flow(a={"on_unknown": "resolve", "resolve_with": "probe"}, b={})
    run = orchestrator.start(asked, {})
    fails(orchestrator, run, "a", ErrorKind.UNKNOWN)

    does(orchestrator, run, "a", {"outcome": "succeeded"})

    assert seen(orchestrator, run, "a") == (None, True)


def test_an_undo_is_given_it(orchestrator: Orchestrator, result: Any) -> None:
    undone = flow(a={"compensation": "undo"}, b={})
    run = orchestrator.start(undone, {})
    does(orchestrator, run, "a", result)

    fails(orchestrator, run, "b")

    claim = claimed(orchestrator, run, "a")
    assert (claim.result, claim.outcome) == (result, "succeeded")
    assert claim.context == as_mapping("a", result)


def test_an_undo_of_what_nobody_knows_is_given_none(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(flow(a={"compensation": "undo"}), {})

    fails(orchestrator, run, "a", ErrorKind.UNKNOWN)

    claim = claimed(orchestrator, run, "a")
    assert (claim.result, claim.outcome) == (None, "unknown")
    assert seen(orchestrator, run, "a") == (None, False)


def test_the_letter_of_a_failed_undo_has_it(orchestrator: Orchestrator, result: Any) -> None:
    undone = flow(a={"compensation": "undo"}, b={})
    run = orchestrator.start(undone, {})
    does(orchestrator, run, "a", result)
    fails(orchestrator, run, "b")

    fails(orchestrator, run, "a")

    [letter] = orchestrator.dead_letters().values()
    assert letter["result"] == result


def test_a_late_result_counts_as_it_is(orchestrator: Orchestrator, result: Any) -> None:
    """Of an attempt that was given up: the undo is made again, and gets what it returned (rules S4, S5)."""
    undone = flow(a={"compensation": "undo"})
    run = orchestrator.start(undone, {})
    nonce = orchestrator.store.load(run.transaction_id).state.nonce
    fails(orchestrator, run, "a", ErrorKind.UNKNOWN)
    does(orchestrator, run, "a", None)

    published(orchestrator, run, "a", result, nonce)

    assert claimed(orchestrator, run, "a").result == result
    assert seen(orchestrator, run, "a") == (result, True)


@pytest.mark.parametrize("late", [{"a": 1}, {}, None], ids=["some", "empty", "none"])
def test_a_result_takes_the_place_of_one_that_came_late(orchestrator: Orchestrator, result: Any, late: Any) -> None:
    parked = flow(a={"on_unknown": "park"}, b={})
    run = orchestrator.start(parked, {})
    nonce = orchestrator.store.load(run.transaction_id).state.nonce
    fails(orchestrator, run, "a", ErrorKind.UNKNOWN)
    published(orchestrator, run, "a", late, nonce)

    run.supply("a", result)

    assert seen(orchestrator, run, "a") == (result, True)


def test_a_fork_takes_it_over(orchestrator: Orchestrator, result: Any) -> None:
    run = orchestrator.start(flow(a={}, b={}), {})
    does(orchestrator, run, "a", result)
    run.terminate()

    forked = run.fork("b", {})

    assert seen(orchestrator, forked, "a") == (result, True)
    assert claimed(orchestrator, forked, "b").context == as_mapping("a", result)


def test_what_is_skipped_has_none(orchestrator: Orchestrator) -> None:
    parked = flow(a={"on_failure": "park"}, b={})
    run = orchestrator.start(parked, {})
    fails(orchestrator, run, "a")

    run.skip("a", reason="not needed")

    assert seen(orchestrator, run, "a") == (None, False)
