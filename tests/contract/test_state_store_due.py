"""What every state store does about time: timers, leases, and messages that were lost.

One suite over memory and Redis. Waits for what has to happen end when it does; waits for what must not happen are short
beside the time after which it would.
"""

from __future__ import annotations

import pytest

from multiagents.clock import to_ms
from multiagents.names import Correlation, Direction
from multiagents.state_store.records import OUTBOX_GRACE_MS, Commit, Delivery, Dispatch, DueKind, Verdict
from multiagents.workflow.builder import WorkflowBuilder
from tests.support.store_kit import LEASE, StoreKit

#: Three partitions are one partition and more.
pytestmark = pytest.mark.parametrize("kit", ["memory", "redis-3-partitions"], indirect=True)

ATTEMPT = DueKind.ATTEMPT.entry("order-1", "reserve", "d1")
SOMEBODY_ELSES = '{"headers": {"task": "send_newsletter"}}'


def attempt(number: int = 1) -> Correlation:
    return Correlation("order-1", "reserve", Direction.DO, number)


def record(kit: StoreKit, step: str = "reserve", transaction_id: str = "order-1") -> str:
    found: str = kit.store.load(transaction_id).in_flight[step].record
    return found


# --- what waits in a broker list -------------------------------------------------------------------------------------


def test_what_waits_in_a_list_is_found_by_the_name_of_the_list_until_it_is_claimed(kit: StoreKit) -> None:
    ward = kit.message("order-1", "reserve")._replace(target="urgent.ward")
    for number in (3, 1, 2):
        kit.begin(f"order-{number}", dispatch=ward)
    kit.begin("order-4")

    members = {target: {entry.member for entry in found} for target, found in kit.store.waiting(".ward").items()}
    assert members == {
        "urgent.ward": {DueKind.ATTEMPT.entry(f"order-{number}", "reserve", "d1") for number in (1, 2, 3)}
    }
    assert kit.store.waiting(".nobody") == {}
    for number in (1, 2, 3):
        kit.claim(transaction_id=f"order-{number}")
    assert kit.store.waiting(".ward") == {}


# --- timers ----------------------------------------------------------------------------------------------------------


def test_a_timer_is_due_when_its_time_has_come_and_then_goes_out(kit: StoreKit) -> None:
    kit.begin(dispatch=Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=400))
    assert kit.messages() == []
    assert kit.sweep_for(0.05) == []

    assert kit.wait_due() == [ATTEMPT]
    waiting = record(kit)
    assert kit.store.dispatch("order-1", kit.message("order-1", "reserve"), waiting)

    assert len(kit.messages()) == 1
    assert kit.store.load("order-1").in_flight["reserve"].delivery is Delivery.PUSH
    assert kit.store.load("order-1").version == 1
    assert kit.sweep_for(0.6) == []
    assert kit.claim().context == {"total": 5}


def test_a_timer_says_when_it_is_due_and_a_commit_moves_it(kit: StoreKit) -> None:
    kit.begin(dispatch=Dispatch("reserve", "d1", Delivery.SLEEP, delay_ms=60_000))
    seen = kit.store.load("order-1")
    before = seen.in_flight["reserve"]
    assert to_ms(seen.now) + 59_000 < before.timer_ms == before.since_ms + 60_000
    at = before.since_ms + 400
    moved = Commit(
        "order-1",
        [],
        ends=[("reserve", before.record)],
        dispatches=[Dispatch("reserve", "d1", Delivery.SLEEP, due_ms=at)],
    )

    assert kit.store.commit(moved).verdict is Verdict.APPLIED
    assert kit.store.commit(moved).verdict is Verdict.CONFLICT

    assert kit.store.load("order-1").in_flight["reserve"].timer_ms == at
    assert kit.sweep_for(0.05) == []
    assert kit.wait_due() == [ATTEMPT]
    assert to_ms(kit.store.now()) >= at


