"""Rule S17: what operators do about undos that failed, one or many at once; runs in one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from multiagents import DeadLetter, Orchestrator, RetryPolicy, TerminalError, WorkflowBuilder, init_app, worker
from multiagents.exceptions import WorkflowError, WorkflowNotFoundError
from multiagents.state_store.memory import InMemoryStateStore
from tests.support.letters import abouts, letter_about

ONCE = RetryPolicy(max_attempts=1)
down: set[str] = set()


@worker("letters.do")
def do(context: dict[str, Any]) -> None:
    pass


@worker("letters.undo")
def undo(context: dict[str, Any]) -> None:
    if down:
        raise TerminalError("the bank is down")


@worker("letters.refuse")
def refuse(context: dict[str, Any]) -> None:
    raise TerminalError("no")


def flow(name: str) -> Any:
    return (
        WorkflowBuilder(name)
        .add_step("charge", do, compensation=undo, undo_retry=ONCE)
        .add_step("mail", do, compensation=undo, undo_retry=ONCE)
        .add_step("last", refuse)
        .build(register=False)
    )


ORDER, RETURN = flow("letters-order"), flow("letters-return")


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    app = Celery("letters", broker="redis://127.0.0.1:1/0", set_as_current=False, task_always_eager=True)
    down.add("bank")
    yield init_app(app, {"key_prefix": "letters"})
    down.clear()
    InMemoryStateStore.shared().clear()
    app.close()


@pytest.fixture
def runs(orchestrator: Orchestrator) -> list[Any]:
    InMemoryStateStore.shared(keys=orchestrator.keys).clear()
    return [
        orchestrator.start(workflow, {"n": number}, f"{workflow.name}-{number}")
        for workflow in (ORDER, RETURN)
        for number in (1, 2)
    ]


def statuses(runs: list[Any]) -> list[str]:
    return [str(run.status) for run in runs]


def test_S17_dead_letters_are_listed_by_workflow_step_and_run(orchestrator: Orchestrator, runs: list[Any]) -> None:
    def keys(*args: str, **given: str) -> list[str]:
        return abouts(orchestrator.dead_letters(*args, **given))

    assert len(keys()) == 8
    assert keys("letters-order", "charge") == ["letters-order-1/charge/undo/1", "letters-order-2/charge/undo/1"]
    assert keys(transaction_id="letters-return-2") == [f"letters-return-2/{step}/undo/1" for step in ("charge", "mail")]
    assert keys("no-such-workflow") == []


def test_S17_a_letter_shows_what_happened_and_what_it_takes(orchestrator: Orchestrator, runs: list[Any]) -> None:
    letter = letter_about(orchestrator, "letters-order-1/charge/undo/1")

    assert (letter.transaction_id, letter.step, letter.workflow) == ("letters-order-1", "charge", "letters-order")
    assert (letter.why, letter.is_undo, letter.run) == ("the undo is over without success", True, runs[0])
    assert (letter["compensation"], letter["input"]) == ("letters.undo", {"n": 1})
    assert letter["idempotency_key"] == "letters-order-1/charge"
    assert (letter["error"]["message"], letter["original_error"]["message"]) == ("the bank is down", "no")


def test_S17_one_letter_is_retried_skipped_supplied_or_abandoned(orchestrator: Orchestrator, runs: list[Any]) -> None:
    def letters(run: Any) -> list[DeadLetter]:
        return list(orchestrator.dead_letters(transaction_id=run.transaction_id).values())

    down.clear()
    for letter in letters(runs[0]):
        letter.retry(reason="the bank is back")
    for letter in letters(runs[1]):
        letter.skip("never mind", actor="ann")
    for letter in letters(runs[2]):
        letter.supply(reason="by hand")
    for letter in letters(runs[3]):
        letter.abandon("written off")

    assert statuses(runs) == ["compensated", "compensated_partially", "compensated", "compensation_failed"]
    assert orchestrator.dead_letters() == {}
    assert [dict(run.describe().effects) for run in runs] == [
        {"charge": effect, "mail": effect} for effect in ("undone", "live", "undone", "live")
    ]


def test_S17_many_are_settled_at_once(orchestrator: Orchestrator, runs: list[Any]) -> None:
    down.clear()

    retried = orchestrator.bulk("retry", "letters-order", status="compensation_failed", reason="the bank is back")
    skipped = orchestrator.bulk(
        "skip", "letters-return", status="compensation_failed", reason="so small", arguments={"step": "mail"}
    )
    seen = orchestrator.bulk("abandon", status=["completed", "compensated", "compensation_failed"], dry_run=True)
    abandoned = orchestrator.bulk("abandon", "letters-return", reason="written off", actor="ann")

    assert (retried.counts, skipped.counts) == ({"compensated": 2}, {"compensation_failed": 2})
    assert seen.counts == {"would_abandon": 2}  # those that have nothing to abandon are left alone
    assert abandoned.counts == {"compensation_failed": 2}
    assert orchestrator.dead_letters() == {}


def test_S17_what_is_not_undone_needs_a_reason(orchestrator: Orchestrator, runs: list[Any]) -> None:
    letter = letter_about(orchestrator, "letters-order-1/charge/undo/1")

    for verb in (letter.skip, letter.abandon):
        with pytest.raises(WorkflowError, match="no reason was given"):
            verb("")
    assert orchestrator.bulk("abandon", "letters-order").counts == {"WorkflowError": 2}
    assert letter.key in orchestrator.dead_letters()


def test_a_letter_that_is_no_undo_has_nothing_to_settle(orchestrator: Orchestrator) -> None:
    orchestrator.store.bury("A-1", "A-1/charge/do/1", {"why": "the state store does not know this run", "event": {}})
    orchestrator.store.bury("A-2", "A-2", {"why": "the run could not be moved on"})
    event, run = letter_about(orchestrator, "A-1/charge/do/1"), letter_about(orchestrator, "A-2")

    assert (event.is_undo, event.step, run.is_undo, run.step, run.transaction_id) == (
        False,
        "charge",
        False,
        None,
        "A-2",
    )
    with pytest.raises(WorkflowError, match="is about no undo"):
        event.retry()


def test_a_letter_whose_run_is_gone_says_so(orchestrator: Orchestrator, runs: list[Any]) -> None:
    letter = letter_about(orchestrator, "letters-order-1/charge/undo/1")
    runs[0].delete()

    with pytest.raises(WorkflowNotFoundError):
        letter.retry()
