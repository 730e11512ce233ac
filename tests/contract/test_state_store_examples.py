"""What agents leave to learn from: one suite over memory and Redis."""

from __future__ import annotations

import json
from typing import Any

import pytest

from multiagents.names import Correlation, Direction
from multiagents.state_store.payloads import PLAIN, PayloadPolicy
from multiagents.state_store.payloads.codecs.cryptography import AESGCMCodec
from multiagents.state_store.payloads.redaction import redactor
from multiagents.state_store.records import (
    Committed,
    Delivery,
    Example,
    Experience,
    Feedback,
    Lesson,
    Traced,
    Verdict,
    record_prefix,
)
from multiagents.workflow.state import RunStatus
from tests.support.store_kit import FLOW, OWNER, RUN, STEP, MemoryKit, RedisKit, StoreKit

AGENT = "researcher"
DAY = 86_400_000
KEPT = 90 * DAY
ASKED = {"question": "Why?"}
ANSWERED = Experience(
    ASKED, {"answer": "Because."}, (Traced("self", ASKED, {"answer": "Because."}),), models=("small",)
)


def lesson(about: Experience = ANSWERED, *, policy: PayloadPolicy = PLAIN, **fields: Any) -> Lesson:
    text = about.written(policy)
    assert text is not None
    return Lesson(**({"worker": AGENT, "step": STEP, "text": text, "most": 10_000, "keep_ms": KEPT} | fields))


def take(kit: StoreKit, transaction_id: str = RUN, nonce: str = "", **begun: Any) -> None:
    """Begin a run whose first step a worker has in hand."""
    kit.begin(transaction_id, nonce=nonce, **begun)
    attempt = Correlation(transaction_id, STEP, Direction.DO, 1, nonce)
    kit.store.claim(attempt, FLOW.content_hash, owner=OWNER, worker="w", timeout=None)


def learn(kit: StoreKit, transaction_id: str = RUN, nonce: str = "", **fields: Any) -> Committed:
    """A run whose first step has left an example."""
    take(kit, transaction_id, nonce)
    return kit.finish(transaction_id=transaction_id, nonce=nonce, lesson=lesson(**fields))


def examples(kit: StoreKit, worker: str = AGENT, keep_ms: int = KEPT, limit: int | None = None) -> list[Example]:
    return list(kit.store.examples.all(worker, keep_ms, limit))


def runs(kit: StoreKit, **asked: Any) -> list[str]:
    return [each.transaction_id for each in examples(kit, **asked)]


# --- how it comes to be there ----------------------------------------------------------------------------------------


def test_what_ends_an_attempt_leaves_its_example(kit: StoreKit) -> None:
    before = kit.store.now()

    assert learn(kit, nonce="n-1").verdict is Verdict.APPLIED

    [example] = examples(kit)
    assert (example.worker, example.transaction_id, example.nonce, example.step) == (AGENT, RUN, "n-1", STEP)
    assert example.experience == ANSWERED
    assert (example.outcome, example.edited, example.score) == ("running", False, None)
    assert 0 <= (example.at - before).total_seconds() < 60


def test_an_attempt_that_is_not_this_workers_any_more_leaves_none(kit: StoreKit) -> None:
    take(kit)

    late = kit.finish(answers=(STEP, record_prefix("d1", Delivery.CLAIMED, "somebody else")), lesson=lesson())

    assert late.verdict is Verdict.LATE
    assert examples(kit) == []


def test_an_attempt_that_is_committed_twice_leaves_one_example(kit: StoreKit) -> None:
    learn(kit)

    assert kit.finish(lesson=lesson()).verdict is Verdict.LATE

    assert len(examples(kit)) == 1


def test_a_later_attempt_takes_the_place_of_the_one_before_it(kit: StoreKit) -> None:
    take(kit)
    again = {"steps": {}, "dispatches": [kit.message(RUN, STEP, "d2")]}
    kit.finish(lesson=lesson(Experience(ASKED, error="no answer")), **again)
    kit.claim(attempt=2)

    kit.finish(attempt_key="d2", lesson=lesson(ANSWERED._replace(attempt=2)))

    assert [each.experience for each in examples(kit)] == [ANSWERED._replace(attempt=2)]


def test_a_commit_without_one_leaves_none(kit: StoreKit) -> None:
    take(kit)
    kit.finish()

    assert examples(kit) == []
    assert "learned" not in kit.stored()["fields"]


# --- how its saga ended ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [status.value for status in RunStatus if status.is_end])
def test_it_says_how_its_run_has_ended(kit: StoreKit, status: str) -> None:
    learn(kit)
    kit.end(status=status)

    assert [each.outcome for each in examples(kit)] == [status]


def test_it_follows_a_run_that_comes_back_from_its_end(kit: StoreKit) -> None:
    learn(kit)
    kit.end(status="completed")
    kit.end(status="compensated")

    assert [each.outcome for each in examples(kit)] == ["compensated"]


def test_it_outlives_its_run_and_knows_how_that_ended(kit: StoreKit) -> None:
    learn(kit, nonce="n-1")
    kit.end(status="compensated")

    assert kit.store.forget(f"{RUN}~n-1")

    assert [(each.outcome, each.inputs) for each in examples(kit)] == [("compensated", ASKED)]