def test_a_commit_moves_the_deadline_of_a_run(kit: StoreKit) -> None:
    kit.begin(deadline_ms=60_000)

    kit.store.commit(Commit("order-1", [], deadline_ms=400))

    assert kit.sweep_for(0.05) == []
    assert kit.wait_due() == [DueKind.DEADLINE.entry("order-1")]


def test_an_attempt_goes_out_only_as_it_was_seen(kit: StoreKit) -> None:
    kit.begin(dispatch=Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=1))
    waiting = record(kit)
    message = kit.message("order-1", "reserve")
    assert not kit.store.dispatch("order-2", message, waiting)
    assert not kit.store.dispatch("order-1", message, f"{waiting}x")

    assert kit.store.dispatch("order-1", message, waiting)
    assert not kit.store.dispatch("order-1", message, waiting)

    assert len(kit.messages()) == 1


def test_S1b_an_attempt_that_was_given_back_half_way_is_known_as_begun_and_no_other_one_is(kit: StoreKit) -> None:
    kit.begin()
    first = kit.store.load("order-1").in_flight["reserve"]
    assert not kit.store.load("order-1").is_begun(first)

    waits = Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=1)
    assert not kit.store.dispatch("order-1", waits, f"{first.record}x", begun=True)
    assert kit.store.load("order-1").begun == {}
    assert kit.store.dispatch("order-1", waits, first.record, begun=True)
    assert kit.store.dispatch("order-1", kit.message("order-1", "reserve"), record(kit))

    snapshot = kit.store.load("order-1")
    assert snapshot.is_begun(snapshot.in_flight["reserve"])
    assert not snapshot.is_begun(snapshot.in_flight["reserve"]._replace(attempt_key="d2"))


def test_an_attempt_that_is_sent_again_keeps_when_it_was_first_sent(kit: StoreKit) -> None:
    kit.begin()
    first = kit.store.load("order-1").in_flight["reserve"]
    kit.sleep(0.01)

    again = kit.message("order-1", "reserve", first_ms=first.first_ms)._replace(sent=2)
    kit.store.dispatch("order-1", again, first.record)

    second = kit.store.load("order-1").in_flight["reserve"]
    assert (first.number, second.number, second.first_ms) == (1, 2, first.first_ms)
    assert second.since_ms >= first.since_ms + 10


@pytest.mark.parametrize("sent", [0, 1, 3])
def test_what_the_broker_keeps_says_how_often_it_was_sent(kit: StoreKit, sent: int) -> None:
    kit.begin(dispatch=Dispatch("reserve", "d1", Delivery.OUTBOX, target="queue", sent=sent))

    found = kit.store.load("order-1").in_flight["reserve"]

    assert (found.number, found.timer_ms) == (sent, 0)
    assert kit.store.take_due()[0] == []


@pytest.mark.parametrize(
    ("dispatch", "seconds"),
    [
        (Dispatch("reserve", "d1", Delivery.OUTBOX, target="queue"), OUTBOX_GRACE_MS / 1000),
        (Dispatch("reserve", "d1", Delivery.LINK), 2.0),
        (Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=7_000), 7.0),
    ],
    ids=["outbox", "link", "timer"],
)
def test_what_the_broker_does_not_hold_is_looked_at_in_time(kit: StoreKit, dispatch: Dispatch, seconds: float) -> None:
    kit.begin(dispatch=dispatch)

    assert kit.store.take_due() == ([], pytest.approx(seconds, abs=0.5))


def test_nothing_is_ever_due_where_nothing_was_started(kit: StoreKit) -> None:
    assert kit.store.take_due() == ([], 3600.0)


def test_an_answer_from_outside_is_waited_for_as_long_as_declared(kit: StoreKit) -> None:
    now = to_ms(kit.store.now())
    kit.begin(dispatch=Dispatch("reserve", "d1", Delivery.EXTERNAL, close_ms=now + 400))
    kit.begin("order-2", dispatch=Dispatch("reserve", "d1", Delivery.EXTERNAL))

    assert kit.sweep_for(0.05) == []
    assert kit.wait_due() == [ATTEMPT]


