"""In what form every state store keeps data: codecs, payloads apart, redaction. One suite over memory and Redis."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import redis

from multiagents.events import ErrorEvent, ErrorInfo, ResultEvent, StatusEvent
from multiagents.exceptions import DecodeError, PayloadStoreError
from multiagents.names import Correlation, Direction
from multiagents.orchestrator.dispatch.eager import EagerDispatcher
from multiagents.orchestrator.engine import Engine
from multiagents.orchestrator.recovery import Sweep
from multiagents.settings import Settings
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.payloads.codecs.cryptography import AESGCMCodec
from multiagents.state_store.payloads.codecs.gzip import GzipCodec
from multiagents.state_store.payloads.offload.memory import InMemoryPayloadStore
from multiagents.state_store.payloads.offload.redis import RedisPayloadStore
from multiagents.state_store.payloads.redaction import redactor
from multiagents.state_store.records import Commit
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.state import Activity, ActivityStatus, StepState
from tests.support.store_kit import RedisKit, StoreKit

SECRET = "4111-1111-1111-1111"
OLD, NEW = AESGCMCodec({"2025": b"o" * 32}), AESGCMCodec({"2026": b"n" * 32, "2025": b"o" * 32})
GZIP = GzipCodec(least=0)
LARGE = {"scan": "x" * 3_000, "owner": SECRET}
NARROWED = (
    WorkflowBuilder("narrowed")
    .add_step("reserve", "reserve_stock")
    .add_step("ship", "ship_order", compensation="call_back", inputs={"id": "id"})
    .build(register=False)
)


class Reversed:
    """A codec of a project's own."""

    name = "reversed"

    def encode(self, data: bytes) -> bytes:
        return data[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[::-1]


POLICIES = {
    "plain": PayloadPolicy(),
    "gzip": PayloadPolicy(codecs=(GZIP,)),
    "encrypted": PayloadPolicy(codecs=(NEW,)),
    "all": PayloadPolicy(codecs=(Reversed(), GZIP, NEW)),
    "apart": PayloadPolicy(claim_check_bytes=30),
    "encrypted-apart": PayloadPolicy(codecs=(GZIP, NEW), claim_check_bytes=30),
}


def play(kit: StoreKit) -> dict[str, Any]:
    """Bring a secret into every place that there is, and see that it comes out again; gives what was stored."""
    error = ErrorInfo(type="CardDeclined", message=f"card {SECRET} was declined", traceback=f"line 1: {SECRET}")
    kit.begin(input={"total": 5, "card": SECRET})
    kit.claim()
    kit.store.renew(attempt(), "owner-1", beat=True, detail={"card": SECRET})
    kit.finish(
        result={"paid": SECRET, "items": [1, None, "ü", 1.5]}, context={"paid": SECRET}, asks=["ship"], store=kit.store
    )
    failed = ErrorEvent(transaction_id="order-1", error=error, step="ship", attempt=1, correlation_id="x")
    kit.store.commit(
        Commit(
            "order-1",
            [failed, StatusEvent(transaction_id="order-1", status="note", reason=SECRET, payload={"card": SECRET})],
            version=2,
            header={"error": error.model_dump_json()},
            steps={"ship": StepState(Activity(ActivityStatus.FAILED, 1, error=error))},
            inputs={"ship": {"card": SECRET}},
            dead_letters={"order-1/ship/undo/1": {"why": "parked", "input": {"card": SECRET}}},
        )
    )
    kit.store.bury("order-1", "order-1/late", {"why": "late", "event": {"payload": SECRET}})

    stored = {**kit.stored(), "dead": dict(kit.dead_letters())}
    payloads, snapshot = kit.store.payloads("order-1"), kit.store.load("order-1")
    assert payloads.input == {"total": 5, "card": SECRET}
    assert payloads.results == {"reserve": {"paid": SECRET, "items": [1, None, "ü", 1.5]}}
    assert payloads.context == {"paid": SECRET}
    assert payloads.inputs == {"ship": {"card": SECRET}}
    assert snapshot.state.error == error
    assert snapshot.state.step("ship").do.error == error
    assert [event.error for event in kit.store.history("order-1") if isinstance(event, ErrorEvent)] == [error]
    assert kit.store.history("order-1")[-1].reason == SECRET
    assert kit.store.visibility.dead_letters()["order-1/ship/undo/1"]["input"] == {"card": SECRET}
    assert kit.store.dead_letter("order-1", "order-1/late") == {"why": "late", "event": {"payload": SECRET}}
    return stored


def attempt() -> Any:
    return Correlation("order-1", "reserve", Direction.DO, 1)


# --- codecs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICIES)
def test_data_comes_out_as_it_went_in_whatever_it_was_put_through(kit: StoreKit, name: str) -> None:
    kit.under(POLICIES[name])

    stored = play(kit)

    assert (SECRET in repr(stored)) is (name in ("plain", "apart"))


def test_without_settings_data_is_stored_byte_for_byte_as_json(kit: StoreKit) -> None:
    kit.begin(input={"total": 5, "who": "Zoë"})
    kit.claim()
    kit.finish(result={"a": [1, None]}, context={"a": [1, None]}, inputs={"ship": {"b": 1}})

    stored = kit.stored()

    assert stored["results"] == {"i": '{"total":5,"who":"Zoë"}', "r:reserve": '{"a":[1,null]}', "n:ship": '{"b":1}'}
    assert (stored["context"], stored["blobs"]) == ({"a": "[1,null]"}, {})
    assert stored["fields"]["digest"] == "digest-1"
    assert all(record.startswith('{"t":') for record in stored["history"])


def test_a_run_is_read_through_though_the_codec_was_changed_under_it(kit: StoreKit) -> None:
    kit.begin(input={"total": 5})
    kit.under(PayloadPolicy(codecs=(GZIP,)))
    kit.claim()
    kit.finish(result={"a": 1}, context={"a": 1}, asks=["fraud"])
    kit.under(PayloadPolicy(codecs=(OLD,)))
    kit.claim("fraud")
    kit.finish("fraud", result={"b": 2}, asks=["credit"])
    kit.under(PayloadPolicy(codecs=(GZIP, NEW)))

    claim = kit.claim("credit")

    assert claim.context == {"total": 5, "a": 1}
    assert kit.store.results("order-1") == {"reserve": {"a": 1}, "fraud": {"b": 2}}


def test_a_new_key_encrypts_and_the_old_one_still_decrypts(kit: StoreKit) -> None:
    kit.under(PayloadPolicy(codecs=(OLD,)))
    kit.begin(input={"total": 5})
    kit.under(PayloadPolicy(codecs=(NEW,)))
    kit.claim()
    kit.finish(result={"a": 1})

    assert kit.store.payloads("order-1").results == {"reserve": {"a": 1}}
    with pytest.raises(DecodeError, match=r'the key "2026", which is not among multiagents_encryption_keys here'):
        kit.under(PayloadPolicy(codecs=(OLD,))).payloads("order-1")


def test_what_is_switched_off_is_still_read_with(kit: StoreKit) -> None:
    kit.under(PayloadPolicy(codecs=(Reversed(), NEW)))
    kit.begin(input={"total": 5})

    kit.under(PayloadPolicy(readable=(Reversed(), NEW)))
    kit.claim()
    kit.finish(result={"a": 1})

    assert kit.store.payloads("order-1").input == {"total": 5}
    assert kit.stored()["results"]["r:reserve"] == '{"a":1}'


def test_S27_data_that_cannot_be_decoded_names_what_is_missing(kit: StoreKit) -> None:
    kit.under(PayloadPolicy(codecs=(Reversed(),)))
    play(kit)
    kit.store.commit(Commit("order-1", [], version=3, dispatches=[kit.message("order-1", "fraud")]))
    kit.under(PayloadPolicy())
    named = r'the codec "reversed", which is not set here \(gzip\); add it to multiagents_payload_codec'

    for ask in (
        lambda: kit.store.payloads("order-1"),
        lambda: kit.store.load("order-1"),
        lambda: kit.store.history("order-1"),
        lambda: kit.store.dead_letter("order-1", "order-1/late"),
    ):
        with pytest.raises(DecodeError, match=named):
            ask()
    assert all("cannot be read here" in letter["why"] for letter in kit.store.visibility.dead_letters().values())


def test_S27_a_claim_of_what_cannot_be_decoded_says_why_and_holds_the_attempt(kit: StoreKit) -> None:
    kit.under(PayloadPolicy(codecs=(NEW,)))
    kit.begin()
    kit.under(PayloadPolicy(codecs=(OLD,)))

    with pytest.raises(DecodeError, match='"2026"'):
        kit.claim()

    assert kit.store.load("order-1").in_flight["reserve"].owner == "owner-1"


@pytest.mark.parametrize("garbage", ["!gzip!", "!gzip!@@", "!!eA==", "!", "!gzip!eA==", "!aes-gcm!eA=="])
def test_S27_an_envelope_that_was_damaged_is_named(kit: StoreKit, garbage: str) -> None:
    kit.under(PayloadPolicy(codecs=(NEW,)))
    kit.begin()

    kit.spoil("results", "i", garbage)

    with pytest.raises(DecodeError, match="a stored value"):
        kit.store.payloads("order-1")


def test_one_damaged_letter_does_not_hide_the_others(kit: StoreKit) -> None:
    kit.under(PayloadPolicy(codecs=(NEW,)))
    for number in (1, 2):
        kit.store.bury("order-1", f"order-1/{number}", {"why": "late"})

    kit.spoil("dead", "order-1/1", "!aes-gcm!eA==")

    letters = kit.store.visibility.dead_letters()
    assert letters["order-1/2"] == {"why": "late"}
    assert letters["order-1/1"]["why"].startswith("this letter cannot be read here: ")


def test_a_repeated_start_is_known_by_its_input_though_nothing_of_it_is_readable(kit: StoreKit) -> None:
    kit.under(PayloadPolicy(codecs=(NEW,)))
    kit.begin(digest="digest-1")

    again = kit.begin(digest="digest-2")

    assert (again.created, again.input_digest) == (False, "digest-1")
    assert "digest-1" not in repr(kit.stored())


# --- large payloads --------------------------------------------------------------------------------------------------

APART = PayloadPolicy(claim_check_bytes=200)


def test_a_large_payload_is_kept_apart_and_comes_with_the_claims_that_read_it(kit: StoreKit) -> None:
    kit.under(APART)
    kit.begin()
    kit.claim()
    kit.finish(result=LARGE, context=LARGE, asks=["fraud"])

    stored = kit.stored()
    assert len(stored["blobs"]) == 2  # the result, and its large part in the context
    assert re.fullmatch(r"!@run:[0-9a-f]{32}", stored["results"]["r:reserve"])
    assert stored["context"]["owner"] == f'"{SECRET}"'
    assert kit.claim("fraud").context == {"total": 5, **LARGE}
    assert kit.store.results("order-1") == {"reserve": LARGE}


def test_the_undo_of_a_large_result_gets_it(kit: StoreKit) -> None:
    kit.under(APART)
    kit.begin()
    kit.claim()
    kit.finish(result=LARGE, context=LARGE)
    undone = {"reserve": StepState(Activity(ActivityStatus.SUCCEEDED, 1), Activity(ActivityStatus.IN_FLIGHT, 1))}
    dispatch = kit.message("order-1", "reserve", "u1")
    kit.store.commit(Commit("order-1", [], steps=undone, dispatches=[dispatch], version=2))

    claim = kit.claim(undo=True)

    assert (claim.result, claim.context) == (LARGE, {"total": 5, **LARGE})


def test_a_payload_of_just_the_limit_stays_and_one_byte_more_goes(kit: StoreKit) -> None:
    kit.under(PayloadPolicy(claim_check_bytes=30))
    kit.begin()
    kit.claim()
    kit.finish(result="x" * 28, context={"more": "x" * 29, "wide": "ü" * 15})

    stored = kit.stored()

    assert stored["results"]["r:reserve"] == f'"{"x" * 28}"'
    assert sorted(stored["context"]) == ["more", "wide"]
    assert all(text.startswith("!@run:") for text in stored["context"].values())
    assert sorted(stored["blobs"].values()) == [f'"{"x" * 29}"', f'"{"ü" * 15}"']


@pytest.mark.parametrize("undo", [False, True])
def test_a_step_with_inputs_of_its_own_fetches_nothing_that_it_does_not_read(kit: StoreKit, undo: bool) -> None:
    kit.under(APART)
    kit.begin(definition=NARROWED, input=LARGE)
    kit.claim(definition=NARROWED)
    kit.finish(result=LARGE, context=LARGE, asks=["ship"], inputs={"ship": {"id": 7}})
    if undone := undo:
        kit.claim("ship", definition=NARROWED)
        states = {"ship": StepState(Activity(ActivityStatus.SUCCEEDED, 1), Activity(ActivityStatus.IN_FLIGHT, 1))}
        kit.finish("ship", result={"at": 1}, steps=states, dispatches=[kit.message("order-1", "ship", "u1")])
    names = list(kit.stored()["blobs"])
    kept = {name: kit.stored()["blobs"][name] for name in names}
    for name in names:
        kit.spoil("blobs", name, None)

    claim = kit.claim("ship", undo=undone, definition=NARROWED)

    assert claim.context == ({"id": 7, "at": 1} if undo else {"id": 7})
    with pytest.raises(DecodeError, match=r"run 'order-1' is kept apart as '!@run:\w+' and is not there"):
        dict(claim.merged)
    for name, text in kept.items():
        kit.spoil("blobs", name, text)
    assert dict(claim.merged) == LARGE


def test_S27_a_payload_that_is_not_where_it_was_put_is_named(kit: StoreKit) -> None:
    kit.under(APART)
    kit.begin(input=LARGE)
    [name] = kit.stored()["blobs"]

    kit.spoil("blobs", name, None)

    for ask in (kit.claim, lambda: kit.store.payloads("order-1")):
        with pytest.raises(DecodeError, match=f"run 'order-1' is kept apart as '!@run:{name}' and is not there"):
            ask()


def test_a_commit_that_is_refused_leaves_no_payload_behind(kit: StoreKit) -> None:
    kit.under(APART)
    kit.begin()
    kit.claim()

    kit.finish(result=LARGE, context=LARGE, epoch=7)
    kit.begin(input=LARGE)

    assert kit.stored()["blobs"] == {}


def test_payloads_kept_apart_go_with_their_run(kit: StoreKit) -> None:
    kit.under(APART)
    kit.begin(input=LARGE)
    kit.end()

    kit.store.forget("order-1")

    assert kit.stored() == {}


def test_a_claim_takes_one_more_round_trip_when_something_is_kept_apart_and_else_none(redis_kit: RedisKit) -> None:
    def calls() -> int:
        stats = redis_kit.client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval", "hmget"))

    redis_kit.under(APART)
    counted = {}
    for name, given in (("small", {"total": 5}), ("large", {**LARGE, "more": "y" * 500})):
        redis_kit.begin(name, input=given)
        redis_kit.claim(transaction_id=name, owner="warm")
        redis_kit.client.config_resetstat()
        redis_kit.claim(transaction_id=name, owner="warm")
        counted[name] = calls()

    # A script's own commands are counted, too: what differs is what is asked for besides.
    assert counted["large"] - counted["small"] == 1


# --- a store of its own ----------------------------------------------------------------------------------------------


class Watched(InMemoryPayloadStore):
    """Tells what it was asked, and may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.away = False

    def _note(self, what: str) -> None:
        self.asked.append(what)
        if self.away:
            raise OSError("the bucket is away")

    def put(self, transaction_id: str, payloads: Mapping[str, str]) -> None:
        self._note("put")
        super().put(transaction_id, payloads)

    def get(self, transaction_id: str, names: Sequence[str]) -> Mapping[str, str]:
        self._note(f"get {len(names)}")
        return super().get(transaction_id, names)

    def forget(self, transaction_id: str) -> None:
        self._note("forget")
        super().forget(transaction_id)


@pytest.fixture
def away_redis(new_redis_url: Callable[[], str]) -> Iterator[Any]:
    with redis.Redis.from_url(new_redis_url(), decode_responses=True) as client:
        yield client


def test_large_payloads_may_live_in_a_store_of_their_own(kit: StoreKit) -> None:
    bucket = Watched()
    kit.under(replace(APART, apart=bucket))
    kit.begin()
    kit.claim()
    kit.finish(result=LARGE, context=LARGE, asks=["fraud"])

    assert kit.claim("fraud").context == {"total": 5, **LARGE}
    assert kit.stored()["blobs"] == {}
    assert bucket.asked == ["put", "get 1"]
    with pytest.raises(DecodeError, match=r'payload store "memory", and multiagents_claim_check_store is not set here'):
        kit.under(APART).payloads("order-1")


def test_what_lies_beside_the_run_is_read_after_a_store_was_set(kit: StoreKit) -> None:
    kit.under(APART)
    kit.begin(input=LARGE)

    kit.under(replace(APART, apart=Watched()))

    assert kit.claim().context == LARGE


def test_a_payload_store_that_is_away_is_no_answer_about_the_data(kit: StoreKit) -> None:
    bucket = Watched()
    kit.under(replace(APART, apart=bucket))
    kit.begin(input=LARGE)
    bucket.away = True

    for ask in (kit.claim, lambda: kit.store.forget("order-1"), lambda: kit.finish(result=LARGE)):
        with pytest.raises(PayloadStoreError, match=r'the payload store "memory" .* OSError: the bucket is away'):
            ask()

    bucket.away = False
    assert kit.claim().context == LARGE


def test_G4_a_sweep_goes_on_though_the_payload_store_is_away(kit: StoreKit) -> None:
    bucket = Watched()
    kit.under(replace(APART, apart=bucket))
    for name in ("order-1", "order-2", "order-3"):
        kit.begin(name)
        kit.end(name, retention_ms=1)
    sweep = Sweep(Engine(kit.store, EagerDispatcher(cast(Any, None)), Settings()))
    kit.sleep(0.01)
    bucket.away = True

    sweep.tick()

    assert bucket.asked == ["forget"] * 3
    bucket.away = False
    kit.sleep(0.6)  # a lease, after which they are due again
    sweep.tick()
    assert (kit.stored("order-1"), kit.stored("order-3")) == ({}, {})


def test_what_a_refused_commit_left_in_a_store_of_its_own_goes_with_the_run_or_by_itself(
    kit: StoreKit, away_redis: Any
) -> None:
    bucket = RedisPayloadStore("redis://unused", lifetime=60, client=away_redis)
    kit.under(replace(APART, apart=bucket))
    kit.begin()
    kit.claim()

    kit.finish(result=LARGE, epoch=7)

    [orphaned] = away_redis.keys("*")
    assert 0 < away_redis.pttl(orphaned) <= 60_000
    kit.end()
    kit.store.forget("order-1")
    assert away_redis.keys("*") == []


# --- redaction -------------------------------------------------------------------------------------------------------


def test_what_is_redacted_is_not_in_the_history_and_is_what_later_steps_read(kit: StoreKit) -> None:
    kit.under(PayloadPolicy(redact=redactor(["*card*", "password"])))
    kit.begin(input={"card_number": SECRET})
    kit.claim()
    noted = StatusEvent(transaction_id="order-1", status="note", payload={"Card": SECRET, "user": [{"password": 1}]})
    late = ResultEvent(transaction_id="order-1", payload={"card": SECRET}, card_of_a_later_release=SECRET)
    kit.finish(result={"card": SECRET}, context={"card": SECRET}, asks=["fraud"], events=[noted, late])

    history = kit.store.history("order-1")

    assert SECRET not in repr(kit.stored()["history"])
    assert history[-2].payload == {"Card": "[redacted]", "user": [{"password": "[redacted]"}]}
    assert history[-1].payload == {"card": "[redacted]"}
    assert kit.claim("fraud").context == {"card_number": SECRET, "card": SECRET}
    assert kit.store.results("order-1") == {"reserve": {"card": SECRET}}


def test_what_heartbeats_said_is_read_by_step_without_what_is_redacted(kit: StoreKit) -> None:
    kit.under(PayloadPolicy(codecs=(GZIP,), redact=redactor(["*card*"])))
    kit.begin()
    kit.claim()
    before = kit.store.details("order-1", ["reserve", "ship"])

    kit.store.renew(attempt(), "owner-1", beat=True, detail={"card": SECRET, "done": "½"})

    assert before == {}
    assert kit.store.details("order-1", ["reserve", "ship"]) == {"reserve": {"card": "[redacted]", "done": "½"}}
    assert kit.store.details("order-1", []) == kit.store.details("no such run", ["reserve"]) == {}
