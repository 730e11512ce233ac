"""A start with an id that is taken: who wins, and what goes. One suite over memory and Redis."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from multiagents.events import ErrorInfo
from multiagents.names import Correlation, Direction
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.payloads.codecs.gzip import GzipCodec
from multiagents.state_store.records import ClaimRefused, Verdict
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.state import Activity, ActivityStatus, RunStatus, StepState
from tests.support.store_kit import RedisKit, StoreKit

OTHER = WorkflowBuilder("other").add_step("reserve", "reserve_stock").build(register=False)
ENDED = [status for status in RunStatus if status.is_end]
EVERY = list(RunStatus)


def ids(kit: StoreKit, **filters: Any) -> list[str]:
    return list(kit.store.visibility.list_runs(**({"statuses": EVERY} | filters)).transaction_ids)


def test_a_run_that_has_ended_is_replaced_with_all_that_belonged_to_it(kit: StoreKit) -> None:
    kit.begin(dispatch=kit.message("order-1", "reserve", start_within_ms=60_000))
    kit.claim()
    kit.finish(result={"a": 1}, context={"a": 1}, asks=["fraud", "credit"])
    kit.end()

    started = kit.begin(definition=OTHER, digest="digest-2", input={"total": 6}, call="call-1", replaces=ENDED)

    assert started.created
    assert (started.workflow, started.input_digest) == ("other", "digest-2")
    snapshot, payloads = kit.store.load("order-1"), kit.store.payloads("order-1")
    assert (snapshot.state.status, snapshot.definition) == (RunStatus.RUNNING, OTHER)
    assert (snapshot.version, snapshot.epoch, set(snapshot.in_flight)) == (1, 1, {"reserve"})
    assert (payloads.input, payloads.context, payloads.results) == ({"total": 6}, {}, {})
    assert len(kit.store.history("order-1")) == 2
    assert ids(kit, statuses=[RunStatus.COMPLETED]) == ids(kit, workflow="contract") == []
    assert ids(kit) == ids(kit, workflow="other") == ["order-1"]
    assert not [entry for entry in kit.sweep_for(1.2) if entry[0] in "xq"]


def test_a_run_that_goes_on_or_ended_otherwise_than_asked_for_is_not_replaced(kit: StoreKit) -> None:
    kit.begin()
    assert not kit.begin(digest="digest-2", call="call-1", replaces=ENDED).created
    kit.end()
    before = kit.seen()

    refused = kit.begin(digest="digest-2", call="call-2", replaces=[RunStatus.FAILED, RunStatus.COMPENSATED])

    assert (refused.created, refused.workflow, refused.input_digest) == (False, "contract", "digest-1")
    assert kit.seen() == before


def test_a_start_that_replaces_and_is_sent_twice_gives_one_new_run(kit: StoreKit) -> None:
    kit.begin()
    kit.end()
    assert kit.begin(call="call-1", replaces=ENDED).created
    kit.end(status="failed")
    before = kit.seen()

    again = kit.another()
    repeated = kit.begin(call="call-1", replaces=ENDED, store=again)

    assert repeated.created
    assert kit.seen() == before


def test_a_worker_of_the_replaced_run_has_no_say_in_the_new_one(kit: StoreKit) -> None:
    kit.begin()
    kit.claim(owner="old")
    kit.end(ends=[])
    kit.begin(call="call-1", replaces=ENDED)

    late = kit.finish(owner="old", result={"a": 1})
    kit.claim(owner="new")

    assert late.verdict is Verdict.LATE
    with pytest.raises(ClaimRefused):
        kit.claim(owner="old")
    assert not kit.store.renew(Correlation("order-1", "reserve", Direction.DO, 1), "old").alive


def test_S25_every_run_that_replaces_another_counts_one_generation_more(kit: StoreKit) -> None:
    kit.begin()
    assert kit.claim().generation == kit.store.load("order-1").generation == 1

    for generation in (2, 3):
        kit.end()
        kit.begin(call=f"call-{generation}", replaces=ENDED)
        assert kit.claim().generation == kit.store.load("order-1").generation == generation


def test_the_retention_of_a_replaced_run_does_not_take_the_new_one_away(kit: StoreKit) -> None:
    kit.begin()
    kit.end(retention_ms=1)
    kit.sleep(0.01)
    [entry] = kit.store.take_due()[0]
    assert entry.kind == "x"
    kit.begin(call="call-1", replaces=ENDED)

    # The sweep had taken the entry, and acts on it only now.
    assert not kit.store.forget("order-1", entry.seen_ms)
    assert kit.store.load("order-1").state.status is RunStatus.RUNNING
    kit.end(retention_ms=60_000)
    assert not kit.store.forget("order-1", entry.seen_ms)
    assert kit.store.load("order-1").state.status is RunStatus.COMPLETED


def test_a_run_whose_retention_is_over_is_forgotten_by_whoever_saw_that(kit: StoreKit) -> None:
    kit.begin()
    kit.end(retention_ms=1)
    kit.sleep(0.01)
    [entry] = kit.store.take_due()[0]

    assert kit.store.forget("order-1", entry.seen_ms)
    assert ids(kit) == []


@pytest.mark.parametrize("replaces", [(), ENDED], ids=["return", "replace"])
def test_of_twenty_starts_at_once_one_makes_the_run(kit: StoreKit, replaces: list[RunStatus]) -> None:
    if replaces:
        kit.begin()
        kit.end()
    gate = Barrier(20)

    def start(number: int) -> bool:
        gate.wait()
        call = f"call-{number}" if replaces else ""
        return bool(kit.begin(call=call, replaces=replaces, digest=f"digest-{number}").created)

    with ThreadPoolExecutor(20) as threads:
        created = list(threads.map(start, range(20)))

    assert created.count(True) == 1
    assert ids(kit) == ["order-1"]
    assert len(kit.store.history("order-1")) == 2
    assert len(kit.messages()) == 1 + len(replaces[:1])


def test_a_run_whose_errors_a_codec_has_sealed_and_whose_input_is_kept_apart_is_replaced_whole(kit: StoreKit) -> None:
    kit.under(PayloadPolicy(codecs=(GzipCodec(least=0),), claim_check_bytes=200))
    kit.begin(input={"text": "".join(map(str, range(2_000)))})
    error = ErrorInfo(type="CardDeclined", message="no funds")
    kit.end(status="failed", steps={"reserve": StepState(Activity(ActivityStatus.FAILED, 1, error=error))})

    started = kit.begin(input={"total": 6}, digest="digest-2", call="call-1", replaces=ENDED)

    assert started.created
    assert kit.store.payloads("order-1").input == {"total": 6}
    assert kit.store.load("order-1").state.step("reserve").do.error is None
    assert not isinstance(kit, RedisKit) or kit.client.keys("*blobs*") == []