def test_a_step_that_has_to_start_in_time_is_looked_at_then(kit: StoreKit) -> None:
    kit.begin(dispatch=kit.message("order-1", "reserve", start_within_ms=400))

    assert kit.sweep_for(0.05) == []
    assert kit.wait_due() == [DueKind.UNCLAIMED.entry("order-1", "reserve", "d1")]


def test_an_entry_is_put_off_or_dropped(kit: StoreKit) -> None:
    kit.begin(dispatch=Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=1))
    assert kit.wait_due() == [ATTEMPT]

    kit.store.postpone(ATTEMPT, "order-1", 400)
    assert kit.sweep_for(0.05) == []
    assert kit.wait_due(0.9) == [ATTEMPT]

    kit.store.discard(ATTEMPT, "order-1")
    kit.store.postpone(ATTEMPT, "order-1", 0)
    assert kit.sweep_for(0.6) == []


def test_G4_a_run_that_nothing_looks_after_is_found(kit: StoreKit) -> None:
    kit.begin()
    kit.begin("order-2", dispatch=Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=1))
    kit.begin("order-3", dispatch=Dispatch("reserve", "d1", Delivery.EXTERNAL))
    kit.begin("order-4", dispatch=Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=1))
    kit.end("order-4")
    kit.begin("order-5")
    kit.claim(transaction_id="order-5")
    kit.finish(transaction_id="order-5", pending=True)
    assert kit.store.visibility.unattended() == []

    kit.store.discard(DueKind.ATTEMPT.entry("order-2", "reserve", "d1"), "order-2")

    assert kit.store.visibility.unattended() == ["order-2"]


# --- leases ----------------------------------------------------------------------------------------------------------


def test_what_is_due_is_leased_to_one_who_asks(kit: StoreKit) -> None:
    names = [f"order-{number}" for number in range(20)]
    for name in names:
        kit.begin(name, dispatch=Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=1))
    kit.sleep(0.01)
    sweepers = [kit.another() for _ in range(4)]

    found = [entry for sweeper in sweepers for entry in sweeper.take_due()[0]]

    assert sorted(entry.transaction_id for entry in found) == sorted(names)
    assert {(entry.kind, entry.step, entry.attempt_key) for entry in found} == {("a", "reserve", "d1")}


def test_what_a_sweeper_took_and_did_not_handle_is_due_again(kit: StoreKit) -> None:
    kit.begin(dispatch=Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=1))

    assert kit.wait_due() == [ATTEMPT]
    assert kit.sweep_for(0.1) == []
    assert kit.wait_due() == [ATTEMPT]


def test_no_more_is_taken_than_asked_for(kit: StoreKit) -> None:
    for number in range(30):
        kit.begin(f"order-{number}", dispatch=Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=1))
    kit.sleep(0.01)
    most = 5 * kit.keys.partitions

    taken = [len(kit.store.take_due(limit=5)[0]) for _ in range(30)]

    assert max(taken) <= most
    assert sum(taken) == 30


def test_a_step_over_its_limit_is_due_a_second_later_though_its_lease_is_renewed(kit: StoreKit) -> None:
    long = kit.another(lease=60)
    kit.begin()
    kit.store = long
    kit.claim(timeout=0.2)
    long.renew(attempt(), "owner-1")

    assert long.take_due() == ([], pytest.approx(1.2, abs=0.5))


def test_a_step_without_its_heartbeat_is_due_though_its_lease_is_renewed(kit: StoreKit) -> None:
    kit.store = kit.another(lease=60)
    kit.begin()
    kit.claim(heartbeat_timeout=5)
    assert kit.store.take_due() == ([], pytest.approx(5, abs=0.5))

    kit.store.renew(attempt(), "owner-1", beat=False)

    assert kit.store.take_due() == ([], pytest.approx(5, abs=0.5))


