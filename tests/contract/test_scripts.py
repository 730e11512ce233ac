"""What every Lua script keeps to: one test for each by its name, and the rules that hold for all of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from multiagents.clock import from_ms, to_ms
from multiagents.events import CommandEvent, ResultEvent
from multiagents.exceptions import StateStoreError
from multiagents.keys import Keys
from multiagents.names import Correlation, Direction
from multiagents.state_store.payloads import PLAIN, PayloadPolicy, Writing
from multiagents.state_store.payloads.archives.memory import InMemoryArchive
from multiagents.state_store.records import (
    Account,
    Amount,
    Call,
    CallOutcome,
    CallUndo,
    Commit,
    Condition,
    Delivery,
    Dispatch,
    DueKind,
    EntryKind,
    Feedback,
    Lesson,
    Per,
    Placement,
    Request,
    Said,
    Search,
    Usage,
    Written,
    account_of,
)
from multiagents.state_store.redis import scripts
from multiagents.state_store.redis.arguments import arguments_of, keys_of
from multiagents.state_store.redis.scripts import script
from multiagents.workflow.state import Activity, ActivityStatus, CalledTool, RunStatus, StepState
from tests.support.catalogue import writers
from tests.support.store_kit import LIST, RedisKit

FOLDER = Path(str(files(scripts)))
#: Parts of scripts; they say so at their head.
PARTS = {
    *(
        "apply",
        "attributes",
        "budget",
        "call_steps",
        "calm",
        "erase",
        "examples",
        "identity",
        "journal",
        "jump",
        "lists",
        "occurrences",
        "slots",
    ),
    "transition",
}
VERBS = sorted({path.stem for path in FOLDER.glob("*.lua")} - PARTS)

Do = Callable[[RedisKit], Any]
#: Of what `RedisKit.begin` sends out.
ENTRY = DueKind.ATTEMPT.entry("order-1", "reserve", "d1")
TAGS = {"customer": "s|c-1", "amount": "n|12.5", "basket": "s|7"}


def attempt(step: str = "reserve") -> Correlation:
    return Correlation("order-1", step, Direction.DO, 1)


def tagged(kit: RedisKit) -> None:
    kit.begin(attributes=TAGS)


def claimed(kit: RedisKit) -> None:
    kit.begin(attributes=TAGS)
    kit.claim()


def claimed_with_limits(kit: RedisKit) -> None:
    kit.begin()
    kit.claim(timeout=30, heartbeat_timeout=5)


def archivable(kit: RedisKit) -> None:
    kit.under(PayloadPolicy(archive=InMemoryArchive()))
    kit.begin()


def over(kit: RedisKit) -> None:
    kit.begin(attributes=TAGS)
    kit.begin("order-5")  # of the same partition
    kit.end(retention_ms=1)


LESSON = Lesson("ask", "reserve", '{"outputs":{"a":1}}', 10, 60_000)


def learned(kit: RedisKit) -> None:
    kit.begin()
    kit.claim()
    kit.finish(lesson=LESSON)


def learned_and_gone(kit: RedisKit) -> None:
    learned(kit)
    kit.end()
    kit.store.forget("order-1")
    kit.sleep(0.01)


CALL = Call("tool", "h", 1, "flight", Request(text="x" * 40), undo=CallUndo("undo_flight", {"city": "y" * 40}))
BOOKED = StepState(Activity(ActivityStatus.SUCCEEDED, 1), called=CalledTool("undo_flight", 1))


def opened(kit: RedisKit) -> None:
    kit.under(PayloadPolicy(claim_check_bytes=30))
    kit.begin()
    kit.claim()
    kit.store.journal.open(attempt(), "owner-1", {"seed": "7"})


def asking(kit: RedisKit) -> None:
    opened(kit)
    kit.store.journal.begin(attempt(), "owner-1", CALL)


def ended() -> CallOutcome:
    call = Correlation("order-1", "reserve.flight[0]", Direction.DO, 1)
    return CallOutcome(ResultEvent.about(call, {"booking": "z" * 40}, at=from_ms(1)), BOOKED)


def awaiting(kit: RedisKit) -> None:
    opened(kit)
    kit.store.journal.begin(attempt(), "owner-1", CALL._replace(kind="approval"))


#: An account that all runs share, in the partition of order-1, and one of the run's own.
SHARED = account_of("order-1", Per.DAY, datetime(2100, 1, 1, tzinfo=UTC))
OWN = account_of("tenant", Per.RUN, datetime(2100, 1, 1, tzinfo=UTC), attempt())


def reserve(kit: RedisKit, account: Account = SHARED) -> Any:
    limits = {"bound": Amount(10, 5), "limit": Amount(100), "keep_ms": 1_000}
    return kit.store.budgets.reserve(account, "call-1", "owner-1", **limits)


def reserved(kit: RedisKit) -> None:
    kit.begin()
    reserve(kit)


def between_attempts(kit: RedisKit) -> None:
    asking(kit)
    kit.finish(steps={}, dispatches=[kit.message("order-1", "reserve", "d2")])


def timer(kit: RedisKit) -> None:
    kit.begin(dispatch=Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=1))
    kit.sleep(0.01)


def drained(kit: RedisKit) -> None:
    kit.begin()
    kit.consume()
    kit.claim()


def lost(kit: RedisKit) -> None:
    kit.begin()
    kit.consume()
    kit.store.take_due()


def locked(kit: RedisKit) -> None:
    kit.begin()
    kit.store.isolation.lock("order-1", "order-1~1", asking_ms=5_000)


def dispatch(kit: RedisKit) -> Any:
    seen = kit.store.load("order-1").in_flight["reserve"].record
    return kit.store.dispatch("order-1", kit.message("order-1", "reserve"), seen)


#: verb: how a run is brought to it, and the call.
CALLS: dict[str, tuple[Do, Do]] = {
    "search": (tagged, lambda kit: kit.store.visibility.search(Search([Condition.of("customer", "c-1")]))),
    "start": (lambda _kit: None, lambda kit: kit.begin(attributes=TAGS)),
    "claim": (lambda kit: kit.begin(), lambda kit: kit.claim(timeout=30)),
    "renew": (claimed_with_limits, lambda kit: kit.store.renew(attempt(), "owner-1", detail=[1])),
    "commit": (
        claimed,
        lambda kit: kit.finish(
            result={"a": 1},
            context={"a": 1},
            asks=["fraud", "credit"],
            arrivals={"ship": (1, 2)},
            epoch=1,
            version=1,
            pending=True,
            attributes={"customer": "s|c-2", "amount": "n|3", "basket": ""},
            lesson=LESSON,
        ),
    ),
    "archive": (archivable, lambda kit: kit.store.archive("order-1")),
    "delete": (
        over,
        lambda kit: kit.store.delete(
            "order-1", status=RunStatus.COMPLETED, tombstone="stone-1", dead_letters=["order-1"]
        ),
    ),
    "dispatch": (timer, dispatch),
    "expire": (claimed, lambda kit: kit.store.expire(attempt())),
    "forget": (over, lambda kit: kit.store.forget("order-1")),
    "lock": (lambda _kit: None, lambda kit: kit.store.isolation.lock("order-1", "order-1~1", asking_ms=5_000)),
    "unlock": (locked, lambda kit: kit.store.isolation.unlock("order-1", 1)),
    "limit": (
        lambda _kit: None,
        lambda kit: kit.store.isolation.take_slot("order-1", attempt(), concurrency=1, every_us=1_000),
    ),
    "limit_end": (
        lambda kit: kit.store.isolation.take_slot("order-1", attempt(), every_us=1_000, call="1", weight=90_000),
        lambda kit: kit.store.isolation.free_slot("order-1", attempt(), call="1", later_us=5_000_000),
    ),
    "postpone": (timer, lambda kit: kit.store.postpone(ENTRY, "order-1", 5_000)),
    "bury": (lambda kit: kit.begin(), lambda kit: kit.store.bury("order-1", "order-1", {"why": "a test"})),
    "load": (claimed, lambda kit: kit.store.load("order-1")),
    "tick": (lambda _kit: None, lambda kit: kit.store.schedules.ticked("nightly", 1_700_000_000_000)),
    "program_add": (lambda _kit: None, lambda kit: kit.store.programs.add("order-1", {"a": 1}, {}, token="one")),
    "program_place": (
        lambda kit: kit.store.programs.add("order-1", {"a": 1}, {}, token="one"),
        lambda kit: kit.store.programs.place("order-1", Placement(0, 1, 0, 0.0, (0,)), {"actor": "ann"}),
    ),
    "take_due": (timer, lambda kit: kit.store.take_due()),
    "announce": (lambda _kit: None, lambda kit: kit.store.announce({"worker:a": {}}, gone=["worker:b"])),
    "tidy": (drained, lambda kit: kit.store.tidy(60_000)),
    "journal_open": (claimed, lambda kit: kit.store.journal.open(attempt(), "owner-1", {"seed": "7"})),
    "journal_begin": (opened, lambda kit: kit.store.journal.begin(attempt(), "owner-1", CALL)),
    "journal_finish": (
        asking,
        lambda kit: kit.store.journal.finish(attempt(), "owner-1", "1", "y" * 40, outcome=ended()),
    ),
    "journal_refuse": (asking, lambda kit: kit.store.journal.refuse(attempt(), "owner-1", ["1"], "no JSON")),
    "journal_restart": (between_attempts, lambda kit: kit.store.journal.restart("order-1", "reserve")),
    "journal_decide": (awaiting, lambda kit: kit.store.journal.decide("order-1", "reserve", "1", {"approved": True})),
    "examples_page": (learned, lambda kit: kit.store.examples.page("ask", 60_000)),
    "examples_feedback": (learned, lambda kit: kit.store.examples.feedback("order-1", Feedback(1.0))),
    "examples_forget": (learned_and_gone, lambda kit: kit.store.examples.forget("order-1")),
    "examples_tidy": (learned_and_gone, lambda kit: kit.store.examples.tidy(1)),
    "stream_append": (
        claimed,
        lambda kit: kit.store.streams.append(attempt(), "owner-1", [Said(EntryKind.ITEM, "x")], before=0, most=9),
    ),
    "journal_withhold": (asking, lambda kit: kit.store.journal.withhold(attempt(), "owner-1", "1")),
    "budget_reserve": (lambda kit: kit.begin(), lambda kit: [reserve(kit), reserve(kit, OWN)]),
    "budget_settle": (
        reserved,
        lambda kit: kit.store.budgets.settle(SHARED, "call-1", "owner-1", Amount(7, 3)),
    ),
    "hold": (lost, lambda kit: kit.store.hold([attempt()])),
}


def everything(kit: RedisKit) -> dict[str, Any]:
    """Everything in the database."""
    read = {
        "hash": kit.client.hgetall,
        "list": lambda key: kit.client.lrange(key, 0, -1),
        "zset": lambda key: kit.client.zrange(key, 0, -1, withscores=True),
        "string": kit.client.get,
        "stream": kit.client.xrange,
    }
    return {key: read[kit.client.type(key)](key) for key in sorted(kit.client.keys("*"))}


def dump(kit: RedisKit) -> dict[str, Any]:
    """The same, without what follows the clock: when a lease ends, and when the last sweep was."""
    return {
        key: [member for member, _ in value] if key.endswith((":due", ".since")) or ":limit:" in key else value
        for key, value in everything(kit).items()
        if not key.endswith(":meta")
    }


def prepared(kit: RedisKit, verb: str) -> Do:
    prepare, call = CALLS[verb]
    prepare(kit)
    return call


class Sent:
    """What a store sends to the server."""

    def __init__(self, kit: RedisKit, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, list[str], list[Any]]] = []
        run = kit.server.run

        def noted(site: Any, name: str, keys: list[str], args: list[Any]) -> Any:
            self.calls.append((name, list(keys), list(args)))
            return run(site, name, keys, args)

        monkeypatch.setattr(kit.server, "run", noted)


# --- all of them -----------------------------------------------------------------------------------------------------


def test_every_script_has_a_test_here() -> None:
    assert sorted(CALLS) == VERBS
    assert all(f"test_{verb}_" in Path(__file__).read_text(encoding="utf-8") for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_script_says_what_it_takes_and_returns_and_is_short(verb: str) -> None:
    lines = (FOLDER / f"{verb}.lua").read_text(encoding="utf-8").splitlines()
    head = "\n".join(lines[:12])

    assert lines[0].startswith(f"-- {verb}: ")
    assert all(re.search(rf"^-- {word}: ", head, re.MULTILINE) for word in ("KEYS", "ARGV", "Returns"))
    # take_due does two things on purpose: what is lost and what is due have to be seen at one moment.
    assert len(lines) <= (75 if verb == "take_due" else 60)


@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_part_of_a_script_says_so(part: str) -> None:
    assert "not a script of its own" in (FOLDER / f"{part}.lua").read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize("verb", VERBS)
def test_a_script_is_found_again_after_the_server_has_forgotten_it(redis_kit: RedisKit, verb: str) -> None:
    call = prepared(redis_kit, verb)
    redis_kit.client.script_flush()

    call(redis_kit)

    assert redis_kit.client.script_exists(script(verb).sha) == [True]


@pytest.mark.parametrize("verb", VERBS)
def test_a_script_that_is_sent_twice_does_its_work_once(redis_kit: RedisKit, verb: str, monkeypatch: Any) -> None:
    call = prepared(redis_kit, verb)
    sent = Sent(redis_kit, monkeypatch)
    call(redis_kit)
    once = dump(redis_kit)

    for name, keys, args in list(sent.calls):
        redis_kit.server.run(None, name, keys, args)

    assert dump(redis_kit) == once


@pytest.mark.parametrize("verb", VERBS)
def test_a_script_writes_no_key_but_those_of_the_catalogue(redis_kit: RedisKit, verb: str) -> None:
    call = prepared(redis_kit, verb)
    before = everything(redis_kit)

    call(redis_kit)

    after = everything(redis_kit)
    written = {key for key in {*before, *after} - {LIST} if before.get(key) != after.get(key)}
    assert {key: writers(key) for key in written if verb not in writers(key)} == {}


@pytest.mark.parametrize("verb", VERBS)
def test_every_key_has_the_tag_of_its_partition(redis_kit: RedisKit, verb: str, monkeypatch: Any) -> None:
    call = prepared(redis_kit, verb)
    sent = Sent(redis_kit, monkeypatch)
    call(redis_kit)

    for _, keys, _ in sent.calls:
        assert len({key.partition("}")[0] for key in keys}) == 1
        assert all(re.match(r"ma:\{[0-2]\}:", key) for key in keys)
    # Schedules belong to no run.
    tag = redis_kit.keys.tag(0 if verb in ("tick", "announce") else redis_kit.keys.partition_of("order-1"))
    swept = {f"{redis_kit.keys.tag(number)}:meta" for number in range(3)}
    of_the_run = {key for key in redis_kit.client.keys("*") if key not in swept | {"celery"}}
    assert of_the_run
    assert all(key.startswith(f"{tag}:") for key in of_the_run)


def test_runs_of_other_partitions_and_prefixes_stay_apart(redis_kit: RedisKit) -> None:
    names = [f"order-{number}" for number in range(30)]
    for name in names:
        redis_kit.begin(name)
    tags = {key.partition("}")[0] for key in redis_kit.client.keys("*") if key != "celery"}
    assert tags == {"ma:{0", "ma:{1", "ma:{2"}

    other = type(redis_kit.store)(redis_kit.store.address, keys=Keys("other"))
    assert other.visibility.count(RunStatus.RUNNING) == 0
    assert redis_kit.store.visibility.count(RunStatus.RUNNING) == 30
    other.close()


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_server_takes_nothing_new_and_does_all_else(redis_kit: RedisKit, verb: str) -> None:
    call = prepared(redis_kit, verb)
    redis_kit.client.config_set("maxmemory", 1)
    try:
        if verb in ("start", "tick", "program_add", "stream_append"):
            with pytest.raises(StateStoreError, match="the server is full"):
                call(redis_kit)
        else:
            call(redis_kit)
    finally:
        redis_kit.client.config_set("maxmemory", 0)


def test_on_a_full_server_all_of_a_run_can_be_read_and_what_is_over_goes(redis_kit: RedisKit) -> None:
    redis_kit.under(PayloadPolicy(archive=InMemoryArchive()))
    redis_kit.begin()
    redis_kit.store.check()
    redis_kit.client.config_set("maxmemory", 1)
    try:
        assert redis_kit.store.payloads("order-1").input == {"total": 5}
        assert len(redis_kit.store.history("order-1")) == 2
        assert redis_kit.store.archive("order-1") == 1
        assert redis_kit.store.check() is not None
        redis_kit.store.discard(ENTRY, "order-1")
        redis_kit.store.isolation.free_slot("order-1", attempt())
    finally:
        redis_kit.client.config_set("maxmemory", 0)


# --- one by one ------------------------------------------------------------------------------------------------------


def run(kit: RedisKit, verb: str, keys: list[str], args: list[Any]) -> Any:
    return kit.server.run(None, verb, keys, args)


def now_ms(kit: RedisKit) -> int:
    seconds, micros = kit.client.time()
    return int(seconds * 1000 + micros // 1000)


def test_start_returns_the_time_and_what_the_run_was_started_with(redis_kit: RedisKit, monkeypatch: Any) -> None:
    sent = Sent(redis_kit, monkeypatch)
    redis_kit.begin()
    before = now_ms(redis_kit)

    again = run(redis_kit, *sent.calls[0])

    assert again[0] == 0
    assert before <= again[1] <= now_ms(redis_kit)
    assert again[2] == "contract"
    assert again[4] == "digest-1"


def test_start_asks_for_the_definition_that_the_server_has_lost(redis_kit: RedisKit) -> None:
    redis_kit.begin("order-1")
    of = redis_kit.keys.of_run("order-2")
    redis_kit.client.delete(of.definitions)

    redis_kit.begin("order-2")
    redis_kit.begin("order-3")

    assert redis_kit.store.load("order-3").definition == redis_kit.store.load("order-2").definition
    content = redis_kit.store.load("order-2").definition.content_hash
    assert set(redis_kit.client.hkeys(of.definitions)) == {content, f"runs:{content}"}


def test_claim_returns_values_in_the_order_of_their_fields_however_many(redis_kit: RedisKit) -> None:
    redis_kit.begin()
    of = redis_kit.keys.of_run("order-1")
    redis_kit.client.hset(of.results, mapping={f"r:{number}": f"v{number}" for number in range(0, 9_000, 2)})
    fields = [f"r:{number}" for number in range(9_000)]
    args = ["order-1", "reserve", "d1", "owner", "node", 5_000, 0, 30_000, 1_000, of.sent(""), 1]

    reply = run(redis_kit, "claim", [of.run, of.context, of.results, of.due], [*args, "i", *fields])

    values = reply[6]
    assert reply[0] == 1
    assert values[0] == '{"total":5}'
    assert values[1:] == [f"v{number}" if number % 2 == 0 else None for number in range(9_000)]
    assert reply[2] - reply[1] == 5_000


def test_claim_takes_the_message_off_the_list_of_those_that_wait(redis_kit: RedisKit) -> None:
    redis_kit.begin()
    of = redis_kit.keys.of_run("order-1")
    assert redis_kit.client.zcard(of.sent("celery")) == 1

    redis_kit.claim()

    assert redis_kit.client.zcard(of.sent("celery")) == 0
    assert redis_kit.client.zrange(of.due, 0, -1) == [ENTRY]


def test_renew_keeps_the_detail_of_a_heartbeat(redis_kit: RedisKit) -> None:
    claimed_with_limits(redis_kit)
    of = redis_kit.keys.of_run("order-1")

    redis_kit.store.renew(attempt(), "owner-1", beat=True, detail={"done": "½"})

    assert redis_kit.client.hget(of.run, "h:reserve") == '{"done":"½"}'
    assert redis_kit.client.zscore(of.due, ENTRY) <= now_ms(redis_kit) + 500


def test_commit_writes_numbers_that_lua_would_round(redis_kit: RedisKit) -> None:
    # Left to itself, Lua writes the milliseconds since 1970 as 1.7e+12 and forgets the rest.
    redis_kit.begin()
    redis_kit.claim(timeout=30)
    redis_kit.finish(asks=["fraud"])
    of = redis_kit.keys.of_run("order-1")

    record = redis_kit.client.hget(of.run, "l:fraud")

    assert re.fullmatch(r"d1\|s\|\d{13}\|\d{13}\|0\|1\|celery", record)


def test_commit_that_is_refused_writes_nothing_at_all(redis_kit: RedisKit) -> None:
    claimed(redis_kit)
    before = dump(redis_kit)

    taken_back = [("ship", "d1|s|")]
    for fences in ({"version": 7}, {"epoch": 7}, {"owner": "other"}, {"ends": taken_back}, {"unrenewed": 1}):
        redis_kit.finish(result={"a": 1}, context={"a": 1}, asks=["fraud"], pending=True, **fences)

    assert dump(redis_kit) == before


def test_commit_takes_any_number_of_events_and_dispatches(redis_kit: RedisKit) -> None:
    claimed(redis_kit)
    events = [CommandEvent(transaction_id="order-1", reason=number) for number in range(9_000)]
    sends = [redis_kit.message("order-1", f"step-{number}") for number in range(500)]

    redis_kit.store.commit(Commit("order-1", events, version=1, dispatches=sends))

    of = redis_kit.keys.of_run("order-1")
    assert redis_kit.client.llen(of.history) == 9_002
    assert redis_kit.client.llen("celery") == 501


def test_dispatch_moves_the_attempt_from_one_list_to_another(redis_kit: RedisKit) -> None:
    redis_kit.begin()
    of = redis_kit.keys.of_run("order-1")
    record = redis_kit.store.load("order-1").in_flight["reserve"].record

    redis_kit.store.dispatch("order-1", redis_kit.message("order-1", "reserve", name="celery.quarantine"), record)

    assert redis_kit.client.zcard(of.sent("celery")) == 0
    assert redis_kit.client.zrange(of.sent("celery.quarantine"), 0, -1) == [ENTRY]


def test_archive_drops_nothing_that_others_have_dropped_meanwhile(redis_kit: RedisKit) -> None:
    archivable(redis_kit)
    of = redis_kit.keys.of_run("order-1")
    trim = partial(run, redis_kit, "archive", [of.run, of.history])

    assert trim(["order-1", 1, 1]) == [0]
    assert trim(["order-1~other", 0, 1]) == [0]
    assert run(redis_kit, "archive", [f"{of.run}-none", of.history], ["order-1", 0, 1]) == [0]
    assert redis_kit.client.llen(of.history) == 2
    assert trim(["order-1", 0, 1]) == [1]
    assert (redis_kit.client.llen(of.history), redis_kit.client.hget(of.run, "archived")) == (1, "1")


def test_expire_leaves_other_attempts_alone(redis_kit: RedisKit) -> None:
    claimed(redis_kit)
    of = redis_kit.keys.of_run("order-1")
    run_expire = partial(run, redis_kit, "expire", [of.run, of.due])
    before = dump(redis_kit)

    assert run_expire(["order-1", "reserve", "u1", ""])[0] == 0
    assert run_expire(["order-1", "ship", "d1", ""])[0] == 0
    assert dump(redis_kit) == before
    assert run_expire(["order-1", "reserve", "d1", ""])[0] == 1


def test_search_goes_on_in_the_middle_of_one_score_in_the_order_of_bytes(redis_kit: RedisKit) -> None:
    names = ["B", "_", "a", "b", "order-1", ".", "Z9", "Z", "aB"]
    of = redis_kit.keys.of_run("order-1")
    redis_kit.client.zadd("ma:{0}:some", dict.fromkeys(names, 5))
    for name in names:
        redis_kit.client.hset(f"ma:{{0}}:run:{name}", mapping={"workflow": "w", "status": "running", "started": 5})

    def found(after: str) -> list[str]:
        args = ["ma:{0}:run:", 100, 100, "", "", 5, after, "", "", 0]
        flat = run(redis_kit, "search", ["ma:{0}:some"], args)[3]
        return [str(name) for name in flat[1::2]]

    ordered = sorted(names, reverse=True)
    assert [found(name) for name in ordered] == [ordered[number + 1 :] for number in range(len(names))]
    assert found("a-gone") == [name for name in ordered if name < "a-gone"]
    assert of.runs[5:] == ":run:" or of.runs.endswith(":run:")


def test_search_walks_the_shortest_index_and_looks_no_further_than_it_was_told(redis_kit: RedisKit) -> None:
    redis_kit.client.zadd("ma:{0}:long", {f"run-{number}": number for number in range(500)})
    redis_kit.client.zadd("ma:{0}:short", {f"run-{number}": number for number in range(300)})
    redis_kit.client.config_resetstat()

    reply = run(
        redis_kit, "search", ["ma:{0}:long", "ma:{0}:short"], ["ma:{0}:run:", 200, 10, "", "", "", "", "", "", 0]
    )

    assert reply == [0, "100", "run-100", []]
    assert redis_kit.client.info("commandstats")["cmdstat_hmget"]["calls"] == 200


def test_forget_leaves_nothing_of_a_run_and_all_of_the_others(redis_kit: RedisKit) -> None:
    assert redis_kit.keys.partition_of("order-1") == redis_kit.keys.partition_of("order-5")
    redis_kit.begin("order-5", attributes=TAGS)
    before = dump(redis_kit)
    redis_kit.begin(dispatch=redis_kit.message("order-1", "reserve", start_within_ms=60_000), attributes=TAGS)
    redis_kit.claim()
    redis_kit.end(retention_ms=60_000, ends=[])
    of = redis_kit.keys.of_run("order-1")

    keys = [of.run, of.context, of.results, of.history, of.due, of.blobs, of.definitions, of.versions, of.generations]
    keys += [of.journal, of.stream]
    rest = [of.sent(""), of.indexes, of.attributes, "", 100]
    assert run(redis_kit, "forget", keys, ["order-1~another", *rest])[0] == 0
    assert run(redis_kit, "forget", keys, ["order-1", *rest])[0] == 1

    after = dump(redis_kit)
    assert {key for key, value in after.items() if value != before.get(key)} == {of.sequence, of.generations, "celery"}
    assert after.keys() - before.keys() == {of.generations}


def test_start_sent_twice_for_a_new_run_says_twice_that_it_was_created(redis_kit: RedisKit, monkeypatch: Any) -> None:
    sent = Sent(redis_kit, monkeypatch)
    redis_kit.begin(call="call-1")
    once = dump(redis_kit)

    again = run(redis_kit, *sent.calls[0])

    assert again[0] == 1
    assert dump(redis_kit) == once


def test_delete_keeps_so_many_tombstones_and_the_letters_of_others(redis_kit: RedisKit) -> None:
    of = redis_kit.keys.of_run("order-1")
    own = [of.run, of.context, of.results, of.history]
    keys = [*own, of.due, of.deleted, of.dead, of.blobs, of.definitions, of.versions, of.generations]
    keys += [of.journal, of.stream]
    redis_kit.store.bury("order-1", "order-1", {})
    redis_kit.store.bury("order-1", "order-5", {})

    for number in range(5):
        redis_kit.begin()
        redis_kit.end()
        args = ["order-1", of.sent(""), of.indexes, of.attributes, "completed", f"stone-{number}", 3, 100, "order-1"]
        assert run(redis_kit, "delete", keys, args)[0] == 1

    assert redis_kit.client.zrange(of.deleted, 0, -1) == ["stone-2", "stone-3", "stone-4"]
    assert redis_kit.client.hkeys(of.dead) == ["order-5"]
    assert run(redis_kit, "delete", keys, [*args[:5], "stone-9", 3, 100])[0] == 0
    redis_kit.begin()
    assert run(redis_kit, "delete", keys, [*args[:5], "stone-9", 3, 100])[0] == -1


def test_load_returns_the_time_and_every_field(redis_kit: RedisKit) -> None:
    redis_kit.begin()
    of = redis_kit.keys.of_run("order-1")

    now, *flat = run(redis_kit, "load", [of.run], [])

    assert abs(now - now_ms(redis_kit)) < 5_000
    assert dict(zip(flat[::2], flat[1::2], strict=True)) == redis_kit.client.hgetall(of.run)
    assert len(run(redis_kit, "load", [f"{of.run}-none"], [])) == 1


def test_tick_never_goes_back(redis_kit: RedisKit) -> None:
    now = now_ms(redis_kit)
    written = [redis_kit.store.schedules.ticked("nightly", at) for at in (now, now - 60_000)]
    redis_kit.store.schedules.ticked("hourly", 5)

    assert written == [True, False]
    assert redis_kit.store.schedules.state("nightly") == (now, None)
    assert redis_kit.store.schedules.state("hourly") == (5, None)


def test_program_add_lets_the_oldest_go_that_is_not_in_place(redis_kit: RedisKit) -> None:
    key = redis_kit.keys.of_key("ask").programs("ask")
    for version in range(1, 6):
        run(redis_kit, "program_add", [key], [f"token-{version}", "{}", "{}", 3])
        redis_kit.client.hset(key, mapping={"current": "2", "canary": "0", "former": ",0,1,"})

    fields = redis_kit.client.hgetall(key)

    assert {name for name in fields if name.startswith(("v:", "m:", "token:"))} == {
        f"{kind}:{version}" for kind in ("v", "m", "token") for version in (1, 2, 5)
    }
    assert {fields[name] for name in fields if name.startswith("t:")} == {"1", "2", "5"}


def test_program_place_takes_one_of_two_changes_at_once(redis_kit: RedisKit) -> None:
    programs = redis_kit.store.programs
    key = redis_kit.keys.of_key("ask").programs("ask")
    for name in ("one", "other"):
        programs.add("ask", {}, {}, token=name)

    answers = [run(redis_kit, "program_place", [key], [0, version, 0, "0.0", ",0,", "{}", 9])[0] for version in (1, 2)]

    assert answers == [1, 0]
    assert programs.placement("ask") == Placement(1, current=1, former=(0,))


def test_examples_page_gives_of_each_how_its_run_stands(redis_kit: RedisKit) -> None:
    learned(redis_kit)
    part = redis_kit.keys.of_run("order-1")
    keys = [part.examples("ask"), part.example("ask")]

    now, member, at, text, status, edited, feedback = run(redis_kit, "examples_page", keys, [part.runs, "", 10, 60_000])

    assert (member, text, status, edited, feedback) == ("order-1|reserve", LESSON.text, "running", "", "")
    assert 0 <= now - int(at) < 60_000
    assert run(redis_kit, "examples_page", keys, [part.runs, at, 10, 60_000])[1:] == []


def test_examples_feedback_names_the_steps_that_it_could_be_about(redis_kit: RedisKit) -> None:
    learned(redis_kit)
    of = redis_kit.keys.of_run("order-1")

    def said(step: str, transaction_id: str = "order-1") -> Any:
        return run(redis_kit, "examples_feedback", [of.run, of.examples_of], [transaction_id, "", step, "[1]"])

    assert (said("reserve")[0], said("reserve")[2:]) == (1, ["order-1", "reserve"])
    assert (said("other")[0], said("other")[2:]) == (0, ["order-1", "reserve"])


def test_examples_forget_leaves_those_of_the_run_that_is_there(redis_kit: RedisKit) -> None:
    learned(redis_kit)
    of = redis_kit.keys.of_run("order-1")

    assert run(redis_kit, "examples_forget", [of.run, of.examples_of], ["order-1"])[0] == 0


def test_examples_tidy_drops_so_many_at_once(redis_kit: RedisKit) -> None:
    learned_and_gone(redis_kit)
    learned_and_gone(redis_kit)
    learners = redis_kit.keys.of_run("order-1").learners

    assert run(redis_kit, "examples_tidy", [learners], [1, 0])[0] == 0
    assert run(redis_kit, "examples_tidy", [learners], [1, 10])[0] == 1
    assert redis_kit.client.exists(learners) == 0


def test_take_due_asks_for_the_next_in_all_partitions(redis_kit: RedisKit) -> None:
    # One partition has something, the others have nothing: nothing is due at once.
    redis_kit.begin(dispatch=Dispatch("reserve", "d1", Delivery.TIMER, delay_ms=60_000))

    assert redis_kit.store.take_due() == ([], pytest.approx(60, abs=1))


def test_take_due_does_not_look_at_the_lists_at_every_tick(redis_kit: RedisKit) -> None:
    redis_kit.begin()
    redis_kit.store.take_due()
    redis_kit.client.config_resetstat()

    for _ in range(10):
        redis_kit.store.take_due()

    looked = redis_kit.client.info("commandstats").get("cmdstat_lindex", {"calls": 0})["calls"]
    assert looked <= 3


def test_take_due_looks_at_a_page_of_the_lists_however_many_there_are(redis_kit: RedisKit) -> None:
    part = redis_kit.keys.of_run("order-1")
    redis_kit.client.hset(part.sequence, mapping={f"tenant-{number}": number for number in range(2_000)})
    redis_kit.begin()
    redis_kit.consume()
    looks: list[int] = []
    for _ in range(40):
        redis_kit.client.hset(part.meta, "looked", 0)
        redis_kit.client.config_resetstat()
        redis_kit.store.take_due(limit=0)
        looks.append(redis_kit.client.info("commandstats")["cmdstat_zcard"]["calls"])

    assert max(looks) < 300
    # And every list had its turn.
    assert redis_kit.client.zcard(part.sent(LIST)) == 0


def test_take_due_copies_no_more_of_others_messages_than_it_needs(redis_kit: RedisKit) -> None:
    redis_kit.begin()
    for _ in range(500):
        redis_kit.publish("x" * 50_000)
    redis_kit.consume()
    redis_kit.client.config_resetstat()

    redis_kit.store.take_due()

    assert redis_kit.client.info("commandstats")["cmdstat_lindex"]["calls"] == 1
    assert "cmdstat_lrange" not in redis_kit.client.info("commandstats")


def test_hold_puts_off_what_waits_and_nothing_else(redis_kit: RedisKit) -> None:
    lost(redis_kit)
    part = redis_kit.keys.of_run("order-1")
    redis_kit.client.zadd(part.due, {DueKind.ATTEMPT.entry("order-1", "reserve", "d1"): 1})

    assert run(redis_kit, "hold", [part.due], [60_000, part.runs, "order-1", "reserve", "d2"]) == [0]
    assert run(redis_kit, "hold", [part.due], [60_000, part.runs, "order-9", "reserve", "d1"]) == [0]
    assert redis_kit.client.zscore(part.due, DueKind.ATTEMPT.entry("order-1", "reserve", "d1")) == 1
    assert run(redis_kit, "hold", [part.due], [60_000, part.runs, "order-1", "reserve", "d1"]) == [1]
    until = redis_kit.client.zscore(part.due, DueKind.ATTEMPT.entry("order-1", "reserve", "d1"))
    assert abs(until - now_ms(redis_kit) - 60_000) < 5_000

    redis_kit.claim()
    assert run(redis_kit, "hold", [part.due], [60_000, part.runs, "order-1", "reserve", "d1"]) == [0]


def test_a_commit_and_a_start_declare_the_keys_they_write(redis_kit: RedisKit) -> None:
    of = redis_kit.keys.of_run("order-1")
    commit = Commit("order-1", [], moved=("contract", "running", "completed"))

    assert len(keys_of(of, commit)) == len(keys_of(of, Commit("order-1", []))) == 12
    assert {of.index("running"), of.index("completed", "contract")} < set(keys_of(of, commit))
    assert arguments_of(of, commit, Written.of(commit, Writing(PLAIN)))


def test_lock_says_who_has_it_and_how_many_wait_before(redis_kit: RedisKit) -> None:
    redis_kit.store.isolation.lock("sku-7", "a~1", asking_ms=5_000)
    redis_kit.store.isolation.lock("sku-7", "b~1", asking_ms=5_000)
    part = redis_kit.keys.of_partition(redis_kit.keys.partition_of("sku-7"))
    keys = [part.lock("sku-7"), part.lock_line("sku-7"), part.lock_asking("sku-7"), part.meta, part.due]

    reply = run(redis_kit, "lock", keys, [DueKind.LOCK.entry("sku-7"), "c~1", 0, 5_000, 0, 60_000, 30_000])

    assert [reply[0], *reply[2:]] == [0, 1, "a~1", 1]
    assert redis_kit.client.zrange(part.due, 0, -1) == [DueKind.LOCK.entry("sku-7")]


def test_unlock_leaves_the_lock_of_another_grant(redis_kit: RedisKit) -> None:
    redis_kit.store.isolation.lock("sku-7", "a~1", asking_ms=5_000)
    part = redis_kit.keys.of_partition(redis_kit.keys.partition_of("sku-7"))

    assert run(redis_kit, "unlock", [part.lock("sku-7"), part.due], [DueKind.LOCK.entry("sku-7"), 2]) == [0]
    assert run(redis_kit, "unlock", [part.lock("sku-7"), part.due], [DueKind.LOCK.entry("sku-7"), 1]) == [1]
    assert redis_kit.client.zcard(part.due) == 0


def test_limit_says_when_to_come_again_one_after_the_other(redis_kit: RedisKit) -> None:
    part = redis_kit.keys.of_partition(redis_kit.keys.partition_of("bank"))
    keys = [part.slots("bank"), part.next_start("bank"), part.limited("bank"), part.meta]

    replies = [
        run(redis_kit, "limit", keys, [f"run-{number}/pay/do/1", 1, 0, 500, 0, 30_000, 20, 510]) for number in range(4)
    ]

    waits = [reply[2] for reply in replies]
    assert [reply[0] for reply in replies] == [1, 0, 0, 0]
    assert waits[0] == 0
    assert waits[1] == 500
    assert 500 < waits[2] <= 510
    assert waits[3] == 510, "nobody is sent away for longer than that"


def test_postpone_brings_back_nothing_that_is_gone(redis_kit: RedisKit) -> None:
    redis_kit.begin()
    due = redis_kit.keys.of_run("order-1").due
    before = redis_kit.client.zrange(due, 0, -1)

    redis_kit.store.postpone(ENTRY, "order-1", 5_000)

    assert redis_kit.client.zrange(due, 0, -1) == before


def test_bury_keeps_the_last_letter_of_a_name(redis_kit: RedisKit) -> None:
    for why in ("one", "two"):
        redis_kit.store.bury("order-1", "order-1", {"why": why})

    assert redis_kit.store.dead_letter("order-1", "order-1") == {"why": "two"}


def test_tidy_leaves_the_numbering_of_lists_in_which_something_waits(redis_kit: RedisKit) -> None:
    numbers = redis_kit.keys.of_run("order-1").sequence
    for name, number in (("old", 7), ("older", 9), ("foreign", 3), (LIST, 0)):
        redis_kit.client.hset(numbers, name, number)
    redis_kit.begin()
    redis_kit.client.lpush("foreign", "somebody else's")

    redis_kit.store.tidy(60_000)
    redis_kit.store.tidy(60_000)

    assert redis_kit.client.hgetall(numbers) == {LIST: "1", "foreign": "3", "": "9"}


def test_announce_takes_away_before_it_writes(redis_kit: RedisKit) -> None:
    key = redis_kit.keys.of_partition(0).announced
    redis_kit.store.announce({"worker:a": {"queue": "x"}, "worker:b": {}})

    redis_kit.store.announce({"worker:a": {}}, gone=["worker:a", "worker:b", "worker:none"])

    assert redis_kit.client.hkeys(key) == ["worker:a"]


def test_G1_what_else_lies_under_the_name_of_a_queue_leaves_no_transition_half_done(redis_kit: RedisKit) -> None:
    redis_kit.client.set("odd", "no list")

    started = redis_kit.begin(dispatch=redis_kit.message("order-1", "reserve", name="odd"))

    assert started.created
    assert list(redis_kit.store.visibility.list_runs(statuses=list(RunStatus)).transaction_ids) == ["order-1"]
    assert len(redis_kit.store.history("order-1")) == 2
    assert redis_kit.store.visibility.unattended() == []
    assert redis_kit.wait_due() == [ENTRY]


def test_journal_open_says_how_much_can_be_replayed_and_what_was_fixed(redis_kit: RedisKit) -> None:
    asking(redis_kit)
    redis_kit.store.journal.finish(attempt(), "owner-1", "1", "hi")
    of = redis_kit.keys.of_run("order-1")

    reply = run(redis_kit, "journal_open", [of.run, of.journal], ["order-1", "reserve", "d1", "owner-1", "{}"])

    assert (reply[0], reply[2:]) == (1, [1, '{"seed":"7"}'])


def test_journal_begin_writes_what_is_kept_apart_only_where_it_begins(redis_kit: RedisKit) -> None:
    asking(redis_kit)
    of = redis_kit.keys.of_run("order-1")
    assert redis_kit.client.hlen(of.blobs) == 2  # the request, and the arguments for what undoes it

    redis_kit.store.journal.begin(attempt(), "another", CALL._replace(request=Request(text="z" * 40)))

    assert redis_kit.client.hlen(of.blobs) == 2


def test_journal_finish_writes_numbers_that_lua_would_round(redis_kit: RedisKit) -> None:
    asking(redis_kit)

    redis_kit.store.journal.finish(attempt(), "owner-1", "1", "hi", Usage(4_000_000, 5, 12_345_678_901_234))

    assert redis_kit.store.journal.usage("order-1", ["reserve"])["reserve"].micro_usd == 12_345_678_901_234
    [record] = redis_kit.store.journal.calls("order-1")
    assert record.usage == Usage(4_000_000, 5, 12_345_678_901_234)
    assert 0 <= to_ms(record.started) - now_ms(redis_kit) + 60_000 <= 60_000


def test_journal_refuse_passes_over_a_call_that_is_not_there(redis_kit: RedisKit) -> None:
    asking(redis_kit)

    assert redis_kit.store.journal.refuse(attempt(), "owner-1", ["7", "1"], "no JSON")

    assert [record.why for record in redis_kit.store.journal.calls("order-1")] == ["no JSON"]


def test_journal_restart_of_an_empty_journal_writes_nothing(redis_kit: RedisKit) -> None:
    redis_kit.begin()
    before = dump(redis_kit)

    assert redis_kit.store.journal.restart("order-1", "reserve")

    assert dump(redis_kit) == before


def test_journal_decide_of_a_call_that_waits_for_nobody_writes_nothing(redis_kit: RedisKit) -> None:
    asking(redis_kit)
    before = dump(redis_kit)

    assert redis_kit.store.journal.decide("order-1", "reserve", "1", {"approved": True}) is None

    assert dump(redis_kit) == before


def test_stream_append_writes_only_what_is_not_there_yet_and_tells_who_reads(redis_kit: RedisKit) -> None:
    claimed(redis_kit)
    of = redis_kit.keys.of_run("order-1")
    pubsub = redis_kit.client.pubsub()
    pubsub.subscribe(of.channel)
    assert pubsub.get_message(timeout=5)["type"] == "subscribe"
    head = ["order-1", "reserve", "d1", "owner-1"]

    for _ in range(2):
        assert run(redis_kit, "stream_append", [of.run, of.stream], [*head, 0, 9, of.channel, "item", "", "1"])[0] == 1

    [(name, fields)] = redis_kit.client.xrange(of.stream)
    assert fields == {"s": "reserve", "a": "d1", "k": "item", "f": "", "d": "1"}
    assert redis_kit.client.hmget(of.run, "streamed", "o:d:reserve") == [name, "d1|owner-1|1"]
    assert pubsub.get_message(timeout=5)["data"] == f"+{name}"
    assert pubsub.get_message(timeout=0.2) is None
    pubsub.close()


def test_journal_withhold_of_a_call_that_was_answered_writes_nothing(redis_kit: RedisKit) -> None:
    asking(redis_kit)
    redis_kit.store.journal.finish(attempt(), "owner-1", "1", "hi")
    before = dump(redis_kit)

    assert redis_kit.store.journal.withhold(attempt(), "owner-1", "1")

    assert dump(redis_kit) == before


def test_budget_reserve_keeps_an_account_until_its_period_is_over_and_for_a_while_after_it(redis_kit: RedisKit) -> None:
    reserve(redis_kit)

    [key] = redis_kit.client.keys("*:budget:*")
    assert abs(redis_kit.client.pexpiretime(key) - SHARED.ends_ms - 1_000) < 100
    assert redis_kit.client.hkeys(key) == ["b"]


def test_budget_settle_writes_numbers_that_lua_would_round(redis_kit: RedisKit) -> None:
    reserved(redis_kit)

    redis_kit.store.budgets.settle(SHARED, "call-1", "owner-1", Amount(12_345_678_901_234, 4_000_000))

    assert redis_kit.store.budgets.balance(SHARED).spent == Amount(12_345_678_901_234, 4_000_000)


def test_limit_end_lets_what_it_corrects_go_by_itself(redis_kit: RedisKit) -> None:
    isolation = redis_kit.store.isolation
    isolation.take_slot("bank", attempt(), every_us=1_000, call="1", weight=1_000)
    isolation.free_slot("bank", attempt(), call="1", later_us=9_000_000)

    key = redis_kit.keys.of_key("bank").next_start("bank")
    assert 10_000 < redis_kit.client.pttl(key) < 32_000
