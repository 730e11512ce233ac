"""Rule S26 over releases: runs that an older release has begun are finished by today's code.

What they had come to lies in `recorded/runs.json`; the README there says how it was recorded. It is loaded as if the
workers of that release had been killed twenty seconds ago, and a worker of today takes over: leases have run out,
retries and sleeps are due. Then each run has ended as its own release would have ended it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
import redis
from celery import Celery

from multiagents import Definition, Orchestrator, init_app
from multiagents.testing import WorkerProcess, wait_until
from multiagents.workflow.decider.evolve import fold
from tests.integration.deploys.recorded.record import as_seen
from tests.support import ROOT
from tests.support.apps import recorded as recorded_app
from tests.support.due import unfinished

RECORDING = Path(__file__).parent / "recorded" / "runs.json"
#: How long the workers have been away, in ms.
AWAY = 20_000
SETTINGS = {"lease": 2.0, "sweep_interval": 0.3, "claim_check_bytes": 400}

UNDONE = "a b b.undo a.undo"
#: Run -> how it ends, and what takes effect in all, each once, in whichever release.
ENDS = {
    "completed": ("completed", "a b c d"),
    "completed-too": ("compensated", "a b c d b.undo c.undo a.undo"),
    "compensated": ("compensated", "a b c b.undo c.undo a.undo"),
    "failed-undo": ("compensated", "a b c c.undo a.undo b.undo"),
    "claimed": ("completed", "a b c"),
    "large": ("completed", "a b c"),
    "retrying": ("completed", "a b c"),
    "joining": ("completed", "a b c d"),
    "owed": ("completed", "a b c d"),
    "forked": ("completed", "a b c d"),
    "posted": ("completed", "a b"),
    "undecided": ("completed", "a b"),
    "sleeping": ("completed", "a b"),
    "mapped": ("completed", "resize[0] resize[1] resize[2] resize[3] resize[4] b"),
    "looping": ("completed", "draft#1 review#1 draft#2 review#2 b"),
    "with-child": ("completed", "order ship"),
    "with-child:payment": ("completed", "charge receipt"),
    "answered": ("completed", "a b"),
    "locked": ("completed", "a b"),
    "locked-out": ("completed", "a b"),
    "limited": ("completed", "a"),
    "turned-away": ("completed", "a"),
    "waiting": ("completed", "a b"),
    "approving": ("completed", "a b"),
    "not-begun": ("completed", "a b c"),
    "linked": ("compensated", UNDONE),
    "undoing": ("compensated", UNDONE),
    "child-undone": ("compensated", "order order.undo"),
    "child-undone:payment": ("compensated", "charge receipt charge.undo"),
    "rolled-back": ("completed", "pack fly fly.undo drive#2 deliver#2"),
    "cancelled": ("cancelled", "a b b.undo c.undo a.undo"),
    "paused": ("completed", "a b c"),
    "parked": ("completed", "a c"),
    "behind-pivot": ("completed", "a b c"),
    "probed": ("completed", "a c"),
}


class Replay(NamedTuple):
    """The recorded runs, taken over by today's code and brought to their ends."""

    orchestrator: Orchestrator
    redis: redis.Redis
    #: what the older release had stored, and what it had shown of each run
    recorded: dict[str, Any]
    #: what today's code shows of each, before anything else happens
    seen: dict[str, Any]
    worker: WorkerProcess


def load(client: redis.Redis) -> dict[str, Any]:
    """Put the recording into a database, with all its times moved, and return it."""
    text = RECORDING.read_text()
    moved = round(time.time() * 1000) - AWAY - json.loads(text)["recorded_at"]
    # 13 digits are ms, wherever they stand: in scores, records, states, events, ids of a stream; 16 digits are us.
    text = re.sub(r"\b(\d{13})(\d{3})?\b", lambda found: f"{int(found[1]) + moved}{found[2] or ''}", text)
    recorded: dict[str, Any] = json.loads(text)
    for key, stored in recorded["keys"].items():
        _WRITE[stored["type"]](client, key, stored["value"])
        if "expires_in" in stored:
            client.pexpire(key, stored["expires_in"])
    return recorded


