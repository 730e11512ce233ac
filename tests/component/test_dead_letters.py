"""A dead letter is about one run, and no other letter takes its place (rules S17 and S32); over memory and Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from multiagents import Orchestrator, RetryPolicy, Run, WorkflowBuilder
from multiagents.events import ErrorEvent, ErrorInfo, ResultEvent
from multiagents.exceptions import WorkflowError, WorkflowNotFoundError
from multiagents.names import Correlation, Direction
from multiagents.state_store.records import Commit, LetterKey
from tests.support.letters import abouts

CHARGE = (
    WorkflowBuilder("lettered")
    .add_step("charge", "charge", compensation="refund", undo_retry=RetryPolicy(max_attempts=1), external=True)
    .add_wait("shipped")
    .build(register=False)
)


def said(orchestrator: Orchestrator, direction: Direction) -> dict[str, Any]:
    nonce = orchestrator.store.load("order-1").state.nonce
    attempt = Correlation("order-1", "charge", direction, 1)
    return {"transaction_id": "order-1", "correlation_id": str(attempt), "nonce": nonce}


def failed_to_undo(orchestrator: Orchestrator, run: Run, why: str) -> Run:
    """A run whose only undo has failed for good."""
    orchestrator.engine.receive(ResultEvent(**said(orchestrator, Direction.DO), payload={"charged": why}))
    run.cancel()
    error = ErrorInfo(type="BankDown", message=why)
    orchestrator.engine.receive(ErrorEvent(**said(orchestrator, Direction.UNDO), error=error, retryable=False))
    assert run.status == "compensation_failed"
    return run


def test_S32_each_of_two_runs_with_one_id_has_its_own_letter_and_a_verb_is_for_the_run_it_is_of(
    orchestrator: Orchestrator,
) -> None:
    failed_to_undo(orchestrator, orchestrator.start(CHARGE, {}, "order-1"), "first")
    replaced = orchestrator.start(CHARGE, {}, "order-1", on_conflict="replace_failed")
    run = failed_to_undo(orchestrator, replaced, "second")

    letters = orchestrator.dead_letters("lettered", "charge", "order-1")
    first, second = sorted(letters.values(), key=lambda letter: str(letter["error"]["message"]))
    before = len(run.history())

    assert [letter["result"] for letter in (first, second)] == [{"charged": "first"}, {"charged": "second"}]
    for verb in (first.retry, first.supply, lambda: first.skip("x"), lambda: first.abandon("x"), first.run.retry):
        with pytest.raises(
            WorkflowError, match=r"that another one has replaced|an earlier run, which this one has repl"
        ):
            verb()
    assert (len(run.history()), len(orchestrator.dead_letters())) == (before, 2)
    second.skip("she was paid by hand")
    assert (run.status, [letter.key for letter in orchestrator.dead_letters().values()]) == (
        "compensated_partially",
        [first.key],
    )
    first.discard()
    assert orchestrator.dead_letters() == {}


def test_S32_a_run_that_is_replaced_while_its_letter_is_settled_has_no_say_in_the_new_one(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed_to_undo(orchestrator, orchestrator.start(CHARGE, {}, "order-1"), "first")
    [letter] = orchestrator.dead_letters().values()
    load, seen = orchestrator.store.load, []

    def replaced_after_the_look(transaction_id: str) -> Any:
        found = load(transaction_id)
        seen.append(found)
        if len(seen) == 2:  # the letter has been looked at, and the run
            monkeypatch.setattr(orchestrator.store, "load", load)
            again = orchestrator.start(CHARGE, {}, "order-1", on_conflict="replace_failed")
            failed_to_undo(orchestrator, again, "second")
        return found

    monkeypatch.setattr(orchestrator.store, "load", replaced_after_the_look)

    with pytest.raises(WorkflowError, match="meant for an earlier run"):
        letter.skip("she was paid by hand")
    assert orchestrator.get("order-1").status == "compensation_failed"
    assert len(orchestrator.dead_letters()) == 2


@pytest.mark.parametrize("nonce_known", [True, False], ids=["with the nonce", "without"])
def test_S32_what_came_late_for_two_runs_with_one_id_has_two_letters_and_the_same_one_has_one(
    orchestrator: Orchestrator, end_run: Callable[..., None], nonce_known: bool
) -> None:
    known = []
    for _ in range(2):
        orchestrator.start(CHARGE, {}, "order-1")
        known.append(said(orchestrator, Direction.DO) | ({} if nonce_known else {"nonce": None}))
        end_run("order-1", "terminated")
        orchestrator.get("order-1").delete(reason="a mistake")

    for _ in range(2):
        for number, about in enumerate(known):
            orchestrator.engine.receive(ResultEvent(**about, payload={"charged": number}))

    letters = orchestrator.dead_letters(step="charge", transaction_id="order-1")
    assert abouts(letters) == ["order-1/charge/do/1"] * 2
    assert sorted(letter["event"]["payload"]["charged"] for letter in letters.values()) == [0, 1]


def test_S32_an_outcome_that_comes_late_does_not_take_the_place_of_an_undo_that_is_to_be_settled(
    orchestrator: Orchestrator,
) -> None:
    failed_to_undo(orchestrator, orchestrator.start(CHARGE, {}, "order-1"), "first")
    late = ResultEvent(**said(orchestrator, Direction.UNDO), payload={"refunded": True})
    orchestrator.start(CHARGE, {}, "order-1", on_conflict="replace_failed")

    orchestrator.engine.receive(late)

    assert sorted(letter.is_undo for letter in orchestrator.dead_letters().values()) == [False, True]


def test_S32_the_letters_of_a_run_go_with_it_and_those_of_another_with_its_id_stay(orchestrator: Orchestrator) -> None:
    run = failed_to_undo(orchestrator, orchestrator.start(CHARGE, {}, "order-1"), "first")
    mine = str(next(iter(orchestrator.dead_letters())))
    ours = [mine, f"{mine}|0123", "order-1/charge/do/1|4567", mine.partition("/")[0]]
    others = [
        "order-1~another/charge/undo/1",
        "order-1~another",
        "order-11/charge/do/1|89ab",
        "order-1:child~n/pay/undo/1",
    ]
    for key in (*ours, *others):
        orchestrator.store.bury("order-1", key, {"why": "x"})

    run.delete(reason="asked for")

    assert sorted(orchestrator.dead_letters()) == sorted(others)


def test_a_letter_that_an_earlier_release_has_written_is_settled_as_ever(orchestrator: Orchestrator) -> None:
    run = failed_to_undo(orchestrator, orchestrator.start(CHARGE, {}, "order-1"), "first")
    [letter] = orchestrator.dead_letters().values()
    nonce = orchestrator.store.load("order-1").state.nonce
    orchestrator.store.commit(Commit("order-1", [], answered=[letter.key], nonce=nonce))
    orchestrator.store.bury("order-1", "order-1/charge/undo/1", dict(letter))

    [earlier] = orchestrator.dead_letters(transaction_id="order-1", step="charge").values()
    with pytest.raises(WorkflowError, match="is to be settled"):
        earlier.discard()
    earlier.skip("she was paid by hand")

    assert (run.status, orchestrator.dead_letters()) == ("compensated_partially", {})


def test_a_letter_of_a_run_that_is_gone_says_so_and_may_be_discarded(orchestrator: Orchestrator) -> None:
    run = failed_to_undo(orchestrator, orchestrator.start(CHARGE, {}, "order-1"), "first")
    [letter] = orchestrator.dead_letters().values()
    orchestrator.store.forget(orchestrator.store.load(run.transaction_id).state.identity)

    with pytest.raises(WorkflowNotFoundError):
        letter.retry()
    letter.discard()

    assert orchestrator.dead_letters() == {}


@pytest.mark.parametrize(
    ("key", "transaction_id", "nonce", "attempt"),
    [
        ("order-1~n/charge/undo/2", "order-1", "n", Correlation("order-1", "charge", Direction.UNDO, 2, "n")),
        ("order-1~n/charge/do/1|0123", "order-1", "n", Correlation("order-1", "charge", Direction.DO, 1, "n")),
        ("order-1/charge/do/1|0123", "order-1", "", Correlation("order-1", "charge", Direction.DO, 1)),
        ("order-1/charge/do/1", "order-1", "", Correlation("order-1", "charge", Direction.DO, 1)),
        ("order-1~n", "order-1", "n", None),
        ("order-1", "order-1", "", None),
        ("bus|1-0", "bus|1-0", "", None),
        ("bus|shop/1-0,3", "bus|shop/1-0,3", "", None),
        ("what/is/this|0123", "what/is/this|0123", "", None),
        ("|0123", "|0123", "", None),
    ],
)
def test_what_a_letter_is_about_is_in_its_key(
    key: str, transaction_id: str, nonce: str, attempt: Correlation | None
) -> None:
    assert LetterKey.parse(key) == LetterKey(transaction_id, nonce, attempt)