def test_a_lease_whose_worker_is_known_to_be_dead_is_due_at_once(kit: StoreKit) -> None:
    kit.begin()
    assert not kit.store.expire(attempt())
    kit.claim()
    assert not kit.store.expire(attempt(2))

    assert kit.store.expire(attempt())

    assert kit.due() == [ATTEMPT]
    kit.finish()
    assert not kit.store.expire(attempt())


def test_how_a_worker_came_to_its_end_is_told_of_that_attempt_alone(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()

    kit.store.expire(attempt(), "was killed by signal 9 (SIGKILL)")

    snapshot = kit.store.load("order-1")
    found = snapshot.in_flight["reserve"]
    assert snapshot.death_of(found) == "was killed by signal 9 (SIGKILL)"
    assert snapshot.death_of(found._replace(attempt_key="d2")) == ""


def test_G5_after_an_outage_every_lease_is_extended_once(kit: StoreKit) -> None:
    for number in range(6):
        kit.begin(f"order-{number}")
        kit.claim(transaction_id=f"order-{number}")
    kit.begin("timer", dispatch=Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=1))
    assert kit.due() in ([], [DueKind.ATTEMPT.entry("timer", "reserve", "d1")])
    kit.sleep(0.6)

    # All leases have run out, and nobody has died: nobody could renew.
    assert kit.due() == [DueKind.ATTEMPT.entry("timer", "reserve", "d1")]
    for number in range(3):
        assert kit.store.renew(Correlation(f"order-{number}", "reserve", Direction.DO, 1), "owner-1").alive
    assert kit.sweep_for(0.1) == []
    kit.store.discard(DueKind.ATTEMPT.entry("timer", "reserve", "d1"), "timer")

    # Those who did not come back are dead after all.
    found: list[str] = []
    while len(found) < 3:
        for number in range(3):
            assert kit.store.renew(Correlation(f"order-{number}", "reserve", Direction.DO, 1), "owner-1").alive
        found += kit.sweep_for(0.03)
    assert sorted(found) == [DueKind.ATTEMPT.entry(f"order-{number}", "reserve", "d1") for number in (3, 4, 5)]


def test_G5_sweeps_that_are_merely_slow_do_not_keep_the_dead_alive(kit: StoreKit) -> None:
    kit.begin()
    kit.claim()
    kit.due()

    # Each pause is as long as an outage; only the first of them counts for this lease.
    kit.sleep(0.6)
    assert kit.due() == []
    kit.sleep(0.6)
    assert kit.due() == [ATTEMPT]


def test_a_dead_worker_is_not_spared_by_an_outage(kit: StoreKit) -> None:
    kit.due()
    kit.sleep(0.6)
    kit.due()
    kit.begin()
    kit.claim()
    kit.store.expire(attempt())
    kit.sleep(0.6)

    assert kit.due() == [ATTEMPT]


# --- lost or waiting -------------------------------------------------------------------------------------------------


#: The lists are looked at twice a second, and who took a message has a lease's time.
LONG_ENOUGH = 1.3


def test_a_message_that_waits_is_never_due(kit: StoreKit) -> None:
    kit.begin()

    assert kit.sweep_for(LONG_ENOUGH) == []
    assert len(kit.messages()) == 1


def test_a_message_that_was_taken_and_not_claimed_is_due_after_a_lease(kit: StoreKit) -> None:
    kit.begin()
    kit.consume()

    assert kit.sweep_for(0.1) == []
    assert kit.wait_due() == [ATTEMPT]

    # Sent again, it waits again.
    assert kit.store.dispatch("order-1", kit.message("order-1", "reserve"), record(kit))
    assert kit.sweep_for(LONG_ENOUGH) == []