def test_a_run_that_is_replaced_has_ended_as_it_had(kit: StoreKit) -> None:
    learn(kit, nonce="n-1")
    kit.end(status="failed")

    take(kit, nonce="n-2", replaces=[RunStatus.FAILED])
    kit.finish(nonce="n-2", lesson=lesson())

    assert [(each.nonce, each.outcome) for each in examples(kit)] == [("n-2", "running"), ("n-1", "failed")]


def test_it_says_that_a_person_has_settled_something_in_the_run(kit: StoreKit) -> None:
    learn(kit)
    kit.end(header={"status": "completed", "finished": "1", "edited": "1"})
    assert [each.edited for each in examples(kit)] == [True]

    kit.store.forget(RUN)

    assert [(each.outcome, each.edited) for each in examples(kit)] == [("completed", True)]


# --- what people say -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [False, True])
def test_what_was_said_last_counts_also_when_the_run_is_gone(kit: StoreKit, gone: bool) -> None:
    learn(kit)
    kit.end()
    if gone:
        kit.store.forget(RUN)
    kit.store.examples.feedback(RUN, Feedback(0.2, "too short"))

    given = kit.another().examples.feedback(RUN, Feedback(0.9, "good", "ann"))

    assert given == ([STEP], [STEP])
    [said] = [each.feedback for each in examples(kit)]
    assert said is not None
    assert said[:3] == (0.9, "good", "ann")
    assert abs(said.at / 1000 - kit.store.now().timestamp()) < 60


def test_what_is_said_of_one_step_is_said_of_no_other(kit: StoreKit) -> None:
    take(kit)
    kit.finish(lesson=lesson(), asks=["fraud"])
    kit.claim("fraud")
    kit.finish("fraud", lesson=lesson(step="fraud", worker="judge"))

    given = kit.store.examples.feedback(RUN, Feedback(0.5), step="fraud")

    assert (given.given, sorted(given.steps)) == (["fraud"], ["fraud", STEP])
    assert [each.score for each in examples(kit)] == [None]
    assert [each.score for each in examples(kit, "judge")] == [0.5]


def test_what_is_said_of_a_run_is_said_of_none_that_had_its_id_before(kit: StoreKit) -> None:
    learn(kit, nonce="n-1")
    kit.end()
    take(kit, nonce="n-2", replaces=[RunStatus.COMPLETED])
    assert kit.store.examples.feedback(RUN, Feedback(0.5)).steps == []

    kit.store.examples.feedback(RUN, Feedback(0.7), nonce="n-1")

    assert [(each.nonce, each.score) for each in examples(kit)] == [("n-1", 0.7)]


def test_what_is_said_of_ids_that_are_gone_is_said_of_the_last_one(kit: StoreKit) -> None:
    for nonce in ("n-1", "n-2"):
        learn(kit, nonce=nonce)
        kit.end()
        kit.store.forget(f"{RUN}~{nonce}")

    kit.store.examples.feedback(RUN, Feedback(1.0))

    assert [(each.nonce, each.score) for each in examples(kit)] == [("n-2", 1.0), ("n-1", None)]


def test_a_step_that_is_done_anew_has_nothing_said_of_it(kit: StoreKit) -> None:
    take(kit)
    kit.finish(lesson=lesson(), steps={}, dispatches=[kit.message(RUN, STEP, "d2")])
    kit.store.examples.feedback(RUN, Feedback(1.0))
    kit.claim(attempt=2)

    kit.finish(attempt_key="d2", lesson=lesson())

    assert [each.score for each in examples(kit)] == [None]


# --- how it goes -----------------------------------------------------------------------------------------------------


def test_a_run_that_is_deleted_takes_its_examples_along(kit: StoreKit) -> None:
    learn(kit, nonce="n-1")
    learn(kit, "order-2")
    kit.end()

    kit.store.delete(f"{RUN}~n-1", status=RunStatus.COMPLETED, tombstone="stone-1")

    assert runs(kit) == ["order-2"]
    assert kit.store.examples.forget(RUN) == 0


def test_what_a_run_that_is_gone_has_left_can_be_erased(kit: StoreKit) -> None:
    learn(kit, nonce="n-1")
    kit.end()
    kit.store.forget(f"{RUN}~n-1")
    learn(kit, nonce="n-2")
    learn(kit, "order-2")

    assert kit.store.examples.forget(RUN) == 1

    assert sorted((each.transaction_id, each.nonce) for each in examples(kit)) == [(RUN, "n-2"), ("order-2", "")]


def test_a_worker_has_so_many_and_the_oldest_go_first(kit_in_memory: StoreKit, redis_kit: RedisKit) -> None:
    for kit, most in ((kit_in_memory, 3), (redis_kit, 3 * redis_kit.keys.partitions)):
        for number in range(6):
            learn(kit, f"order-{3 * number}", most=most)
        learn(kit, "order-99", worker="another")
        for part in {kit.keys.partition_of(f"order-{3 * number}") for number in range(6)}:
            mine = [f"order-{3 * n}" for n in range(6) if kit.keys.partition_of(f"order-{3 * n}") == part]
            found = [name for name in runs(kit) if kit.keys.partition_of(name) == part]
            assert found == mine[::-1][:3]
        assert runs(kit, worker="another") == ["order-99"]


