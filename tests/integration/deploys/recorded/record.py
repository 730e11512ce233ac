"""Have a checkout of the project begin runs that stop half-way, and write down all that is in its Redis then.

    python tests/integration/deploys/recorded/record.py CHECKOUT [FILE]

See the README beside it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import redis

HERE = Path(__file__).parent
#: Where the app is; the checkout may have another one, or none.
APPS = HERE.parents[2] / "support" / "apps"
#: Leases (and retries, and sleeps, in the app) are longer than a recording takes, and over when it is played.
SETTINGS = {
    "MULTIAGENTS_LEASE": "15",
    "MULTIAGENTS_SWEEP_INTERVAL": "0.3",
    "MULTIAGENTS_SCHEDULE_TO_START": "3600",
    "MULTIAGENTS_CLAIM_CHECK_BYTES": "400",
}


def begin_runs(url: str, folder: Path, checkout: Path) -> Any:
    """Begin one run for each state that a run can be met in, with the code of the checkout, and kill its workers."""
    from recorded import app

    from multiagents import RedisEventBus, ResultEvent
    from multiagents.testing import WorkerProcess, wait_until
    from multiagents.testing.faults import FaultPlan

    orchestrator = app.multiagents
    plan = FaultPlan(folder / "faults")

    def worker(name: str, queue: str, **env: str) -> Any:
        env = {"PYTHONPATH": str(checkout), "RECORDING": "1", **plan.env, **env}
        log = folder / f"{name}.log"
        started = WorkerProcess(
            "recorded", log, pool="threads", concurrency=20, queues=[queue], name=name, cwd=APPS, env=env
        )
        return started.start()

    def start(workflow: str, identity: str, input: dict[str, Any] | None = None, **script: list[str]) -> Any:
        given = {**(input or {}), "script": {name.replace("__", "."): deeds for name, deeds in script.items()}}
        return orchestrator.start(f"recorded-{workflow}", given, transaction_id=identity)

    def until(identity: str, step: str, *statuses: str) -> None:
        def holds() -> bool:
            seen = orchestrator.get(identity).describe().steps.get(step)
            return seen is not None and seen.status in statuses

        wait_until(holds, 20, f"{step} of {identity} to be {statuses}")

    def until_in_list(name: str, length: int) -> None:
        wait_until(lambda: client.llen(name) == length, 20, f"{length} messages in {name}")

    client = redis.Redis.from_url(url, decode_responses=True)
    inline = worker("old", "celery")
    in_queue = worker(
        "old-queued", "queued", MULTIAGENTS_ORCHESTRATION="queued", MULTIAGENTS_ORCHESTRATOR_QUEUE="decisions"
    )
    inline.ready()
    in_queue.ready()

    # What is over, and kept.
    orchestrator.start(
        "recorded-branches", {"n": 1}, transaction_id="completed", attributes={"customer": "ann", "amount": 12}
    )
    start("branches", "completed-too")
    undone = start("branches", "compensated", d=["terminal"])
    start("branches", "failed-undo", d=["terminal"], b__undo=["terminal"])
    for identity in ("completed", "completed-too", "compensated", "failed-undo"):
        orchestrator.store.wait_for_end(identity, 20)

    # What goes forward.
    start("chain", "claimed", b=["hold"])
    start("chain", "large", {"text": "x" * 500}, b=["hold"])
    start("chain", "retrying", b=["fail"])
    start("branches", "joining", c=["hold"])
    start("posting", "posted", {"wanted": False})
    start("queued", "undecided")
    start("napping", "sleeping")
    start("album", "mapped", {"images": [1, 2, 3, 4, 5]}, **{"resize[1]": ["hold"]})
    start("family", "with-child", charge=["hold"])
    start("drafts", "looping", **{"review#2": ["hold"]})
    start("external", "answered")
    start("locking", "locked", {"sku": 7}, b=["hold"])
    start("metered", "limited", {"sku": 7}, a=["hold"])
    undone.fork("d", {"script": {"d": ["hold"]}}, transaction_id="forked")
    for identity, step in (("locked", "b"), ("limited", "a")):
        until(identity, step, "running")
    start("locking", "locked-out", {"sku": 7})
    start("metered", "turned-away", {"sku": 7})
    start("waiting", "waiting").signal("manager", {"approved": True}, actor="ann")
    start("waiting", "approving").signal("payment", {"amount": 12}, key="webhook-7")

    # What goes back.
    start("chain", "linked", c=["terminal"])
    start("chain", "undoing", c=["terminal"], b__undo=["hold"])
    start("family", "child-undone", ship=["terminal"], charge__undo=["hold"])
    start("parcel", "rolled-back", deliver=["terminal"], **{"drive#2": ["hold"]})
    cancelled = start("branches", "cancelled", c=["hold"])
    until("cancelled", "b", "succeeded")
    until("cancelled", "c", "running")
    cancelled.cancel(reason="changed my mind", actor="ann")

    # What waits for a person.
    paused = start("chain", "paused", b=["fail"])
    start("chain", "parked", b=["unknown"])
    start("transfer", "behind-pivot", c=["terminal"])
    start("probing", "probed", b=["unknown"])
    wait_until(lambda: paused.describe().steps["b"].error is not None, 20, "the failure")
    paused.pause(timers="stop", reason="an audit", actor="ann")

    # How they are known to stand still.
    for identity, step in {"claimed": "b", "large": "b", "with-child:payment": "charge", "forked": "d"}.items():
        until(identity, step, "running")
    for identity, step in {"mapped": "resize[1]", "looping": "review#2", "rolled-back": "drive#2"}.items():
        until(identity, step, "running")
    for identity, step in {"joining": "b", "sleeping": "a", "answered": "a", "mapped": "resize[2]"}.items():
        until(identity, step, "succeeded")
    for identity, step in {"waiting": "a", "approving": "paid", "locked-out": "a"}.items():
        until(identity, step, "succeeded")
    wait_until(lambda: orchestrator.get("probed").describe().steps["b"].probing, 20, "the probe")
    wait_until(lambda: orchestrator.get("parked").status == "paused", 20, "the parked run")
    wait_until(lambda: orchestrator.get("behind-pivot").status == "paused", 20, "the run behind its pivot")
    wait_until(lambda: orchestrator.get("retrying").describe().steps["b"].due_at, 20, "the retry")
    wait_until(lambda: orchestrator.get("turned-away").describe().steps["a"].due_at, 20, "the limit")
    wait_until(lambda: client.hget("ma:{0}:run:undoing", "l:b").startswith("u1|c|"), 20, "the undo")
    wait_until(lambda: client.hget("ma:{0}:run:child-undone:payment", "l:charge").startswith("u1|c|"), 20, "the undo")
    until_in_list("later", 2)  # the second step of "posted", and the second undo of "linked", as its link
    until_in_list("decisions", 1)

    # The worker dies between the second branch of a join and the decision that follows.
    plan.arm("store.advance", "kill_before")
    start("branches", "owed")
    plan.wait_until_fired()
    inline.kill()
    in_queue.kill()

    # With no worker left.
    start("chain", "not-begun")
    bus = RedisEventBus(url)
    bus.publish(
        ResultEvent(transaction_id="answered", correlation_id="answered/ship/do/1", step="ship", payload={"parcel": 9})
    )
    bus.close()
    return orchestrator


def dump(url: str) -> dict[str, Any]:
    """All keys of a database: type, content, and for how many more ms they live."""
    client = redis.Redis.from_url(url, decode_responses=True)
    keys: dict[str, Any] = {}
    for key in sorted(client.keys()):
        kind = client.type(key)
        keys[key] = {"type": kind, "value": _READ[kind](client, key)}
        if (left := client.pttl(key)) >= 0:
            keys[key]["expires_in"] = left
    return keys


def as_seen(orchestrator: Any) -> dict[str, Any]:
    """What users see of each run: `describe` and `history`."""
    return {
        run.transaction_id: {"describe": as_data(run.describe()), "history": as_data(run.history())}
        for run in sorted(orchestrator.list(limit=100), key=lambda run: run.transaction_id)
    }


#: Of a run's events and errors: what would make the file larger and tells nothing new.
_LEFT_OUT = ("transaction_id", "traceback")


def as_data(value: Any) -> Any:
    """The same in words of JSON; times are ms, what says nothing is left out."""
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, Mapping):
        data = {str(name): as_data(each) for name, each in value.items() if name not in _LEFT_OUT}
        return {name: each for name, each in data.items() if each}
    if isinstance(value, list | tuple):
        return [as_data(each) for each in value]
    return str(value) if isinstance(value, str) else value


def in_lines(value: Any, depth: int = 4) -> str:
    """As JSON, with a line for each key's field, item or event."""
    if not depth or not value or not isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ": "))
    if isinstance(value, list):
        return "[\n" + ",\n".join(in_lines(each, depth - 1) for each in value) + "\n]"
    fields = (f"{json.dumps(name)}: {in_lines(each, depth - 1)}" for name, each in value.items())
    return "{\n" + ",\n".join(fields) + "\n}"


