"""Forks over memory and Redis, with payloads that are compressed and kept apart: one script, all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from multiagents import ErrorEvent, ErrorInfo, Orchestrator, ResultEvent, Step, WorkflowBuilder
from multiagents.state_store.records import Claim, Delivery, parse_attempt_key
from multiagents.workflow.decider import fold
from multiagents.workflow.definition import definitions

LARGE = "x" * 2_000
FLOW = (
    WorkflowBuilder("contract-forked")
    .add_step("first", "play", compensation="undo", inputs={"given": "given"})
    .add_parallel("both", [Step("left", "play", compensation="undo"), [Step("right", "play"), Step("far", "play")]])
    .add_step("last", "play")
    .add_step("end", "play")
    .build(register=False)
)


@pytest.fixture(params=["memory", "redis", "redis-3-partitions"])
def orchestrator(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    """An orchestrator whose payloads are compressed, and kept apart when they are large; the test is the worker."""
    url = "memory://" if request.param == "memory" else request.getfixturevalue("new_redis_url")()
    settings = {
        "partitions": 3 if request.param.endswith("partitions") else 1,
        "key_prefix": f"t{uuid4().hex[:8]}",
        "payload_codec": "gzip",
        "claim_check_bytes": 60,
    }
    made = Orchestrator(Celery("forking", broker=url, set_as_current=False), settings)
    yield made
    made.store.close()


def claimed(orchestrator: Orchestrator, run: Any, step: str) -> Claim:
    snapshot = orchestrator.store.load(run.transaction_id)
    correlation = snapshot.state.correlation(step, *parse_attempt_key(snapshot.in_flight[step].attempt_key))
    content = snapshot.state.definition_hash
    return orchestrator.store.claim(correlation, content, owner="w", worker="here", timeout=30)


def settle(orchestrator: Orchestrator, claim: Claim, result: Any = None, error: str | None = None) -> None:
    said = {
        "transaction_id": claim.correlation.transaction_id,
        "correlation_id": str(claim.correlation),
        "step": claim.correlation.step,
        "attempt": claim.correlation.attempt,
    }
    if error is None:
        orchestrator.engine.settle(ResultEvent(**said, payload=result), claim)
    else:
        info = ErrorInfo(type="Failed", message=error)
        orchestrator.engine.settle(ErrorEvent(**said, retryable=False, error=info), claim)


def completed(orchestrator: Orchestrator) -> Any:
    run = orchestrator.start(FLOW, {"given": LARGE}, "order-1", attributes={"customer": "c-1"})
    for step in ("first", "right", "left", "far", "last", "end"):
        settle(orchestrator, claimed(orchestrator, run, step), {step: f"{step} {LARGE}", "who": step})
    assert run.status == "completed"
    return run


def in_flight(orchestrator: Orchestrator, run: Any) -> set[str]:
    return set(orchestrator.store.load(run.transaction_id).in_flight)


def check(orchestrator: Orchestrator, run: Any) -> None:
    snapshot = orchestrator.store.load(run.transaction_id)
    assert fold(snapshot.definition, run.transaction_id, run.history()) == snapshot.state
    assert orchestrator.store.visibility.unattended() == []


def test_S22_a_fork_goes_on_behind_a_join_with_all_that_met_there(orchestrator: Orchestrator) -> None:
    run = completed(orchestrator)
    before = run.describe()

    fork = run.fork("last", transaction_id="order-2")

    check(orchestrator, fork)
    assert in_flight(orchestrator, fork) == {"last"}
    claim = claimed(orchestrator, fork, "last")
    assert claim.context == {
        "given": LARGE,
        **{step: f"{step} {LARGE}" for step in ("first", "left", "right", "far")},
        "who": "far",
    }
    settle(orchestrator, claim, {"last": f"last {LARGE}", "who": "last"})
    settle(orchestrator, claimed(orchestrator, fork, "end"), {"end": f"end {LARGE}", "who": "end"})
    seen = fork.describe()
    assert (seen.status, seen.context, seen.attributes) == ("completed", before.context, before.attributes)
    assert fork.result() == run.result()
    check(orchestrator, fork)
    assert orchestrator.list(attributes={"customer": "c-1"}).runs == [fork, run]


def test_S22_a_fork_goes_on_with_the_context_that_the_run_had_there(orchestrator: Orchestrator) -> None:
    fork = completed(orchestrator).fork("end", transaction_id="order-2")

    claim = claimed(orchestrator, fork, "end")

    before = ("first", "left", "right", "far", "last")
    assert claim.context == {"given": LARGE, **{step: f"{step} {LARGE}" for step in before}, "who": "last"}


def test_S22_a_branch_that_was_taken_over_has_landed_on_its_join(orchestrator: Orchestrator) -> None:
    fork = completed(orchestrator).fork("left", transaction_id="order-2")

    assert in_flight(orchestrator, fork) == {"left"}
    settle(orchestrator, claimed(orchestrator, fork, "left"), {"left": "again", "who": "left"})

    assert in_flight(orchestrator, fork) == {"last"}
    claim = claimed(orchestrator, fork, "last")
    assert (claim.context["left"], claim.context["far"], claim.context["who"]) == ("again", f"far {LARGE}", "far")
    check(orchestrator, fork)


def test_S22_a_fork_undoes_what_it_took_over_with_the_input_and_the_result_it_had(orchestrator: Orchestrator) -> None:
    run = completed(orchestrator)
    fork = run.fork("last", {"given": "another"}, transaction_id="order-2")
    settle(orchestrator, claimed(orchestrator, fork, "last"), error="declined")
    settle(orchestrator, claimed(orchestrator, fork, "left"))

    claim = claimed(orchestrator, fork, "first")

    assert (claim.input, claim.outcome) == ({"given": LARGE}, "succeeded")
    assert claim.result == {"first": f"first {LARGE}", "who": "first"}
    assert claim.state.step("first").origin == "order-1"
    settle(orchestrator, claim)
    assert (fork.status, fork.describe().input["given"]) == ("compensated", "another")
    check(orchestrator, fork)


def test_S22_a_fork_stands_by_itself_when_the_run_it_is_made_of_is_gone(orchestrator: Orchestrator) -> None:
    run = completed(orchestrator)
    fork = run.fork("last", transaction_id="order-2")

    run.delete()

    assert claimed(orchestrator, fork, "last").context["far"] == f"far {LARGE}"
    assert fork.describe().forked_from == "order-1"


def test_G3_a_fork_that_is_there_already_is_left_as_it_is(orchestrator: Orchestrator) -> None:
    run = completed(orchestrator)
    fork = run.fork("last", transaction_id="order-2")
    before = orchestrator.store.load("order-2")

    assert run.fork("last", transaction_id="order-2") == fork

    after = orchestrator.store.load("order-2")
    assert (after.state, after.version, dict(after.in_flight)) == (
        before.state,
        before.version,
        dict(before.in_flight),
    )
    assert after.in_flight["last"].delivery in (Delivery.PUSH, Delivery.OUTBOX)


def test_S22_a_fork_whose_next_step_this_process_cannot_decide_waits_for_one_that_can(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = (
        WorkflowBuilder(f"forked-elsewhere-{uuid4().hex[:8]}")
        .add_step("a", "play")
        .add_step("b", "play", when=lambda context: context["wanted"])
        .build()
    )
    run = orchestrator.start(workflow, {"wanted": False}, "order-1")
    settle(orchestrator, claimed(orchestrator, run, "a"))
    assert run.status == "completed"
    monkeypatch.delitem(definitions._by_hash, workflow.content_hash)

    fork = run.fork("b", {"wanted": True}, transaction_id="order-2")

    assert (in_flight(orchestrator, fork), fork.describe().steps["a"].status) == (set(), "succeeded")
    check(orchestrator, fork)
    definitions.register(workflow)
    assert orchestrator.engine.advance("order-2")
    assert in_flight(orchestrator, fork) == {"b"}


def test_a_fork_has_the_deadline_of_its_definition_anew(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("contract-forked-late", deadline=60)
        .add_step("a", "play")
        .add_step("b", "play")
        .build(register=False)
    )
    run = orchestrator.start(workflow, {}, "order-1")
    settle(orchestrator, claimed(orchestrator, run, "a"))
    settle(orchestrator, claimed(orchestrator, run, "b"), error="declined")
    assert run.status == "failed"

    fork = run.fork("b", transaction_id="order-2")

    seen = fork.describe()
    assert seen.deadline is not None
    assert 55 < (seen.deadline - orchestrator.store.now()).total_seconds() <= 60