def test_a_message_that_was_taken_and_claimed_is_not_lost(kit: StoreKit) -> None:
    kit.begin()
    kit.consume()
    kit.sweep_for(0.3)

    kit.claim()
    for _ in range(10):
        assert kit.sweep_for(0.1) == []
        kit.store.renew(attempt(), "owner-1")


def one_partition(kit: StoreKit, count: int) -> list[str]:
    """Ids of runs that share a partition, and so a count of messages."""
    names = (f"order-{number}" for number in range(1_000))
    return [name for name in names if kit.keys.partition_of(name) == 0][:count]


def test_in_a_backlog_only_what_left_the_list_is_lost(kit: StoreKit) -> None:
    first, second, third = one_partition(kit, 3)
    for name in (first, second, third):
        kit.begin(name, dispatch=kit.message(name, "reserve"))
    assert f"{first}/reserve" in kit.consume()

    assert kit.wait_due() == [DueKind.ATTEMPT.entry(first, "reserve", "d1")]
    assert len(kit.messages()) == 2


def test_other_peoples_messages_do_not_hide_what_was_lost(kit: StoreKit) -> None:
    first, second = one_partition(kit, 2)
    kit.begin(first, dispatch=kit.message(first, "reserve"))
    for _ in range(80):
        kit.publish(SOMEBODY_ELSES)
    kit.begin(second, dispatch=kit.message(second, "reserve"))
    kit.consume()

    assert kit.wait_due() == [DueKind.ATTEMPT.entry(first, "reserve", "d1")]


@pytest.mark.parametrize(("count", "size"), [(1_100, 10), (5, 100_000)], ids=["many", "large"])
def test_of_a_queue_of_other_peoples_messages_that_does_not_tell_a_few_are_sent_again(
    kit: StoreKit, count: int, size: int
) -> None:
    for _ in range(count):
        kit.publish(SOMEBODY_ELSES + " " * size)
    names = one_partition(kit, 25)
    for name in names:
        kit.begin(name, dispatch=kit.message(name, "reserve"))

    first = kit.wait_due()

    # Those that have waited longest; the others have their turn a lease later.
    assert sorted(first) == sorted(DueKind.ATTEMPT.entry(name, "reserve", "d1") for name in names[:10])
    for name in names[:10]:
        assert kit.store.dispatch(name, kit.message(name, "reserve"), record(kit, transaction_id=name))
    rest = {DueKind.ATTEMPT.entry(name, "reserve", "d1") for name in names[10:]}
    assert set(kit.wait_due()) <= rest
    found: set[str] = set()
    until = kit.store.now().timestamp() + 10
    while not found >= rest and kit.store.now().timestamp() < until:
        found |= set(kit.sweep_for(LEASE / 2))
    assert found >= rest


def test_a_queue_that_does_not_tell_gets_ever_fewer_copies_of_what_waits_in_it(kit: StoreKit) -> None:
    for _ in range(200):
        kit.publish(SOMEBODY_ELSES)
    kit.begin()
    copies = 0
    first = kit.store.load("order-1").in_flight["reserve"].first_ms

    for _ in range(12):
        kit.sleep(LEASE)
        if kit.due() == [ATTEMPT]:
            copies += 1
            kit.store.dispatch("order-1", kit.message("order-1", "reserve", first_ms=first), record(kit))

    assert 1 <= copies <= 4


def test_a_queue_that_tells_again_is_believed(kit: StoreKit) -> None:
    for _ in range(200):
        kit.publish(SOMEBODY_ELSES)
    kit.begin()
    kit.due()
    for _ in range(200):
        kit.consume()

    assert kit.sweep_for(LONG_ENOUGH) == []
    kit.consume()
    assert kit.wait_due() == [ATTEMPT]


def test_what_a_living_worker_holds_is_not_lost_until_it_says_so_no_more(kit: StoreKit) -> None:
    kit.begin()
    kit.consume()
    kit.sweep_for(0.1)

    for _ in range(8):
        kit.store.hold([attempt()])
        assert kit.sweep_for(LEASE / 3) == []

    assert kit.wait_due() == [ATTEMPT]