def _write_stream(client: redis.Redis, key: str, value: dict[str, Any]) -> None:
    for identity, entry in value["entries"]:
        client.xadd(key, entry, id=identity)
    for group, last in value["groups"].items():
        client.xgroup_create(key, group, last)


_WRITE: dict[str, Callable[..., Any]] = {
    "string": lambda client, key, value: client.set(key, value),
    "hash": lambda client, key, value: client.hset(key, mapping=value),
    "list": lambda client, key, value: client.rpush(key, *value),
    "set": lambda client, key, value: client.sadd(key, *value),
    "zset": lambda client, key, value: client.zadd(key, value),
    "stream": _write_stream,
}


class Deployment:
    """A database with the recording in it, a client, and a worker that is still to be started."""

    def __init__(self, url: str, folder: Path) -> None:
        self.redis = redis.Redis.from_url(url, decode_responses=True)
        self.recorded = load(self.redis)
        # The client has no code of these workflows, only what the older release has stored of them.
        self.app = Celery("client", broker=url, set_as_current=False)
        self.orchestrator = init_app(self.app, {**SETTINGS, "redis_url": url})
        env = {f"MULTIAGENTS_{name.upper()}": str(value) for name, value in SETTINGS.items()}
        env |= {"CELERY_BROKER_URL": url, "MULTIAGENTS_REDIS_URL": url, "PYTHONPATH": str(ROOT)}
        queues = ["celery", "later", "queued", "decisions"]
        log = folder / "today.log"
        self.worker = WorkerProcess(
            recorded_app.__name__, log, pool="threads", concurrency=8, queues=queues, cwd=ROOT, env=env
        )

    def until_ended(self, *identities: str) -> None:
        for identity in identities:
            self.orchestrator.store.wait_for_end(identity, 30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.worker.kill()
        print(self.worker.log)
        self.redis.close()
        self.app.close()


@pytest.fixture(scope="module")
def replay(new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    with Deployment(new_redis_url(), tmp_path_factory.mktemp("replay")) as today:
        seen = json.loads(json.dumps(as_seen(today.orchestrator)))
        today.worker.start().ready()
        act_as_people_do(today.orchestrator)
        today.until_ended(*ENDS)
        yield Replay(today.orchestrator, today.redis, today.recorded, seen, today.worker)


def act_as_people_do(orchestrator: Orchestrator) -> None:
    """What the runs wait for that no worker does."""
    orchestrator.get("waiting").signal("payment", {"amount": 12}, key="webhook-8")
    assert orchestrator.get("approving").signal("payment", {"amount": 12}, key="webhook-7") == "repeated"
    orchestrator.get("approving").signal("manager", {"approved": True}, actor="ann")
    orchestrator.get("paused").resume(reason="the audit is over")
    orchestrator.get("paused").update_timer("b", 0)
    orchestrator.get("parked").supply("b", {"b": "by hand"}, reason="asked the provider")
    orchestrator.get("behind-pivot").retry("c")
    orchestrator.get("completed-too").compensate(reason="sent back")
    [letter] = orchestrator.dead_letters().values()
    assert (letter.transaction_id, letter.step, letter["result"]) == ("failed-undo", "b", {"b": "done"})
    letter.retry(reason="the bank is back")


@pytest.mark.parametrize("identity", ENDS)
def test_S26_a_run_of_an_older_release_ends_as_that_would_have_ended_it(replay: Replay, identity: str) -> None:
    status, effects = ENDS[identity]

    run = replay.orchestrator.get(identity)
    snapshot = replay.orchestrator.store.load(identity)

    assert run.status == status
    # What the older release had done is not done again, and nothing is done or undone twice.
    done = replay.redis.lrange(f"journal:{identity}", 0, -1)
    before = replay.recorded["keys"].get(f"journal:{identity}", {"value": []})["value"]
    assert sorted(done) == sorted(effects.split())
    assert done[: len(before)] == before
    assert fold(snapshot.definition, identity, run.history()) == snapshot.state
    assert snapshot.in_flight == {}


@pytest.mark.parametrize("identity", ENDS)
def test_what_an_older_release_has_stored_of_a_run_reads_as_it_did_there(replay: Replay, identity: str) -> None:
    today, then = replay.seen[identity], replay.recorded["seen"][identity]
    if identity == "paused":  # its timers stand still, so they are due later and later
        for seen in (today["describe"], then["describe"]):
            del seen["deadline"], seen["steps"]["b"]["due_at"]
    for seen in (today["describe"], then["describe"]):
        for step in seen["steps"].values():
            step.pop("waiting_for", None)  # its workers were there, and are gone
            step.pop("has_result", None)  # not said then

    assert today == then


def test_the_recording_is_of_all_these_runs(replay: Replay) -> None:
    assert set(replay.recorded["seen"]) == set(ENDS)
    assert [run.transaction_id for run in replay.orchestrator.list(attributes={"customer": "ann"})] == ["completed"]


def test_S26_the_same_workflow_has_the_same_content_hash_in_both_releases(replay: Replay) -> None:
    built = {value for value in vars(recorded_app).values() if isinstance(value, Definition)}

    stored = replay.recorded["keys"]["ma:{0}:versions"]["value"]

    assert {f"{definition.name}|{definition.version}": definition.content_hash for definition in built} == stored
    kept = replay.recorded["keys"]["ma:{0}:definitions"]["value"]
    for name, text in kept.items():
        assert name.startswith("runs:") or Definition.from_json(text).to_json() == text


def test_results_errors_and_contexts_are_whole_though_two_releases_have_written_them(replay: Replay) -> None:
    def seen(identity: str) -> Any:
        return replay.orchestrator.get(identity).describe()

    assert seen("mapped").steps["resize"].result == [{f"resize[{n}]": "done"} for n in range(5)]
    assert seen("answered").context["parcel"] == 9
    assert (seen("parked").context["b"], seen("probed").context["b"]) == ("by hand", "found")
    assert seen("large").context["text"] == "x" * 500
    assert (seen("claimed").steps["b"].attempts, seen("claimed").steps["a"].worker) == (2, "old@localhost")
    assert (seen("linked").error.message, seen("cancelled").steps["c"].status) == ("it will never work", "compensated")
    assert seen("locked-out").context["stock"]["token"] > seen("locked").context["stock"]["token"]
    assert seen("forked").forked_from == "compensated"


def test_nothing_is_left_over_of_the_older_release(replay: Replay) -> None:
    store, keys = replay.orchestrator.store, replay.orchestrator.keys.of_partition(0)
    sent = replay.redis.keys(keys.sent("*"))

    def left() -> list[str]:
        return unfinished(replay.redis.zrange(keys.due, 0, -1))

    # The lock of a run that is over is looked after in an hour, unless somebody wants it.
    wait_until(lambda: left() == ["k|stock:7"], 10, f"the last entries to go: {left()}")

    assert store.visibility.unattended() == []
    assert replay.orchestrator.dead_letters() == {}
    assert [
        key for key in ("celery", "celery3", "later", "queued", "decisions", *sent) if replay.redis.exists(key)
    ] == []
    assert "ERROR" not in replay.worker.log


def test_messages_that_an_older_release_has_sent_are_understood(
    new_redis_url: Callable[[], str], tmp_path: Path
) -> None:
    with Deployment(new_redis_url(), tmp_path) as today:
        # Without entries the sweep has nothing to send again: what goes on does so by its message.
        today.redis.delete("ma:{0}:due")
        today.worker.start().ready()

        today.until_ended("not-begun", "posted", "undecided", "linked")
