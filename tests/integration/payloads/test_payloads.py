"""Secrets and large data on the way through real workers: what of them is in Redis, and what the steps get."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from multiagents.testing import wait_until
from tests.support.apps.large_and_secret import SCANS, SECRET, SECRETS, SIZE
from tests.support.letters import letter_about
from tests.support.scenario import Deployment

KEYS = "2026:bWluZSBpcyBhIGtleSBvZiB0aGlydHktdHdvIGJ5dGU="


@pytest.fixture
def deployed(new_redis_url: Callable[[], str], tmp_path: Path) -> Any:
    """Makes a deployment of the workers of `large_and_secret`, with these settings."""
    with ExitStack() as stack:

        def deploy(**settings: Any) -> Deployment:
            made = Deployment(new_redis_url(), tmp_path, **settings)
            stack.callback(made.__exit__)
            made.start_worker(app="tests.support.apps.large_and_secret").ready()
            return made

        yield deploy


def everything(client: redis.Redis) -> dict[str, str]:
    """All that is in a database, by key, uncompressed."""
    read: dict[str, Callable[[str], Any]] = {
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": client.smembers,
        "stream": client.xrange,
        "string": client.get,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "none": lambda _key: "gone meanwhile",
    }
    return {key: f"{key} {read[client.type(key)](key)!r}" for key in client.scan_iter("*")}


@pytest.mark.parametrize("mode", ["inline", "queued"])
def test_an_encrypted_run_leaves_its_secrets_nowhere_in_redis(deployed: Any, mode: str) -> None:
    made = deployed(
        mode=mode, payload_codec="gzip,aes-gcm", encryption_keys=KEYS, claim_check_bytes="80", redact="*card*"
    )
    seen: list[str] = []

    # When: a run takes a secret through its input, results, inputs, a heartbeat, errors, an undo and a dead letter.
    run = made.orchestrator.start(SECRETS, {"card": SECRET}, transaction_id="secrets-1")
    wait_until(lambda: seen.extend(everything(made.redis).values()) or run.status.is_end, 30, "the end of the run")
    state, history = run.describe(), run.history()
    letter = letter_about(made.orchestrator, "secrets-1/take/undo/1")
    seen += everything(made.redis).values()

    # Then: whoever has the key sees all of it.
    assert state.status == "compensation_failed"
    assert (state.steps["take"].result, state.steps["check"].result) == ({"taken": SECRET}, {"checked": SECRET})
    assert state.error.message == f"card {SECRET} was declined"
    assert [cause.message for cause in state.error.causes] == [f"undo of take: card {SECRET} cannot be refunded"]
    assert SECRET in repr([event for event in history if event.type == "error"])
    assert (letter["result"], letter["input"]["card"]) == ({"taken": SECRET}, "[redacted]")
    # And: who has not sees nothing, not now and not on the way; the dumps do show what is no secret.
    assert any("payload-secrets" in text for text in seen)
    assert [text for text in seen if SECRET in text] == []
    assert any("!@run:" in text for text in seen)


@pytest.mark.parametrize("apart", [False, True], ids=["beside-the-run", "in-a-redis-of-its-own"])
def test_a_result_of_2_mb_reaches_the_next_step_and_its_undo_by_a_claim_check(
    deployed: Any, new_redis_url: Callable[[], str], apart: bool
) -> None:
    other = new_redis_url()
    made = deployed(**({"claim_check_store": other} if apart else {}))
    store = redis.Redis.from_url(other, decode_responses=True)

    forward = made.orchestrator.start(SCANS, {}, transaction_id="scans-1")
    back = made.orchestrator.start(SCANS, {"refuse": True}, transaction_id="scans-2")
    result = forward.result(timeout=30)
    made.orchestrator.store.wait_for_end("scans-2", 30)

    # The undo of a scan fails unless it is given all of it.
    assert (result["measured"], len(result["scan"])) == (SIZE, SIZE)
    assert (back.status, back.describe().steps["scan"].status) == ("compensated", "compensated")
    of = made.orchestrator.keys.of_run("scans-1")
    sizes = {key: len(text) for key, text in everything(made.redis).items() if "scans-1" in key}
    assert sizes.pop(of.blobs, 0) > 0 or apart
    assert max(sizes.values()) < 10_000
    assert (store.hlen(of.blobs) > 0) is apart
    made.orchestrator.store.forget(made.orchestrator.store.load("scans-1").state.identity)
    assert store.exists(of.blobs) == made.redis.exists(of.blobs) == 0


def test_S27_a_worker_without_the_key_fails_its_step_and_says_which_one_it_lacks(deployed: Any) -> None:
    made = deployed(payload_codec="aes-gcm", encryption_keys=KEYS)
    # A caller on the same database, who has a newer key.
    newer = Deployment(
        made.url, made.folder, payload_codec="aes-gcm", encryption_keys=f"2027:{KEYS.partition(':')[2]},{KEYS}"
    )

    run = newer.orchestrator.start(SECRETS, {"card": SECRET}, transaction_id="secrets-2")
    newer.orchestrator.store.wait_for_end("secrets-2", 30)

    error = run.describe().error
    assert run.status == "failed"
    assert error.type == "multiagents.exceptions.DecodeError"
    assert 'was encrypted with the key "2027", which is not among multiagents_encryption_keys here' in error.message