def test_who_holds_an_attempt_that_is_claimed_or_over_holds_nothing(kit: StoreKit) -> None:
    kit.begin()
    kit.begin("order-2")
    kit.consume()
    kit.sweep_for(0.1)
    kit.claim()
    kit.end("order-2")
    other = Correlation("order-2", "reserve", Direction.DO, 1)

    found: list[str] = []
    while not found:
        kit.store.hold([attempt(), other, Correlation("nobody", "reserve", Direction.DO, 1)])
        found = kit.sweep_for(0.1)

    assert found == [ATTEMPT]  # its lease is over all the same


# --- who wakes -------------------------------------------------------------------------------------------------------


def test_one_of_those_who_ask_is_told_when_something_is_due(kit: StoreKit) -> None:
    kit.begin(dispatch=Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=7_000))
    stores = {name: kit.another(lease=60) for name in ("one", "two", "three")}

    told = {name: store.take_due(waker=name)[1] for name, store in stores.items()}
    again = {name: store.take_due(waker=name)[1] for name, store in reversed(stores.items())}

    assert told == {"one": pytest.approx(7, abs=1), "two": 3600.0, "three": 3600.0}
    assert again == {"one": pytest.approx(7, abs=1), "two": 3600.0, "three": 3600.0}
    assert stores["three"].take_due()[1] == pytest.approx(7, abs=1)  # who takes no turn is always told


def test_another_wakes_when_who_did_is_no_more(kit: StoreKit) -> None:
    kit.begin(dispatch=Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=60_000))
    assert kit.store.take_due(waker="one")[1] < 3600
    assert kit.store.take_due(waker="two")[1] == 3600

    kit.sleep(LEASE)

    assert kit.store.take_due(waker="two")[1] < 3600
    assert kit.store.take_due(waker="one")[1] == 3600


# --- starts that have waited -----------------------------------------------------------------------------------------

LOW = "celery\x06\x163"


def starts(kit: StoreKit, count: int) -> list[str]:
    """Runs whose first steps wait in the list of starts; the first came first."""
    names = one_partition(kit, count)
    for name in names:
        kit.begin(name, dispatch=kit.message(name, "reserve", name=LOW))
    return names


def later(kit: StoreKit, seconds: float) -> None:
    """Let time pass in which somebody sweeps, and starts go on."""
    until = kit.store.now().timestamp() + seconds
    while kit.store.now().timestamp() < until:
        kit.sleep(0.25)
        kit.store.take_due(starts="\x06\x163", limit=1)


def test_a_start_that_has_waited_goes_on_behind_what_waits_before_it(kit: StoreKit) -> None:
    kit.publish(SOMEBODY_ELSES)
    (name,) = starts(kit, 1)
    later(kit, 1)
    assert len(kit.messages(LOW)) == 1

    later(kit, 3.5)

    assert kit.messages(LOW) == []
    assert [f"{name}/reserve" in message for message in kit.messages()] == [False, True]
    found = kit.store.load(name).in_flight["reserve"]
    assert (found.target, found.number) == ("celery", 1)
    assert '"multiagents": "0:1"' in kit.messages()[1]
    # It waits there as any other does.
    assert kit.sweep_for(LONG_ENOUGH) == []
    kit.consume()
    kit.consume()
    assert kit.wait_due() == [DueKind.ATTEMPT.entry(name, "reserve", "d1")]
    kit.claim(transaction_id=name)


def test_starts_go_on_a_few_at_a_time_so_that_an_undo_passes_a_backlog_of_them(kit: StoreKit) -> None:
    kit.publish(SOMEBODY_ELSES)
    names = starts(kit, 35)
    later(kit, 5)
    assert len(kit.messages(LOW)) == 25

    for name in names[:10]:
        kit.claim(transaction_id=name)
    later(kit, 1)

    assert len(kit.messages(LOW)) == 15


