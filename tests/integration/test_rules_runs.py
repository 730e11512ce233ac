"""Runs: starting, cancelling, versions, external steps, and that none is ever left alone."""

from __future__ import annotations

import threading
import time
from typing import Any

import app_rules
import pytest
from scenario import Deployment, Scenario, events, outcomes, statuses

from multiagents import (
    ErrorEvent,
    ErrorInfo,
    ResultEvent,
    RetryPolicy,
    StatusEvent,
    Step,
    WorkflowAlreadyExistsError,
    WorkflowBuilder,
)
from multiagents.events import ErrorKind
from multiagents.testing import wait_until
from multiagents.workflow.merging import MERGED

CHAIN = (
    WorkflowBuilder("chain")
    .add_step("a", "play", compensation="undo")
    .add_step("b", "play", compensation="undo")
    .add_step("c", "play", compensation="undo")
    .build(register=False)
)


# --- starting --------------------------------------------------------------------------------------------------------


def test_G3_starting_twice_with_the_same_id_gives_the_same_run(rules: Scenario):
    run = rules.start(CHAIN, {"order": 7}, id="twice")
    again = rules.start(CHAIN, {"order": 7}, id="twice")
    rules.end(run)
    after_the_end = rules.start(CHAIN, {"order": 7}, id="twice")

    assert (again, after_the_end.status) == (run, "completed")
    assert rules.began(run) == ["a", "b", "c"]


