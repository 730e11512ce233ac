"""Ids of runs come back, and a run never does (rule S32). One suite over memory and Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from multiagents.events import CommandEvent
from multiagents.names import Correlation, Direction, identity_of
from multiagents.state_store.records import (
    Call,
    CallVerdict,
    ClaimRefused,
    Commit,
    Delivery,
    Dispatch,
    DueKind,
    Verdict,
    record_prefix,
)
from multiagents.workflow.state import RunStatus
from tests.support.store_kit import FLOW, RedisKit, StoreKit

RUN = "order-1"
OLD, NEW = "old-one", "new-one"
ENDED = [status for status in RunStatus if status.is_end]


def replaced(kit: StoreKit) -> None:
    kit.begin(nonce=NEW, call="call-2", replaces=ENDED)


def deleted(kit: StoreKit) -> None:
    kit.store.delete(identity_of(RUN, OLD), status=RunStatus.COMPLETED, tombstone="stone-1")
    kit.begin(nonce=NEW)


def forgotten(kit: StoreKit) -> None:
    assert kit.store.forget(identity_of(RUN, OLD))
    kit.begin(nonce=NEW)


#: Every way in which an id comes back.
WAYS = [replaced, deleted, forgotten]


def attempt(nonce: str) -> Correlation:
    return Correlation(RUN, "reserve", Direction.DO, 1, nonce)


def take(kit: StoreKit, nonce: str, owner: str) -> Any:
    return kit.store.claim(attempt(nonce), FLOW.content_hash, owner=owner, worker="w", timeout=None)


def claims(kit: StoreKit) -> bool:
    with pytest.raises(ClaimRefused, match="of an earlier run with this id"):
        take(kit, OLD, "late")
    return True


def renews(kit: StoreKit) -> bool:
    return not kit.store.renew(attempt(OLD), "worker").alive


def commits_what_it_claimed(kit: StoreKit) -> bool:
    answers = ("reserve", record_prefix("d1", Delivery.CLAIMED, "worker"))
    return kit.store.commit(Commit(RUN, [], answers=answers, nonce=OLD)).verdict is Verdict.MISSING


def commits_what_it_loaded(kit: StoreKit) -> bool:
    seen = kit.store.load(RUN)
    commits = [
        Commit(RUN, [], header={"stop": "1"}, nonce=OLD, version=seen.version),
        Commit(RUN, [], header={"stop": "1"}, nonce=OLD, epoch=seen.epoch),
        Commit(RUN, [], header={"stop": "1"}, nonce=OLD),
    ]
    return {kit.store.commit(commit).verdict for commit in commits} == {Verdict.MISSING}


def goes_on_with_its_calls(kit: StoreKit) -> bool:
    journal, call = kit.store.journal, Call("lm", "h", 1)
    return (
        journal.open(attempt(OLD), "worker", {}).lost
        and journal.begin(attempt(OLD), "worker", call).verdict is CallVerdict.LOST
        and not journal.finish(attempt(OLD), "worker", "1", "late")
        and not journal.refuse(attempt(OLD), "worker", ["1"], "late")
        and not journal.restart(identity_of(RUN, OLD), "reserve")
    )


def sends_out(kit: StoreKit) -> bool:
    again = Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=1)
    record = kit.store.load(RUN).in_flight["reserve"].record
    return not kit.store.dispatch(identity_of(RUN, OLD), again, record)


def gives_up(kit: StoreKit) -> bool:
    return not kit.store.expire(attempt(OLD))


def forgets(kit: StoreKit) -> bool:
    return not kit.store.forget(identity_of(RUN, OLD))


def deletes(kit: StoreKit) -> bool:
    verdict = kit.store.delete(identity_of(RUN, OLD), status=RunStatus.RUNNING, tombstone="stone-2")
    return verdict is Verdict.MISSING


def handles_what_is_due(kit: StoreKit) -> bool:
    identity = identity_of(RUN, OLD)
    entries = [kind.entry(identity) for kind in (DueKind.DECISION, DueKind.DEADLINE, DueKind.EXPIRY)]
    for entry in [*entries, DueKind.ATTEMPT.entry(identity, "reserve", "d1")]:
        kit.store.postpone(entry, RUN, 0)
        kit.store.discard(entry, RUN)
    return True


#: Everything that an old message, worker, sweep or person may still do in the name of the run that is gone.
VERBS = [
    claims,
    renews,
    commits_what_it_claimed,
    commits_what_it_loaded,
    goes_on_with_its_calls,
    sends_out,
    gives_up,
    forgets,
    deletes,
    handles_what_is_due,
]


@pytest.mark.parametrize("claimed", [False, True], ids=["waiting", "claimed"])
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_S32_who_speaks_for_an_earlier_run_has_no_say_in_the_one_that_has_its_id(
    kit: StoreKit, way: Callable[[StoreKit], None], verb: Callable[[StoreKit], bool], claimed: bool
) -> None:
    kit.begin(nonce=OLD)
    kit.end()
    way(kit)
    if claimed:
        take(kit, NEW, "worker")
    before = kit.seen()

    refused = verb(kit)

    assert refused
    assert kit.seen() == before
    assert kit.store.load(RUN).state.nonce == NEW


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_S32_nothing_that_an_earlier_run_had_to_look_after_is_due_for_the_one_that_has_its_id(
    kit: StoreKit, way: Callable[[StoreKit], None]
) -> None:
    kit.begin(nonce=OLD, dispatch=kit.message(RUN, "reserve", start_within_ms=1), deadline_ms=1, pending=True)
    kit.end(retention_ms=1)
    way(kit)
    kit.sleep(0.01)

    assert [member for member in kit.sweep_for(1.2) if OLD in member] == []
    assert [entry.nonce for entries in kit.store.waiting("").values() for entry in entries] == [NEW]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_S25_S32_the_next_run_with_an_id_is_another_generation_of_it(
    kit: StoreKit, way: Callable[[StoreKit], None]
) -> None:
    kit.begin(nonce=OLD)
    kit.end()
    way(kit)

    assert kit.store.load(RUN).generation == take(kit, NEW, "worker").generation == 2


def test_S25_of_the_ids_that_are_gone_the_last_are_remembered(kit: StoreKit, monkeypatch: pytest.MonkeyPatch) -> None:
    where = "redis.store" if isinstance(kit, RedisKit) else "memory.tables"
    monkeypatch.setattr(f"multiagents.state_store.{where}.MAX_GENERATIONS", 2)
    names = [f"order-{n}" for n in range(100, 200) if kit.keys.partition_of(f"order-{n}") == 0][:3]
    for name in names:
        kit.begin(name, nonce=OLD)
        kit.end(name)
        kit.store.forget(identity_of(name, OLD))

    for name in names:
        kit.begin(name, nonce=NEW)

    assert [kit.store.load(name).generation for name in names] == [1, 2, 2]


def test_S32_a_command_in_the_history_says_of_which_run_it_is(kit: StoreKit) -> None:
    kit.begin(nonce=OLD)

    asked = [event for event in kit.store.history(RUN) if isinstance(event, CommandEvent)]
    assert [event.nonce for event in asked] == [OLD]