def test_what_is_too_old_is_shown_to_nobody_and_goes(kit: StoreKit) -> None:
    learn(kit, "order-1")
    kit.sleep(0.2)
    learn(kit, "order-2")

    assert runs(kit, keep_ms=150) == ["order-2"]
    kit.store.examples.tidy(150)

    assert runs(kit) == ["order-2"]
    kit.sleep(0.2)
    kit.store.examples.tidy(150)
    assert runs(kit) == []


def test_what_is_too_old_goes_when_another_one_comes(kit: StoreKit) -> None:
    learn(kit, "order-1")
    kit.sleep(0.2)
    learn(kit, "order-5", keep_ms=150)  # of the same partition

    assert runs(kit) == ["order-5"]


def test_nothing_is_left_in_redis_of_what_has_gone(redis_kit: RedisKit) -> None:
    learn(redis_kit)
    redis_kit.store.examples.feedback(RUN, Feedback(1.0))
    redis_kit.end()
    redis_kit.store.forget(RUN)
    assert [key for key in redis_kit.client.keys("*") if ":example" in key or ":learners" in key]

    redis_kit.sleep(0.01)
    redis_kit.store.examples.tidy(1)

    assert [key for key in redis_kit.client.keys("*") if ":example" in key or ":learners" in key] == []


# --- reading ---------------------------------------------------------------------------------------------------------


def test_they_are_read_page_by_page_newest_first_and_each_once(kit: StoreKit) -> None:
    names = [f"order-{number}" for number in range(25)]
    for name in names:
        learn(kit, name)

    before, found = None, []
    while True:
        page = kit.store.examples.page(AGENT, KEPT, limit=4, before=before)
        found += [each.transaction_id for each in page.examples]
        if (before := page.before) is None:
            break

    assert len(found) == len(names)
    assert set(found) == set(names)
    of_each = {
        name: [each for each in found if kit.keys.partition_of(each) == kit.keys.partition_of(name)] for name in names
    }
    assert all(mine == sorted(mine, key=names.index, reverse=True) for mine in of_each.values())
    assert runs(kit, limit=7) == found[:7]


def test_one_that_cannot_be_read_hides_no_other(kit: StoreKit, caplog: pytest.LogCaptureFixture) -> None:
    learn(kit, "order-1")
    learn(kit, "order-2", text="!nobody!knows")

    assert runs(kit) == ["order-1"]
    assert "example order-2/reserve of researcher is left out" in caplog.text


def test_what_is_not_to_be_shown_is_not_kept(kit: StoreKit) -> None:
    policy = PayloadPolicy(redact=redactor(["card*"]))
    said = {"card_number": "4111", "total": 5}
    about = Experience(said, {"card": "4111"}, [Traced("self", said, {"cards": ["4111"]})])

    learn(kit, text=about.written(policy))

    [example] = examples(kit)
    assert "4111" not in json.dumps(example.as_dict())
    assert example.inputs == {"card_number": "[redacted]", "total": 5}


def test_encrypted_nothing_of_it_can_be_read_in_the_server(redis_kit: RedisKit) -> None:
    policy = PayloadPolicy(codecs=(AESGCMCodec({"2026": b"n" * 32}),))
    redis_kit.under(policy)
    learn(redis_kit, policy=policy)
    redis_kit.store.examples.feedback(RUN, Feedback(0.5, "Because she said so"))

    kept = "".join(
        f"{redis_kit.client.hgetall(key)}"
        for key in redis_kit.client.keys("*")
        if redis_kit.client.type(key) == "hash" and ":example:" in key
    )

    assert "!aes-gcm!" in kept
    assert not any(word in kept for word in ("Why?", "Because", "question"))
    [example] = examples(redis_kit)
    assert (example.inputs, example.feedback and example.feedback.note) == (ASKED, "Because she said so")


def test_as_json_it_is_what_dspy_makes_an_example_of(kit_in_memory: MemoryKit) -> None:
    learn(kit_in_memory, nonce="n-1")
    kit_in_memory.store.examples.feedback(RUN, Feedback(1, "yes", "ann"))
    [example] = examples(kit_in_memory)

    line = json.loads(json.dumps(example.as_dict()))

    assert line == {
        "worker": AGENT,
        "transaction_id": RUN,
        "nonce": "n-1",
        "step": STEP,
        "at": example.at.isoformat(),
        "inputs": ASKED,
        "outputs": {"answer": "Because."},
        "trace": [{"predictor": "self", "inputs": ASKED, "outputs": {"answer": "Because."}}],
        "outcome": "running",
        "edited": False,
        "score": 1,
        "note": "yes",
        "scored_by": "ann",
        "error": None,
        "attempt": 1,
        "seconds": 0.0,
        "models": ["small"],
        "program": None,
        "dspy": "",
    }
