"""What a run takes in from elsewhere, and what it tells: foreign results, merged results, history, lists."""

from __future__ import annotations

from itertools import chain
from typing import Any

from multiagents import (
    ErrorEvent,
    ErrorInfo,
    ResultEvent,
    RetryPolicy,
    StatusEvent,
    Step,
    WorkflowBuilder,
)
from multiagents.events import ErrorKind
from multiagents.testing import wait_until
from multiagents.workflow.decider import Fact
from tests.support.scenario import Deployment, Scenario, events, statuses

#: What the last heartbeat of ``beat`` says.
LAST_BEAT = {"done": 11}
CHAIN = (
    WorkflowBuilder("chain")
    .add_step("a", "play", compensation="undo")
    .add_step("b", "play", compensation="undo")
    .add_step("c", "play", compensation="undo")
    .build(register=False)
)


# --- external steps --------------------------------------------------------------------------------------------------

EXTERNAL = (
    WorkflowBuilder("external")
    .add_step("a", "play", compensation="undo")
    .add_step(
        "ship", external=True, compensation="undo", timeout=30, retry=RetryPolicy(max_attempts=2, initial_interval=0.05)
    )
    .add_step("last", "echo")
    .build(register=False)
)


def _answer(run: Any, payload: Any = None, attempt: int = 1, **more: Any) -> ResultEvent:
    correlation = f"{run.transaction_id}/ship/do/{attempt}"
    return ResultEvent(
        transaction_id=run.transaction_id, correlation_id=correlation, step="ship", payload=payload, **more
    )


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

    [note] = [event for event in events(run, StatusEvent) if event.status == Fact.MERGED]
    assert (seen.context["score"], seen.context["n"], seen.context["m"]) == (2, 1, 2)
    assert (note.step, note.payload) == ("last", {"overlaps": {"score": ["left", "right"]}})
    assert note.reason == (
        'results with the same key were merged in definition order: "score" of left, right: that of right counts'
    )


def test_the_history_notes_the_same_key_also_where_branches_meet_in_the_end_of_the_run(rules: Scenario):
    workflow = (
        WorkflowBuilder("same_key_at_end")
        .add_parallel("both", [Step("l", "play"), Step("r", "play")])
        .build(register=False)
    )

    run = rules.start(workflow, l=[{"score": 1}], r=[{"score": 2}])
    seen = rules.end(run)

    [note] = [event for event in events(run, StatusEvent) if event.status == Fact.MERGED]
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


def test_who_watches_a_run_sees_what_heartbeats_say_and_the_history_does_not_keep_it(rules: Scenario):
    run = rules.start(CHAIN, b=[["beat", "wait"]])
    seen, said = [], []
    for event in run.watch(poll=0.02):
        if getattr(event, "status", None) != "heartbeat":
            seen.append(event)
            continue
        said.append((event.step, event.payload))
        if event.payload == run.describe().steps["b"].detail == LAST_BEAT:
            rules.open_gate(run, "b")

    assert said[-1] == ("b", LAST_BEAT)
    assert len(said) == len({str(each) for each in said})
    assert seen == run.history()


def test_runs_are_listed_newest_first_page_by_page_and_counted(rules: Scenario, deployment: Deployment):
    name = f"listed-{deployment.pool}-{deployment.mode}"
    workflow = (
        WorkflowBuilder(name).add_step("a", "play", compensation="undo").add_step("b", "play").build(register=False)
    )
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
    assert list(chain(*pages)) == list(reversed(rules.runs))
    assert len(rules.orchestrator.list(workflow, status="compensated")) == 3
    assert (rules.orchestrator.count(workflow, "completed"), rules.orchestrator.count(workflow)) == (4, 7)
