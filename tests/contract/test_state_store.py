"""What every state store does with one run: start, claim, renew. One suite over memory and Redis.

``test_state_store_commit.py`` has commits, ``test_state_store_due.py`` what concerns time,
``test_state_store_reading.py`` what is asked about runs.
"""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from multiagents.clock import to_ms
from multiagents.events import ErrorInfo, StatusEvent
from multiagents.exceptions import WorkflowNotFoundError
from multiagents.names import Correlation, Direction
from multiagents.state_store.records import ClaimRefused, Commit, Delivery, Dispatch, DueKind
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.state import Activity, ActivityStatus, Cause, RunStatus, StepState
from tests.support.store_kit import StoreKit

CELERY = "celery"


def attempt(step: str = "reserve", number: int = 1, *, undo: bool = False) -> Correlation:
    return Correlation("order-1", step, Direction.UNDO if undo else Direction.DO, number)


def said(status: str, **fields: Any) -> StatusEvent:
    return StatusEvent(transaction_id="order-1", status=status, **fields)


# --- start -----------------------------------------------------------------------------------------------------------


def test_a_started_run_is_there_whole(kit: StoreKit) -> None:
    started = kit.begin(input={"total": 5, "who": "Zoë"})

    snapshot = kit.store.load("order-1")
    entry = snapshot.in_flight["reserve"]
    assert started.created
    assert (snapshot.version, snapshot.epoch) == (1, 1)
    assert snapshot.state.status is RunStatus.RUNNING
    assert snapshot.state.workflow == "contract"
    assert snapshot.state.steps == {"reserve": StepState(Activity(ActivityStatus.IN_FLIGHT, 1))}
    assert (entry.attempt_key, entry.delivery, entry.target, entry.number) == ("d1", Delivery.PUSH, CELERY, 1)
    assert (entry.direction, entry.attempt) == (Direction.DO, 1)
    assert 0 <= to_ms(snapshot.now) - entry.since_ms < 5_000
    assert kit.store.payloads("order-1").input == {"total": 5, "who": "Zoë"}
    assert [event.type for event in kit.store.history("order-1")] == ["status", "command"]
    partition = kit.keys.partition_of("order-1")
    assert kit.messages() == [f'{{"id": "order-1/reserve/d1", "headers": {{"multiagents": "{partition}:1"}}}}']


def test_a_repeated_start_changes_nothing_and_tells_what_the_run_was_started_with(kit: StoreKit) -> None:
    first = kit.begin(digest="digest-1")
    before = kit.seen()

    second = kit.begin(digest="digest-2", input={"other": 1})

    assert second == first._replace(created=False)
    assert second.input_digest == "digest-1"
    assert kit.seen() == before


def test_a_start_under_a_taken_id_tells_the_workflow_that_took_it(kit: StoreKit) -> None:
    other = WorkflowBuilder("other").add_step("one", "first").build(register=False)
    kit.begin()

    started = kit.begin(definition=other)

    assert (started.created, started.workflow) == (False, "contract")
    assert started.definition_hash != other.content_hash


def test_of_many_who_start_the_same_run_at_once_one_creates_it(kit: StoreKit) -> None:
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(kit.begin().created)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [False] * 7 + [True]
    assert len(kit.messages()) == 1


def test_messages_are_numbered_by_list_within_their_partition(kit: StoreKit) -> None:
    lists = [CELERY, CELERY, "slow", CELERY, "slow"]
    last: dict[tuple[int, str], int] = {}

    for number, name in enumerate(lists):
        transaction_id = f"order-{number}"
        kit.begin(transaction_id, dispatch=kit.message(transaction_id, "reserve", name=name))
        place = (kit.keys.partition_of(transaction_id), name)
        last[place] = last.get(place, 0) + 1
        numbered = re.search(r'"multiagents": "(\d+):(\d+)"', kit.messages(name)[-1])
        assert numbered is not None
        assert (int(numbered[1]), int(numbered[2])) == (place[0], last[place])

    assert [len(kit.messages(name)) for name in (CELERY, "slow")] == [3, 2]