def _stream(client: redis.Redis, key: str) -> dict[str, Any]:
    groups = {group["name"]: group["last-delivered-id"] for group in client.xinfo_groups(key)}
    return {"entries": client.xrange(key), "groups": groups}


_READ: dict[str, Any] = {
    "string": lambda client, key: client.get(key),
    "hash": lambda client, key: dict(sorted(client.hgetall(key).items())),
    "list": lambda client, key: client.lrange(key, 0, -1),
    "set": lambda client, key: sorted(client.smembers(key)),
    "zset": lambda client, key: {member: int(score) for member, score in client.zrange(key, 0, -1, withscores=True)},
    "stream": _stream,
}


def main(checkout: str, file: str = str(HERE / "runs.json")) -> None:
    root = Path(checkout).resolve()
    sys.path[:0] = [str(root), str(APPS)]
    from multiagents.embedded import EmbeddedServer

    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=root, text=True).strip()
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(folder) as server:
        os.environ |= {"CELERY_BROKER_URL": server.url, "MULTIAGENTS_REDIS_URL": server.url, **SETTINGS}
        try:
            orchestrator = begin_runs(server.url, Path(folder), root)
        except BaseException:
            for log in Path(folder).glob("old*.log"):
                print(log.read_text()[-4000:], file=sys.stderr)
            raise
        recorded = {
            "commit": commit,
            "recorded_at": round(time.time() * 1000),
            "keys": dump(server.url),
            "seen": as_seen(orchestrator),
        }
    # Where it was recorded is nobody's business: tracebacks name files, and messages their sender's host.
    text = in_lines(recorded).replace(f"{APPS.parents[2]}/", "").replace(f"{root}/", "")
    text = text.replace(f"@{socket.gethostname()}", "@localhost")
    Path(file).write_text(text + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
