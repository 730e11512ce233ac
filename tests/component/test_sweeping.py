"""One bad thing holds up none of the others: runs that cannot be handled, and events that cannot be taken in."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Self
from uuid import uuid4

import pytest
import redis
from celery import Celery

from multiagents import Orchestrator, Run, WorkflowBuilder
from multiagents.event_bus import RedisEventBus
from multiagents.event_bus.base import MAX_DELIVERIES
from multiagents.exceptions import StateRefusedError, StateStoreError
from multiagents.keys import RunKeys
from multiagents.names import Direction
from multiagents.orchestrator.recovery import GROUP, Sweep, intake
from multiagents.orchestrator.recovery.intake import Intake
from multiagents.orchestrator.recovery.sweep import JITTER, SHORTEST_PAUSE
from multiagents.state_store.redis.scripts import script
from multiagents.testing import wait_until
from tests.support.letters import abouts, letter_about

NAP = WorkflowBuilder("sweeping_nap").add_sleep("nap", 0.01).add_step("last", external=True).build(register=False)
ASKS = WorkflowBuilder("sweeping_asks").add_step("ask", external=True).build(register=False)


@pytest.fixture
def orchestrator(new_redis_url: Callable[[], str]) -> Iterator[Orchestrator]:
    """An orchestrator on Redis; nothing goes on by itself."""
    app = Celery("sweeping", broker=new_redis_url(), set_as_current=False)
    made = Orchestrator(app, {"lease": 10, "sweep_interval": 1})
    yield made
    made.store.close()


@pytest.fixture
def client(orchestrator: Orchestrator) -> Iterator[Any]:
    with redis.Redis.from_url(str(orchestrator.runtime.address), decode_responses=True) as made:
        yield made


@pytest.fixture
def bus(orchestrator: Orchestrator) -> Iterator[RedisEventBus]:
    made = RedisEventBus(orchestrator.runtime.address, prefix=orchestrator.keys.prefix)
    yield made
    made.close()


def started(orchestrator: Orchestrator, workflow: Any, *names: str) -> list[Run]:
    return [orchestrator.start(workflow, {}, transaction_id=name) for name in names]


def keys(orchestrator: Orchestrator, name: str) -> RunKeys:
    return orchestrator.keys.of_run(name)


def make_due(orchestrator: Orchestrator, client: Any) -> None:
    time.sleep(0.02)  # the naps are over
    due = orchestrator.keys.of_partition(0).due
    for member in client.zrange(due, 0, -1):
        client.zadd(due, {member: 1_000})


def went_on(runs: list[Run]) -> list[bool]:
    return [str(run.describe().steps["nap"].status) == "succeeded" for run in runs]


def publish(client: Any, orchestrator: Orchestrator, name: str, payload: str, **fields: Any) -> None:
    event = {
        "type": "result",
        "version": 1,
        "id": f"{name}-answer",
        "transaction_id": name,
        "correlation_id": f"{name}/ask/do/1",
        "occurred_at": "2026-11-30T06:00:00Z",
        **fields,
    }
    text = json.dumps(event)[:-1] + f', "payload": {payload}}}'
    client.xadd(orchestrator.keys.of_partition(0).bus, {"event": text})


# --- the sweep -------------------------------------------------------------------------------------------------------


def wrong_type(orchestrator: Orchestrator, client: Any) -> None:
    run = keys(orchestrator, "a-bad").run
    client.delete(run)
    client.set(run, "no hash")


def wrong_type_of_results(orchestrator: Orchestrator, client: Any) -> None:
    results = keys(orchestrator, "a-bad").results
    client.delete(results)
    client.set(results, "no hash")


def wrong_type_of_history(orchestrator: Orchestrator, client: Any) -> None:
    history = keys(orchestrator, "a-bad").history
    client.delete(history)
    client.set(history, "no list")


def version_that_is_no_number(orchestrator: Orchestrator, client: Any) -> None:
    client.hset(keys(orchestrator, "a-bad").run, "epoch", "seven")


def record_of_another_make(orchestrator: Orchestrator, client: Any) -> None:
    client.hset(keys(orchestrator, "a-bad").run, "l:nap", "d1")


def state_that_is_no_json(orchestrator: Orchestrator, client: Any) -> None:
    client.hset(keys(orchestrator, "a-bad").run, "s:nap", "{")


def entries_that_are_none(orchestrator: Orchestrator, client: Any) -> None:
    due = orchestrator.keys.of_partition(0).due
    client.zadd(due, dict.fromkeys(["", "a", "a|", "a|x", "a|x|y|z|1", "q|a-bad", "k|", "|||", "?|x", "r", "x|"], 500))


def list_that_is_none(orchestrator: Orchestrator, client: Any) -> None:
    client.hset(orchestrator.keys.of_partition(0).sequence, "no-list", "1")
    client.set("no-list", "text")


SPOILS = [
    wrong_type,
    wrong_type_of_results,
    wrong_type_of_history,
    version_that_is_no_number,
    record_of_another_make,
    state_that_is_no_json,
    entries_that_are_none,
    list_that_is_none,
]


@pytest.mark.parametrize("after_an_outage", [False, True], ids=["", "after-an-outage"])
@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_S34_what_cannot_be_handled_holds_up_nothing_that_is_due_with_it(
    orchestrator: Orchestrator, client: Any, spoil: Callable[..., None], after_an_outage: bool
) -> None:
    _, *good = started(orchestrator, NAP, "a-bad", "b-1", "b-2", "b-3")
    sweep = Sweep(orchestrator.engine)
    spoil(orchestrator, client)
    make_due(orchestrator, client)
    if after_an_outage:
        client.hset(orchestrator.keys.of_partition(0).meta, "swept", 1_000)

    sweep.tick()

    assert went_on(good) == [True, True, True]


def test_S34_what_the_server_refuses_of_a_run_is_told_in_its_dead_letter(
    orchestrator: Orchestrator, client: Any
) -> None:
    started(orchestrator, NAP, "a-bad")
    wrong_type(orchestrator, client)
    make_due(orchestrator, client)

    Sweep(orchestrator.engine).tick()

    assert "WRONGTYPE" in letter_about(orchestrator, "a-bad").why


def test_a_server_that_is_away_ends_the_tick_and_one_that_refuses_a_call_does_not(
    orchestrator: Orchestrator, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = started(orchestrator, NAP, "a-bad")
    sweep = Sweep(orchestrator.engine)
    make_due(orchestrator, client)

    def fail(*_args: Any) -> None:
        raise StateStoreError("the state store did not answer in time")

    monkeypatch.setattr(orchestrator.store, "load", fail)
    assert sweep.tick() > 0  # it answers, so it was this call
    make_due(orchestrator, client)
    monkeypatch.setattr(orchestrator.store, "reach", fail)
    with pytest.raises(StateStoreError):
        sweep.tick()

    monkeypatch.undo()
    make_due(orchestrator, client)
    sweep.tick()
    assert went_on([run]) == [True]


def test_of_many_who_sweep_one_wakes_when_something_is_due(new_redis_url: Callable[[], str]) -> None:
    made = Orchestrator(Celery("sweeping", broker=new_redis_url(), set_as_current=False))
    nap = WorkflowBuilder("sweeping_later").add_sleep("nap", 0.4).build(register=False)
    run = made.start(nap, {}, transaction_id="b-1")
    sweeps = [Sweep(made.engine) for _ in range(20)]

    pauses = [sweep.tick() for sweep in sweeps for _ in range(2)]

    interval = made.settings.sweep_interval
    assert [at // 2 for at, pause in enumerate(pauses) if pause < 0.5 * interval] == [0, 0]
    assert all(JITTER * interval <= pause <= interval for pause in pauses[2:])
    assert len(set(pauses[2:])) > 30, "they would all come at once"
    time.sleep(0.4)
    sweeps[0].tick()
    assert str(run.status) == "completed"
    made.store.close()


class Commands:
    """The commands that clients send to a server while this is there, scripts by their names; not what scripts call."""

    def __init__(self, url: str) -> None:
        self._names = {script(name).sha: name for name in ("take_due", "load", "commit")}
        self.sent: Counter[str] = Counter()
        self._client = redis.Redis.from_url(url, decode_responses=True)
        self._end = f"end-{uuid4().hex}"
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        self._monitor = self._client.monitor()
        self._monitor.__enter__()
        self._thread.start()
        return self

    def _listen(self) -> None:
        while self._end not in (command := self._monitor.next_command())["command"]:
            if command["client_type"] != "lua":
                name, *args = command["command"].split()
                self.sent[self._names.get(args[0], "EVALSHA") if name == "EVALSHA" else name] += 1

    def __exit__(self, *_: object) -> None:
        self._client.echo(self._end)
        self._thread.join()
        self._monitor.connection.disconnect()
        self._client.close()


@pytest.mark.parametrize("sweepers", [1, 20])
def test_what_twenty_who_sweep_ask_of_the_server_is_hardly_more_than_what_one_does(
    new_redis_url: Callable[[], str], sweepers: int
) -> None:
    """Two hundred entries come due in each second, for three seconds; each is handled in three commands."""
    url, entries, apart_ms, interval = new_redis_url(), 600, 5, 1.0
    made = [
        Orchestrator(Celery("sweeping", broker=url, set_as_current=False), {"sweep_interval": interval})
        for _ in range(sweepers)
    ]
    runs = started(made[0], NAP, *(f"b-{number}" for number in range(entries)))
    due, over = made[0].keys.of_partition(0).due, threading.Event()

    def sweep(orchestrator: Orchestrator) -> None:
        mine = Sweep(orchestrator.engine)
        while not over.wait(mine.tick()):
            pass

    with redis.Redis.from_url(url, decode_responses=True) as client:
        seconds, micros = client.time()
        begins = seconds * 1000 + micros // 1000 + 500
        client.zadd(due, {member: begins + at * apart_ms for at, member in enumerate(client.zrange(due, 0, -1))})
        with Commands(url) as commands:
            threads = [threading.Thread(target=sweep, args=(each,)) for each in made]
            since = time.monotonic()
            for thread in threads:
                thread.start()
            try:
                wait_until(lambda: client.zcount(due, 0, begins + 120_000) == 0, 60, "all of them")
                took = time.monotonic() - since
            finally:
                over.set()
                for thread in threads:
                    thread.join()

    looks, asked = commands.sent["take_due"], commands.sent["ZCOUNT"]
    others = commands.sent.total() - looks - asked
    print(f"\n    {sweepers} sweeping: {looks / took:.0f} looks a second, {others / entries:.2f} commands an entry")
    assert went_on(runs) == [True] * entries
    # Whoever wakes pauses at least that long; each of the others looks once an interval, and once at the beginning.
    assert looks <= took / SHORTEST_PAUSE + sweepers * (took / (JITTER * interval) + 2)
    assert others <= 3 * entries * 1.1 + 10 * sweepers
    for orchestrator in made:
        orchestrator.store.close()


def test_who_leaves_a_run_to_others_lets_another_wake(orchestrator: Orchestrator, client: Any) -> None:
    started(orchestrator, NAP, "a-bad")
    one, two = Sweep(orchestrator.engine), Sweep(orchestrator.engine)
    one.tick()
    state_that_is_no_json(orchestrator, client)
    make_due(orchestrator, client)
    assert one.tick() >= JITTER
    meta = orchestrator.keys.of_partition(0).meta
    client.hset(meta, "wakes", 0)  # the time is over for which he is the one

    one.tick()
    mine = client.hget(meta, "wakes")
    two.tick()

    assert mine == "0"
    assert int(client.hget(meta, "wakes")) > 0


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("WRONGTYPE Operation against a key holding the wrong kind of value", True),
        ("attempt to perform arithmetic on a nil value script: 0, on @user_script:14.", True),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", False),
        ("MISCONF Redis is configured to save RDB snapshots, but is currently unable to persist on disk.", False),
        ("NOREPLICAS Not enough good replicas to write.", False),
    ],
)
def test_a_refusal_of_one_call_is_told_from_a_server_that_does_none(
    orchestrator: Orchestrator, answer: str, refused: bool
) -> None:
    def do() -> None:
        raise redis.ResponseError(answer)

    with pytest.raises(StateStoreError) as raised:
        orchestrator.store._server.call(do)  # type: ignore[attr-defined]

    assert isinstance(raised.value, StateRefusedError) is refused


# --- the bus ---------------------------------------------------------------------------------------------------------

#: What is no event that anybody could read.
UNREADABLE = {
    "a number beyond all numbers": '{"total": 1e999}',
    "nested too deep": "[" * 300 + "]" * 300,
    "no text that can be written": '{"name": "\\ud800"}',
}


@pytest.mark.parametrize("payload", UNREADABLE)
def test_S23_S34_an_event_that_cannot_be_read_holds_up_none(
    orchestrator: Orchestrator, client: Any, bus: RedisEventBus, payload: str
) -> None:
    bad, behind, later = started(orchestrator, ASKS, "bad", "behind", "later")
    reader = Intake(bus, orchestrator.engine, "one")
    publish(client, orchestrator, "bad", UNREADABLE[payload])
    publish(client, orchestrator, "behind", '{"ok": 1}')

    reader.read()
    publish(client, orchestrator, "later", '{"ok": 1}')
    reader.read()

    assert [str(run.status) for run in (bad, behind, later)] == ["running", "completed", "completed"]
    assert client.xpending(orchestrator.keys.of_partition(0).bus, GROUP)["pending"] == 0
    assert len(bus.dead_letters()) == 1


def test_S23_S34_an_event_over_which_the_engine_breaks_is_a_dead_letter_and_holds_up_none(
    orchestrator: Orchestrator, client: Any, bus: RedisEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, behind = started(orchestrator, ASKS, "bad", "behind")
    receive = orchestrator.engine.receive

    def breaks(event: Any) -> None:
        if event.transaction_id == "bad":
            raise ZeroDivisionError("a fault of the engine")
        receive(event)

    monkeypatch.setattr(orchestrator.engine, "receive", breaks)
    publish(client, orchestrator, "bad", '{"ok": 1}')
    publish(client, orchestrator, "behind", '{"ok": 1}')

    Intake(bus, orchestrator.engine, "one").read()

    letter = letter_about(orchestrator, "bad/ask/do/1")
    assert "could not be taken in: ZeroDivisionError: a fault of the engine" in letter.why
    assert letter["event"]["payload"] == {"ok": 1}
    assert [str(run.status) for run in (bad, behind)] == ["running", "completed"]
    assert client.xpending(orchestrator.keys.of_partition(0).bus, GROUP)["pending"] == 0


def test_S23_S34_an_event_of_a_run_that_cannot_be_read_comes_again_and_is_then_a_dead_letter(
    orchestrator: Orchestrator, client: Any, bus: RedisEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, behind = started(orchestrator, ASKS, "a-bad", "behind")
    monkeypatch.setattr(intake, "STALE_AFTER", 0.0)
    wrong_type(orchestrator, client)
    publish(client, orchestrator, "a-bad", '{"ok": 1}')
    publish(client, orchestrator, "behind", '{"ok": 1}')
    reader = Intake(bus, orchestrator.engine, "one")

    for _ in range(MAX_DELIVERIES - 1):
        reader.take()
    assert "a-bad/ask/do/1" not in abouts(orchestrator.dead_letters())
    assert str(behind.status) == "completed"

    reader.take()
    assert letter_about(orchestrator, "a-bad/ask/do/1")["event"]["payload"] == {"ok": 1}
    assert client.xpending(orchestrator.keys.of_partition(0).bus, GROUP)["pending"] == 0


def test_an_event_that_waited_for_its_run_to_be_readable_again_counts(
    orchestrator: Orchestrator, client: Any, bus: RedisEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = started(orchestrator, ASKS, "a-bad")
    monkeypatch.setattr(intake, "STALE_AFTER", 0.0)
    name = keys(orchestrator, "a-bad").run
    client.rename(name, "aside")
    client.set(name, "no hash")
    publish(client, orchestrator, "a-bad", '{"ok": 1}')
    reader = Intake(bus, orchestrator.engine, "one")
    reader.take()

    client.rename("aside", name)
    reader.take()

    assert str(run.status) == "completed"


def test_events_wait_on_the_bus_while_the_store_is_away(
    orchestrator: Orchestrator, client: Any, bus: RedisEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = started(orchestrator, ASKS, "good")
    monkeypatch.setattr(intake, "STALE_AFTER", 0.0)
    publish(client, orchestrator, "good", '{"ok": 1}')
    reader = Intake(bus, orchestrator.engine, "one")

    def fail(*_args: Any) -> None:
        raise StateStoreError("the state store did not answer in time")

    with monkeypatch.context() as patch:
        patch.setattr(orchestrator.store, "load", fail)
        patch.setattr(orchestrator.store, "reach", fail)
        with pytest.raises(StateStoreError):
            reader.take()

    reader.take()
    assert str(run.status) == "completed"
    assert orchestrator.dead_letters() == {}


# --- a step's own limit, while its message is on its way -----------------------------------------------------------


def test_S33_a_step_whose_time_is_over_while_a_worker_hands_its_message_back_fails_all_the_same(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = WorkflowBuilder(f"late-{uuid4().hex}").add_step("b", "unheard_of", schedule_to_start=0.05).build()
    run = orchestrator.start(flow, {})
    sweep, engine = Sweep(orchestrator.engine), orchestrator.engine
    give_up = engine.give_up

    def meanwhile(*args: Any, **kwargs: Any) -> bool:
        # A worker that does not know the task had the message, and sends it round again: another record is there.
        monkeypatch.setattr(engine, "give_up", give_up)
        engine.not_registered(orchestrator.store.load(run.transaction_id).state.correlation("b", Direction.DO, 1))
        return give_up(*args, **kwargs)

    monkeypatch.setattr(engine, "give_up", meanwhile)
    time.sleep(0.1)

    def ticks() -> bool:
        sweep.tick()
        return run.status.is_end

    wait_until(ticks, 10, "the end of the run")
    assert engine.give_up is give_up, "the race did not happen"
    error = run.describe().error
    assert error is not None
    assert error.type == "ScheduleToStartTimeout"