def test_G3_many_callers_that_start_one_id_at_once_start_one_run(rules: Scenario):
    threads = [threading.Thread(target=rules.start, args=(CHAIN,), kwargs={"id": "at-once"}) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert rules.end(rules.runs["at-once"]).status == "completed"
    assert rules.began(rules.runs["at-once"]) == ["a", "b", "c"]


def test_G3_an_id_that_is_taken_by_another_run_is_refused(rules: Scenario):
    other = WorkflowBuilder("other").add_step("a", "play").build(register=False)
    run = rules.start(CHAIN, {"order": 7}, id="taken")

    with pytest.raises(WorkflowAlreadyExistsError, match="another input"):
        rules.orchestrator.start(CHAIN, {"order": 8}, transaction_id="taken")
    with pytest.raises(WorkflowAlreadyExistsError, match=r'another workflow \("chain"\)'):
        rules.orchestrator.start(other, {"order": 7}, transaction_id="taken")
    rules.end(run)


# --- nobody is left alone --------------------------------------------------------------------------------------------


def test_G4_at_no_moment_is_a_run_without_somebody_who_looks_after_it(rules: Scenario):
    """A mixed load; all the while the store is asked which runs have neither lease, timer, message nor declared wait."""
    wide = (
        WorkflowBuilder("wide")
        .add_step("a", "play", compensation="undo")
        .add_parallel("b", [Step(f"b{number}", "play", compensation="undo") for number in range(6)])
        .add_step("c", "play")
        .build(register=False)
    )
    slow_retry = RetryPolicy(max_attempts=3, initial_interval=0.2, jitter=False)
    retried = WorkflowBuilder("retried").add_step("a", "play", retry=slow_retry).build(register=False)
    for _ in range(12):
        rules.start(wide)
        rules.start(wide, b3=["terminal"], a__undo=["fail"])
        rules.start(wide, c=["unknown"])
        rules.start(retried, a=["fail", "fail"])
        rules.start(app_rules.conditional, {"wanted": False})
        rules.start(CHAIN).cancel()

    looks = 0
    limit = time.monotonic() + 60
    while any(not run.status.is_end for run in rules.runs.values()):
        assert [name for name in rules.store.unattended() if name in rules.runs] == []
        assert time.monotonic() < limit, {run: run.status for run in rules.runs.values()}
        looks += 1

    assert looks > 3
    ended = [run.status for run in rules.runs.values()]
    assert sorted(set(ended)) == ["cancelled", "compensated", "completed"]
    assert ended.count("completed") == 36


# --- cancel ----------------------------------------------------------------------------------------------------------


def test_S20_cancel_lets_the_running_step_settle_and_undoes_what_was_done(rules: Scenario):
    run = rules.start(CHAIN, b=["wait"])
    rules.until_begun(run, "b")

    status = run.cancel(reason="changed my mind", actor="ann")
    rules.open_gate(run, "b")
    seen = rules.end(run)

    assert (status, seen.status) == ("compensating", "cancelled")
    assert rules.began(run) == ["a", "b", "b.undo", "a.undo"]
    [request] = [event for event in events(run, StatusEvent) if event.status == "cancel_requested"]
    assert (request.reason, request.actor) == ("changed my mind", "ann")
    assert seen.error.type == "Cancelled"


def test_S20_a_running_step_can_see_that_it_is_to_stop(rules: Scenario):
    run = rules.start(CHAIN, b=["wait_until_cancelled"])
    rules.until_begun(run, "b")

    run.cancel()

    assert rules.end(run).steps["b"].result == {"saw_cancel": True}


def test_S20_cancel_before_any_step_has_begun_ends_without_running_one(rules: Scenario):
    """Its queue is consumed by nobody, so the message is still waiting: it is taken back."""
    workflow = (
        WorkflowBuilder("waiting").add_step("a", "play", compensation="undo", queue="nobody").build(register=False)
    )
    run = rules.start(workflow)

    run.cancel()

    assert (rules.end(run).status, rules.began(run)) == ("cancelled", [])


def test_S20_cancel_during_compensation_is_recorded_and_changes_nothing(rules: Scenario):
    run = rules.start(CHAIN, b__undo=["wait"], c=["terminal"])
    rules.until_begun(run, "b.undo")

    status = run.cancel(reason="too late")
    rules.open_gate(run, "b")
    seen = rules.end(run)

    assert (status, seen.status, seen.error.type) == ("compensating", "compensated", "multiagents.exceptions.TerminalError")
    assert rules.began(run) == ["a", "b", "c", "b.undo", "a.undo"]
    assert [event.reason for event in events(run, StatusEvent) if event.status == "cancel_requested"] == ["too late"]


def test_S20_G3_cancelling_twice_undoes_once(rules: Scenario):
    run = rules.start(CHAIN, b=["wait"])
    rules.until_begun(run, "b")

    run.cancel()
    run.cancel()
    rules.open_gate(run, "b")

    assert (rules.end(run).status, rules.began(run)) == ("cancelled", ["a", "b", "b.undo", "a.undo"])
    assert run.cancel() == "cancelled"


def test_S20_cancel_after_the_end_changes_nothing(rules: Scenario):
    run = rules.start(CHAIN)
    rules.end(run)

    assert (run.cancel(), rules.began(run)) == ("completed", ["a", "b", "c"])


def test_S20_cancel_while_an_attempt_waits_for_its_back_off(rules: Scenario):
    slow = RetryPolicy(max_attempts=3, initial_interval=60.0, jitter=False)
    workflow = (
        WorkflowBuilder("back_off").add_step("a", "play", compensation="undo", retry=slow).build(register=False)
    )
    run = rules.start(workflow, a=["fail"])
    wait_until(lambda: outcomes(run, "a") == ["failed"], what="the first failure")

    run.cancel()

    assert (rules.end(run, 5).status, rules.began(run)) == ("cancelled", ["a"])


# --- versions --------------------------------------------------------------------------------------------------------


def test_S26_a_run_finishes_on_the_definition_it_was_started_with(rules: Scenario):
    old = (
        WorkflowBuilder("renewed", version="1")
        .add_step("a", "play", compensation="undo")
        .add_step("b", "play", compensation="undo")
        .build()
    )
    run = rules.start("renewed", a=["wait"])
    rules.until_begun(run, "a")

    # A new version is deployed here, and a run of it overtakes the old one.
    new = WorkflowBuilder("renewed", version="2").add_step("z", "play").build()
    if rules.deployment.pool != "solo":
        assert list(rules.play("renewed").steps) == ["z"]
    rules.open_gate(run, "a")
    seen = rules.end(run)

    assert (seen.version, seen.status, rules.began(run)) == ("1", "completed", ["a", "b"])
    assert old.content_hash != new.content_hash


# --- external steps --------------------------------------------------------------------------------------------------

EXTERNAL = (
    WorkflowBuilder("external")
    .add_step("a", "play", compensation="undo")
    .add_step("ship", external=True, compensation="undo", timeout=30, retry=RetryPolicy(max_attempts=2, initial_interval=0.05))
    .add_step("last", "echo")
    .build(register=False)
)


def _answer(run: Any, payload: Any = None, attempt: int = 1, **more: Any) -> ResultEvent:
    correlation = f"{run.transaction_id}/ship/do/{attempt}"
    return ResultEvent(transaction_id=run.transaction_id, correlation_id=correlation, step="ship", payload=payload, **more)


def _until_shipping(run: Any, attempt: int = 1) -> None:
    wait_until(lambda: run.describe().steps["ship"].attempts == attempt, what=f"attempt {attempt} of ship")


def test_a_result_that_a_foreign_process_publishes_advances_the_run(rules: Scenario):
    run = rules.start(EXTERNAL)
    _until_shipping(run)

    rules.publish(_answer(run, {"parcel": 9}, worker="carrier"))
    seen = rules.end(run)

    assert (seen.status, seen.context["parcel"], seen.steps["ship"].worker) == ("completed", 9, "carrier")
    assert seen.context["last_saw"]["parcel"] == 9


def test_an_error_that_a_foreign_process_publishes_is_retried_and_then_turns_the_run_back(rules: Scenario):
    run = rules.start(EXTERNAL)
    for attempt in (1, 2):
        _until_shipping(run, attempt)
        rules.publish(
            ErrorEvent(
                transaction_id=run.transaction_id,
                correlation_id=f"{run.transaction_id}/ship/do/{attempt}",
                error=ErrorInfo(type="carrier.NoVan", message="no van"),
                kind=ErrorKind.FAILED,
            )
        )
    seen = rules.end(run)

    assert (seen.status, seen.error.type, seen.error.message) == ("compensated", "carrier.NoVan", "no van")
    assert rules.began(run) == ["a", "a.undo"]


def test_G2_a_foreign_result_that_comes_twice_counts_once(rules: Scenario):
    run = rules.start(EXTERNAL)
    _until_shipping(run)

    rules.publish(_answer(run, {"parcel": 1}), _answer(run, {"parcel": 2}), _answer(run, {"parcel": 3}))
    seen = rules.end(run)

    assert (seen.status, seen.context["parcel"]) == ("completed", 1)
    assert [event.status for event in events(run, StatusEvent) if event.step is None] == ["running", "completed"]


def test_a_foreign_result_for_a_step_in_a_queue_is_accepted_though_nobody_claimed_it(rules: Scenario):
    workflow = WorkflowBuilder("taken_over").add_step("ship", "play", queue="nobody").build(register=False)
    run = rules.start(workflow)

    rules.publish(_answer(run, {"parcel": 4}))

    assert rules.end(run).context["parcel"] == 4


# --- parallel branches that return the same key ----------------------------------------------------------------------


def test_the_history_notes_where_two_branches_return_the_same_key(rules: Scenario):
    workflow = (
        WorkflowBuilder("same_key")
        .add_step("first", "play")
        .add_parallel("both", [Step("left", "play"), [Step("right", "play"), Step("right2", "play")]])
        .add_step("last", "play")
        .build(register=False)
    )

    # right2 comes after right, so what they share is no overlap; neither is what first and left share.
    script: dict[str, list[Any]] = {"first": [{"n": 0}], "left": [{"score": 1, "n": 1}]}
    run = rules.start(workflow, right=[{"score": 2, "m": 1}], right2=[{"m": 2}], **script)
    seen = rules.end(run)

    [note] = [event for event in events(run, StatusEvent) if event.status == MERGED]
    assert (seen.context["score"], seen.context["n"], seen.context["m"]) == (2, 1, 2)
    assert (note.step, note.payload) == ("last", {"overlaps": {"score": ["left", "right"]}})
    assert note.reason == (
        'results with the same key were merged in definition order: "score" of left, right: that of right counts'
    )


def test_the_history_notes_the_same_key_also_where_branches_meet_in_the_end_of_the_run(rules: Scenario):
    workflow = (
        WorkflowBuilder("same_key_at_end").add_parallel("both", [Step("l", "play"), Step("r", "play")]).build(register=False)
    )

    run = rules.start(workflow, l=[{"score": 1}], r=[{"score": 2}])
    seen = rules.end(run)

    [note] = [event for event in events(run, StatusEvent) if event.status == MERGED]
    assert (seen.context["score"], note.step, note.payload) == (2, None, {"overlaps": {"score": ["l", "r"]}})


# --- reading runs ----------------------------------------------------------------------------------------------------


def test_the_history_tells_the_whole_run_in_order(rules: Scenario):
    run = rules.start(CHAIN, b=["terminal"])
    rules.end(run)

    told = [(event.type, event.step, getattr(event, "status", None)) for event in run.history()]
    assert told == [
        ("status", None, "running"),
        ("command", "a", None),
        ("result", "a", None),
        ("command", "b", None),
        ("error", "b", None),
        ("status", None, "compensating"),
        ("compensation", "a", None),
        ("result", "a", None),
        ("status", None, "compensated"),
    ]
    assert statuses(run) == ["running", "compensating", "compensated"]
    times = [event.at for event in run.history()]
    assert times == sorted(times)


def test_watch_follows_a_run_to_its_end(rules: Scenario):
    run = rules.start(CHAIN, b=["wait"])
    seen = []
    for event in run.watch(poll=0.02):
        seen.append(event)
        if event.type == "command" and event.step == "b":
            rules.open_gate(run, "b")

    assert seen == run.history()
    assert seen[-1].status == "completed"


def test_runs_are_listed_newest_first_page_by_page_and_counted(rules: Scenario, deployment: Deployment):
    name = f"listed-{deployment.pool}-{deployment.mode}"
    workflow = WorkflowBuilder(name).add_step("a", "play", compensation="undo").add_step("b", "play").build(register=False)
    for number in range(7):
        rules.start(workflow, **({"b": ["terminal"]} if number % 2 else {}))
    for run in rules.runs.values():
        rules.end(run)

    pages = []
    cursor = None
    while True:
        page = rules.orchestrator.list(name, limit=3, cursor=cursor)
        pages.append([run.transaction_id for run in page])
        cursor = page.cursor
        if cursor is None:
            break

    assert [len(page) for page in pages] == [3, 3, 1]
    assert sum(pages, []) == list(reversed(rules.runs))
    assert len(rules.orchestrator.list(workflow, status="compensated")) == 3
    assert (rules.orchestrator.count(workflow, "completed"), rules.orchestrator.count(workflow)) == (4, 7)
