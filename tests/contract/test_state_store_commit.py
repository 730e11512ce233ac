"""What every state store does with a commit: applied whole, or refused whole. One suite over memory and Redis."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from multiagents.events import StatusEvent
from multiagents.exceptions import WorkflowNotFoundError
from multiagents.names import Correlation, Direction
from multiagents.state_store.records import Commit, Delivery, Dispatch, DueKind, Verdict
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.state import Activity, ActivityStatus, RunStatus, StepState
from tests.support.store_kit import StoreKit

CELERY = "celery"


def attempt() -> Correlation:
    return Correlation("order-1", "reserve", Direction.DO, 1)


def said(status: str, **fields: Any) -> StatusEvent:
    return StatusEvent(transaction_id="order-1", status=status, **fields)


def test_a_commit_writes_everything_that_it_says(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()

    committed = kit.finish(
        result={"stock": 1},
        context={"stock": 1},
        inputs={"fraud": {"only": "this"}},
        asks=["fraud", "credit"],
        header={"cancel": "1"},
    )

    snapshot, payloads = kit.store.load("order-1"), kit.store.payloads("order-1")
    assert committed == (Verdict.APPLIED, False)
    assert snapshot.version == 2
    assert snapshot.state.cancel_requested
    assert snapshot.state.steps["reserve"].is_done
    assert list(snapshot.state.steps) == ["reserve", "fraud", "credit"]
    assert list(snapshot.in_flight) == ["fraud", "credit"]
    assert (payloads.results, payloads.context) == ({"reserve": {"stock": 1}}, {"stock": 1})
    assert payloads.inputs == {"fraud": {"only": "this"}}
    assert [event.type for event in kit.store.history("order-1")] == ["status", "command", "result"]
    assert len(kit.messages()) == 3


def test_an_empty_header_field_is_removed(kit: StoreKit) -> None:
    kit.begin()
    kit.store.commit(Commit("order-1", [], header={"cancel": "1", "error": '{"type": "E", "message": "m"}'}, version=1))

    kit.store.commit(Commit("order-1", [], header={"cancel": "", "error": ""}, version=2))

    state = kit.store.load("order-1").state
    assert (state.cancel_requested, state.error) == (False, None)


@pytest.mark.parametrize("size", [5, 30_000])
def test_a_result_may_have_any_number_of_keys(kit: StoreKit, size: int) -> None:
    wide = {f"key-{number}": number for number in range(size)}
    kit.begin()
    kit.claim()

    assert kit.finish(result=wide, context=wide, asks=["fraud"]).verdict is Verdict.APPLIED

    assert kit.claim("fraud").context == {"total": 5, **wide}


def refused(kit: StoreKit, verdict: Verdict, **fields: Any) -> None:
    """See that a commit is refused and leaves no trace."""
    before = kit.seen()

    committed = kit.finish(result={"stock": 1}, context={"stock": 1}, asks=["fraud"], pending=True, **fields)

    assert committed == (verdict, False)
    assert kit.seen() == before


def test_a_commit_for_no_run_is_refused(kit: StoreKit) -> None:
    assert kit.finish().verdict is Verdict.MISSING
    with pytest.raises(WorkflowNotFoundError):
        kit.store.load("order-1")


def test_G1_an_answer_nobody_waits_for_is_late(kit: StoreKit) -> None:
    kit.begin()
    refused(kit, Verdict.LATE)
    kit.claim()
    refused(kit, Verdict.LATE, owner="owner-2")
    refused(kit, Verdict.LATE, attempt_key="d2")
    refused(kit, Verdict.LATE, answers=("ship", "d1|"))
    kit.finish(context={"stock": 1})
    refused(kit, Verdict.LATE)


def test_a_foreign_answer_needs_no_claim(kit: StoreKit) -> None:
    kit.begin(dispatch=Dispatch("reserve", "d1", Delivery.EXTERNAL))

    assert kit.finish(answers=("reserve", "d1|")).verdict is Verdict.APPLIED
    assert kit.store.load("order-1").in_flight == {}


def test_a_commit_against_another_version_is_a_conflict(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()
    refused(kit, Verdict.CONFLICT, version=2)
    refused(kit, Verdict.CONFLICT, version=0)

    assert kit.finish(version=1).verdict is Verdict.APPLIED


@pytest.mark.parametrize(
    "change",
    [{"header": {"status": "compensating"}}, {"header": {"stop": "1"}}, {"supersedes": True}],
    ids=["turned", "told-to-stop", "overtaken"],
)
def test_what_workers_have_in_hand_is_overtaken_by_a_new_epoch(kit: StoreKit, change: dict[str, Any]) -> None:
    kit.begin()
    kit.claim()
    kit.store.commit(Commit("order-1", [], header={"cancel": "1"}, version=1))
    assert kit.store.load("order-1").epoch == 1
    kit.store.commit(Commit("order-1", [], version=2, **change))

    refused(kit, Verdict.CONFLICT, epoch=1)

    assert kit.finish(epoch=2).verdict is Verdict.APPLIED


def test_an_attempt_is_not_given_up_while_its_lease_is_renewed(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()
    kit.store.expire(attempt())
    entry = kit.store.take_due()[0][0]
    kit.sleep(0.01)
    kit.store.renew(attempt(), "owner-1")

    refused(kit, Verdict.RENEWED, unrenewed=entry.seen_ms)

    kit.store.expire(attempt())
    entry = kit.store.take_due()[0][0]
    assert kit.finish(unrenewed=entry.seen_ms).verdict is Verdict.APPLIED


def test_an_attempt_is_taken_back_only_as_it_was_seen(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()
    kit.finish(asks=["fraud", "credit"])
    seen = kit.store.load("order-1")
    ends = [(step, entry.record) for step, entry in seen.in_flight.items()]
    kit.claim("credit")
    before = kit.seen()

    assert kit.store.commit(Commit("order-1", [], version=seen.version, ends=ends)).verdict is Verdict.CONFLICT
    assert kit.seen() == before

    ends = [(step, entry.record) for step, entry in kit.store.load("order-1").in_flight.items()]
    assert kit.store.commit(Commit("order-1", [], version=seen.version, ends=ends)).verdict is Verdict.APPLIED
    assert kit.store.load("order-1").in_flight == {}
    assert kit.sweep_for(0.7) == []


def test_a_join_is_told_to_the_last_that_lands_on_it(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()
    kit.finish(asks=["fraud", "credit"])
    kit.claim("fraud")
    kit.claim("credit")
    epoch = kit.store.load("order-1").epoch

    first = kit.finish("fraud", arrivals={"ship": (1, 2)}, epoch=epoch)
    second = kit.finish("credit", arrivals={"ship": (1, 2)}, epoch=epoch)

    assert first == (Verdict.APPLIED, False)
    assert second == (Verdict.APPLIED, True)


def test_a_hundred_that_land_at_once_are_all_counted_and_one_is_the_last(kit: StoreKit) -> None:
    names = [f"step-{number}" for number in range(100)]
    builder = WorkflowBuilder("wide")
    builder.add_step("first", "worker")
    for name in names:
        builder.add_step(name, "worker", after=["first"])
    wide = builder.add_step("last", "worker", after=names).build(register=False)
    kit.begin(definition=wide)
    kit.claim("first", definition=wide)
    kit.finish("first", asks=names)
    for name in names:
        kit.claim(name, definition=wide)
    joined: list[bool] = []

    def land(mine: list[str]) -> None:
        store = kit.another()
        joined.extend(kit.finish(name, arrivals={"last": (1, 100)}, epoch=1, store=store).decision_due for name in mine)

    threads = [threading.Thread(target=land, args=(names[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(joined) == [False] * 99 + [True]
    assert kit.store.load("order-1").version == 102


def test_of_what_coalesces_the_first_to_land_is_told_that_a_decision_is_owed(kit: StoreKit) -> None:
    message = (CELERY, '{"headers": {"multiagents": "0:', '"}}')
    kit.begin()
    kit.claim()

    first = kit.finish(asks=["fraud", "credit"], coalesces=True, orchestration=message)
    kit.claim("fraud")
    sent = kit.messages()
    second = kit.finish("fraud", coalesces=True, orchestration=message)
    assert kit.messages() == sent
    kit.store.commit(Commit("order-1", [], decided=True))
    kit.claim("credit")
    third = kit.finish("credit", coalesces=True, orchestration=message)

    assert [each.decision_due for each in (first, second, third)] == [True, False, True]
    assert len(kit.messages()) == len(sent) + 1


def test_a_page_of_first_attempts_is_sent_out_once_whatever_else_is_committed(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()
    epoch = kit.store.load("order-1").epoch
    kit.finish(asks=["fraud"])

    def page(*steps: str, epoch: int = epoch) -> Verdict:
        state = {step: StepState(Activity(ActivityStatus.IN_FLIGHT, 1)) for step in steps}
        sent = [kit.message("order-1", step) for step in steps]
        return kit.store.commit(Commit("order-1", [], steps=state, dispatches=sent, fresh=steps, epoch=epoch)).verdict

    assert page("credit", "ship") is Verdict.APPLIED
    assert page("credit", "ship") is Verdict.CONFLICT
    assert page("fraud") is Verdict.CONFLICT
    assert page("charge", epoch=epoch + 1) is Verdict.CONFLICT
    assert {"fraud", "credit", "ship"} == set(kit.store.load("order-1").in_flight)


def test_of_two_that_change_the_error_of_a_run_the_second_looks_again(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()
    kit.finish(asks=["fraud", "credit"])
    claims = {step: kit.claim(step) for step in ("fraud", "credit")}

    kit.finish("fraud", header={"error": "{}"}, epoch=claims["fraud"].epoch)
    second = kit.finish("credit", header={"error": "{}"}, epoch=claims["credit"].epoch)

    assert second.verdict is Verdict.CONFLICT


@pytest.mark.parametrize("owing", [{"pending": True}, {"arrivals": {"ship": (1, 1)}}], ids=["pending", "joined"])
def test_a_decision_that_is_owed_stays_due_until_it_is_made(kit: StoreKit, owing: dict[str, Any]) -> None:
    kit.begin()
    kit.claim()
    kit.finish(**owing)

    assert kit.sweep_for(0.1) == []
    assert kit.wait_due() == [DueKind.DECISION.entry("order-1")]
    assert kit.sweep_for(0.1) == []
    assert kit.wait_due() == [DueKind.DECISION.entry("order-1")]

    kit.store.commit(Commit("order-1", [], version=2, decided=True))
    assert kit.sweep_for(0.7) == []


def test_the_orchestrators_message_goes_out_with_the_commit(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()
    kit.consume()

    kit.finish(pending=True, orchestration=(CELERY, '{"headers": {"multiagents": "0:', '"}}'))

    assert kit.messages() == ['{"headers": {"multiagents": "0:2"}}']


def test_a_commit_moves_the_run_in_the_listings(kit: StoreKit) -> None:
    kit.begin()
    assert (
        kit.store.visibility.count(RunStatus.RUNNING) == kit.store.visibility.count(RunStatus.RUNNING, "contract") == 1
    )

    kit.end()

    assert (
        kit.store.visibility.count(RunStatus.RUNNING) == kit.store.visibility.count(RunStatus.RUNNING, "contract") == 0
    )
    assert (
        kit.store.visibility.count(RunStatus.COMPLETED)
        == kit.store.visibility.count(RunStatus.COMPLETED, "contract")
        == 1
    )
    assert kit.store.visibility.count(RunStatus.COMPLETED, "other") == 0


def test_a_run_that_is_over_becomes_due_to_be_forgotten_when_its_retention_ends(kit: StoreKit) -> None:
    kit.begin()
    kit.end(retention_ms=400)

    assert kit.sweep_for(0.05) == []
    assert kit.wait_due() == [DueKind.EXPIRY.entry("order-1")]


def test_a_run_becomes_due_at_its_deadline_unless_it_is_over_by_then(kit: StoreKit) -> None:
    kit.begin("order-1", deadline_ms=300)
    kit.begin("order-2", deadline_ms=300)
    kit.end("order-2", retention_ms=60_000)

    assert kit.sweep_for(0.05) == []
    assert kit.wait_due() == [DueKind.DEADLINE.entry("order-1")]
    assert kit.sweep_for(0.1) == []


def test_S5_a_run_that_comes_back_from_its_end_is_not_forgotten(kit: StoreKit) -> None:
    kit.begin()
    kit.end(status="compensated", retention_ms=100)
    version = kit.store.load("order-1").version

    kit.store.commit(
        Commit(
            "order-1",
            [said("compensating")],
            header={"status": "compensating"},
            version=version,
            moved=("contract", "compensated", "compensating"),
            retention_ms=-1,
        )
    )

    assert kit.sweep_for(0.2) == []
    assert kit.store.load("order-1").state.status is RunStatus.COMPENSATING
    assert kit.store.visibility.list_runs(statuses=[RunStatus.COMPENSATING]).transaction_ids == ["order-1"]


def test_a_commit_that_is_sent_twice_counts_once(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()
    assert kit.finish(result={"stock": 1}, asks=["fraud"], arrivals={"ship": (1, 2)}).verdict is Verdict.APPLIED
    before = kit.seen()

    again = kit.finish(result={"stock": 1}, asks=["fraud"], arrivals={"ship": (1, 2)})

    assert again == (Verdict.LATE, False)
    assert kit.seen() == before