def test_S26_a_process_without_the_code_reads_the_definition_that_the_run_started_with(kit: StoreKit) -> None:
    kit.begin()

    snapshot = kit.another().load("order-1")

    assert list(snapshot.definition.steps) == ["reserve", "fraud", "credit", "limit", "ship"]
    assert snapshot.definition.steps["reserve"].compensation == "release_stock"


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), object()], ids=["set", "nan", "object"])
def test_what_is_not_json_is_refused_and_nothing_is_written(kit: StoreKit, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        kit.begin(input={"total": value})
    with pytest.raises(WorkflowNotFoundError):
        kit.store.load("order-1")
    kit.begin()
    kit.claim()
    before = kit.seen()

    for given in ({"results": {"reserve": value}}, {"context": {"a": value}}, {"inputs": {"ship": value}}):
        with pytest.raises((TypeError, ValueError)):
            kit.finish(**given)

    assert kit.seen() == before


# --- claim -----------------------------------------------------------------------------------------------------------


def test_a_claim_gives_what_the_step_needs_and_is_recorded(kit: StoreKit) -> None:
    kit.begin()

    claim = kit.claim(timeout=20)

    entry = kit.store.load("order-1").in_flight["reserve"]
    assert claim.correlation == attempt()
    assert (claim.context, claim.input, claim.merged) == ({"total": 5}, {"total": 5}, {"total": 5})
    assert (claim.epoch, claim.cancelled, claim.result, claim.outcome, claim.error) == (1, False, None, None, None)
    assert (claim.deadline - claim.now).total_seconds() == 20
    assert claim.state.steps["reserve"].do.in_flight
    assert (entry.delivery, entry.owner, entry.worker) == (Delivery.CLAIMED, "owner-1", "worker@host")
    assert entry.deadline_ms - entry.since_ms == 20_000


def test_a_repeated_claim_gets_the_same_answer(kit: StoreKit) -> None:
    kit.begin()
    first = kit.claim(timeout=20)
    record = kit.store.load("order-1").in_flight["reserve"].record

    second = kit.claim(timeout=20)

    assert second._replace(now=first.now) == first
    assert kit.store.load("order-1").in_flight["reserve"].record == record


def refuse(kit: StoreKit, reason: str, **arguments: Any) -> None:
    before = kit.messages()
    with pytest.raises(ClaimRefused, match=reason):
        kit.claim(**arguments)
    assert kit.messages() == before


def test_a_claim_is_refused_to_whoever_is_not_asked(kit: StoreKit) -> None:
    for number in range(2, 9):  # so that every partition knows the definition
        kit.begin(f"order-{number}")
    refuse(kit, "no such run")
    kit.begin()
    refuse(kit, "does not wait for this attempt", attempt=2)
    refuse(kit, "does not wait for this attempt", undo=True)
    refuse(kit, "does not wait for this attempt", step="ship")
    kit.claim(owner="owner-1")
    refuse(kit, "another worker holds it", owner="owner-2")
    kit.finish()
    refuse(kit, "does not wait for this attempt", owner="owner-1")


def test_a_message_from_another_database_is_told_apart(kit: StoreKit) -> None:
    with pytest.raises(WorkflowNotFoundError, match="was started against another database"):
        kit.claim()


@pytest.mark.parametrize("delivery", [Delivery.TIMER, Delivery.EXTERNAL])
def test_an_attempt_that_has_not_gone_out_cannot_be_claimed(kit: StoreKit, delivery: Delivery) -> None:
    kit.begin(dispatch=Dispatch("reserve", "d1", delivery, delay_ms=60_000))

    refuse(kit, "does not wait for this attempt")


@pytest.mark.parametrize("delivery", [Delivery.LINK, Delivery.OUTBOX])
def test_an_attempt_that_somebody_else_carries_can_be_claimed(kit: StoreKit, delivery: Delivery) -> None:
    kit.begin(dispatch=Dispatch("reserve", "d1", delivery, target="queue"))

    assert kit.claim().context == {"total": 5}
    assert kit.store.load("order-1").in_flight["reserve"].delivery is Delivery.CLAIMED


def test_of_many_who_claim_at_once_one_gets_it(kit: StoreKit) -> None:
    kit.begin()
    got: list[str] = []

    def take(owner: str) -> None:
        try:
            kit.claim(owner=owner)
        except ClaimRefused:
            return
        got.append(owner)

    threads = [threading.Thread(target=take, args=(f"owner-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(got) == 1


def test_the_time_by_which_the_step_has_to_be_over_limits_the_attempt(kit: StoreKit) -> None:
    now = to_ms(kit.store.now())
    kit.begin(dispatch=kit.message("order-1", "reserve", close_ms=now + 5_000))

    claim = kit.claim(timeout=20)

    assert to_ms(claim.deadline) == now + 5_000


def branches(kit: StoreKit) -> None:
    """Finish the branches, the last of them first."""
    kit.begin()
    kit.claim()
    kit.finish(result={"stock": 1, "who": 1}, context={"stock": 1, "who": 1}, asks=["fraud", "credit"])
    kit.claim("credit")
    kit.finish("credit", result={"who": "credit"}, asks=["limit"])
    kit.claim("limit")
    kit.finish("limit", result=7)
    kit.claim("fraud")
    kit.finish("fraud", result={"who": "fraud"}, asks=["ship"])


def test_a_claim_merges_the_stored_context_and_the_branches_in_definition_order(kit: StoreKit) -> None:
    branches(kit)

    claim = kit.claim("ship")

    assert claim.context == {"total": 5, "stock": 1, "who": "credit", "limit": 7}
    assert list(claim.parts.items()) == [("fraud", {"who": "fraud"}), ("credit", {"who": "credit"}), ("limit", 7)]
    assert claim.merged == claim.context


def test_what_inputs_answered_is_what_the_step_gets(kit: StoreKit) -> None:
    kit.begin(inputs={"reserve": {"only": "this"}})

    claim = kit.claim()

    assert (claim.context, claim.input) == ({"only": "this"}, {"only": "this"})
    assert claim.merged == {"total": 5}


def test_S4_the_claim_of_an_undo_gives_what_there_is_to_undo(kit: StoreKit) -> None:
    branches(kit)
    undoing = StepState(Activity(ActivityStatus.SUCCEEDED, 1), Activity(ActivityStatus.IN_FLIGHT, 1))
    version = kit.store.load("order-1").version
    error = ErrorInfo(type="ValueError", message="no")
    kit.store.commit(
        Commit(
            "order-1",
            [said("compensating")],
            header={"status": "compensating", "cause": "failure", "error": error.model_dump_json()},
            steps={"reserve": undoing},
            version=version,
            dispatches=[kit.message("order-1", "reserve", "u1")],
        )
    )

    claim = kit.claim(undo=True)

    assert claim.result == {"stock": 1, "who": 1}
    assert claim.context == {"total": 5, "stock": 1, "who": 1}
    assert claim.input == {"total": 5}
    assert claim.outcome == "succeeded"
    assert (claim.error.type, claim.error.message) == ("ValueError", "no")
    assert (claim.state.status, claim.state.cause) == (RunStatus.COMPENSATING, Cause.FAILURE)
    assert claim.epoch == 2


# --- renew -----------------------------------------------------------------------------------------------------------


def test_only_the_holder_of_an_attempt_renews_its_lease(kit: StoreKit) -> None:
    assert kit.store.renew(attempt(), "owner-1") == (False, True)
    kit.begin()
    assert kit.store.renew(attempt(), "owner-1") == (False, True)
    kit.claim()

    assert kit.store.renew(attempt(), "owner-1") == (True, False)
    assert kit.store.renew(attempt(), "owner-2") == (False, True)
    assert kit.store.renew(attempt(number=2), "owner-1") == (False, True)
    assert kit.store.renew(attempt(undo=True), "owner-1") == (False, True)


def test_whoever_renews_and_whoever_claims_is_told_that_the_run_is_to_stop(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()

    kit.store.commit(Commit("order-1", [], header={"stop": "1"}, version=1))

    assert kit.store.renew(attempt(), "owner-1") == (True, True)
    assert kit.claim().cancelled


def test_a_lease_is_due_when_nobody_renews_it_any_more(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()

    for _ in range(8):
        assert kit.sweep_for(0.1) == []
        assert kit.store.renew(attempt(), "owner-1").alive

    assert kit.wait_due() == [DueKind.ATTEMPT.entry("order-1", "reserve", "d1")]


def test_renewing_does_not_stand_in_for_a_heartbeat(kit: StoreKit) -> None:
    kit.begin()
    kit.claim(heartbeat_timeout=0.2)
    before = kit.store.load("order-1").in_flight["reserve"].beat_until_ms
    kit.sleep(0.05)

    kit.store.renew(attempt(), "owner-1")
    unbeaten = kit.store.load("order-1").in_flight["reserve"].beat_until_ms
    kit.store.renew(attempt(), "owner-1", beat=True, detail={"done": 3})
    beaten = kit.store.load("order-1").in_flight["reserve"].beat_until_ms

    assert unbeaten == before
    assert beaten >= before + 50