def decision(kit: StoreKit, name: str) -> None:
    """A run that another process has to decide first: its message, of no attempt, waits in the list of starts."""
    message = f'{{"root_id": "{name}", "headers": {{"multiagents": "0:'
    kit.begin(
        name,
        dispatch=Dispatch("reserve", "d1", Delivery.SLEEP, delay_ms=600_000),
        pending=True,
        orchestration=(LOW, message, '"}}'),
    )


def test_a_start_that_another_process_has_to_decide_goes_on_likewise(kit: StoreKit) -> None:
    kit.publish(SOMEBODY_ELSES)
    names = one_partition(kit, 15)
    for name in names:
        decision(kit, name)
    later(kit, 1)
    assert len(kit.messages(LOW)) == 15

    later(kit, 4)
    assert [len(kit.messages(LOW)), len(kit.messages())] == [5, 11]
    for name in names:
        snapshot = kit.store.load(name)
        kit.store.commit(Commit(name, [], version=snapshot.version, decided=True))
    later(kit, 1)

    assert [len(kit.messages(LOW)), len(kit.messages())] == [0, 16]


def test_a_start_that_nobody_waits_for_any_more_keeps_none_behind_it(kit: StoreKit) -> None:
    kit.publish(SOMEBODY_ELSES)
    over, left = one_partition(kit, 2)
    starts(kit, 2)
    kit.end(over)

    later(kit, 4)

    assert kit.messages(LOW) == []
    assert kit.store.load(left).in_flight["reserve"].target == "celery"


def test_starts_that_nothing_keeps_waiting_stay_where_they_are(kit: StoreKit) -> None:
    starts(kit, 3)

    later(kit, 5)

    assert len(kit.messages(LOW)) == 3


def test_others_tasks_among_the_starts_stay_where_they_are(kit: StoreKit) -> None:
    kit.publish(SOMEBODY_ELSES)
    kit.publish(SOMEBODY_ELSES, LOW)
    starts(kit, 2)
    kit.publish(SOMEBODY_ELSES, LOW)

    later(kit, 5)

    assert kit.messages(LOW) == [SOMEBODY_ELSES] * 2
    assert len(kit.messages()) == 3


def test_each_list_is_judged_by_its_own_numbers(kit: StoreKit) -> None:
    first, second = one_partition(kit, 2)
    kit.begin(first, dispatch=kit.message(first, "reserve", name="celery\x06\x163"))
    kit.begin(second, dispatch=kit.message(second, "reserve"))
    kit.consume("celery\x06\x163")

    assert kit.wait_due() == [DueKind.ATTEMPT.entry(first, "reserve", "d1")]


def test_a_message_that_was_given_back_counts_as_waiting(kit: StoreKit) -> None:
    first, second = one_partition(kit, 2)
    for name in (first, second):
        kit.begin(name, dispatch=kit.message(name, "reserve"))
    kit.consume()
    kit.consume()

    # A worker that shuts down gives both back at the consuming end, the first of them last.
    kit.give_back(f'{{"headers": {{"multiagents": "0:{2}"}}}}')
    kit.give_back(f'{{"headers": {{"multiagents": "0:{1}"}}}}')

    assert kit.sweep_for(LONG_ENOUGH) == []


def test_a_commit_looks_after_what_it_sends_before_anybody_can_lose_it(kit: StoreKit) -> None:
    flow = WorkflowBuilder("pair").add_step("one", "first").add_step("two", "second").build(register=False)
    kit.begin(definition=flow)
    kit.consume()
    kit.claim("one", definition=flow)
    kit.finish("one", asks=["two"])
    kit.consume()

    assert kit.wait_due() == [DueKind.ATTEMPT.entry("order-1", "two", "d1")]
    assert kit.store.commit(Commit("order-1", [], version=2, ends=[("two", record(kit, "two"))])).verdict == "applied"
    assert kit.sweep_for(0.6) == []
