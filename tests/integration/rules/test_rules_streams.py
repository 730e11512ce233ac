"""What workers say while they run, and those who read along."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from multiagents import RetryPolicy, WorkflowBuilder
from multiagents.exceptions import UnknownStepError, WorkflowNotFoundError
from multiagents.state_store.records import StreamEntry
from tests.support.apps.scripted import FILES
from tests.support.scenario import Scenario

CHAIN = (
    WorkflowBuilder("streamed")
    .add_step("a", "play", compensation="undo")
    .add_step("b", "play_async", compensation="undo")
    .add_step("c", "play", retry=RetryPolicy(max_attempts=1))
    .build(register=False)
)
EACH = WorkflowBuilder("streamed_each").add_map("each", "play", over="items").build(register=False)
ALL = [{"file": number + 1, "of": FILES} for number in range(FILES)]


def data(entries: list[StreamEntry]) -> list[Any]:
    return [entry.data for entry in entries]


async def collected(stream: Any) -> list[StreamEntry]:
    return [entry async for entry in stream]


def test_two_readers_follow_what_a_step_says_to_the_end_of_the_run(rules: Scenario) -> None:
    run = rules.start(CHAIN, a=[["wait", "say"]], b=["say"])
    with ThreadPoolExecutor() as threads:
        one = threads.submit(list, run.stream())
        two = threads.submit(asyncio.run, collected(run.stream(step="b")))
        rules.open_gate(run, "a")

        assert [(entry.step, entry.data) for entry in one.result(60)] == [
            *(("a", each) for each in ALL),
            *(("b", each) for each in ALL),
        ]
        assert data(two.result(60)) == ALL
    assert {(entry.kind, entry.attempt, entry.direction) for entry in one.result()} == {("item", 1, "do")}


def test_a_reader_that_comes_back_by_offset_gets_the_rest(rules: Scenario) -> None:
    run = rules.start(CHAIN, a=["say"], b=["wait"])
    reader = run.stream()
    first = [next(reader) for _ in range(123)]
    reader.close()

    rules.open_gate(run, "b")
    rest = list(rules.orchestrator.get(run.transaction_id).stream(after=first[-1].offset))

    assert data([*first, *rest]) == ALL
    assert reader.offset == first[-1].offset
    assert list(run.stream(after=rest[-1].offset)) == []


def test_a_coroutine_that_is_cancelled_while_it_waits_goes_on_where_it_was(rules: Scenario) -> None:
    run = rules.start(CHAIN, a=["say"], b=["wait"])

    async def until_cancelled(stream: Any, found: list[StreamEntry]) -> None:
        async with asyncio.timeout(3):
            async for entry in stream:
                found.append(entry)  # noqa: PERF401 - what came before it is cancelled is kept

    async def read() -> list[StreamEntry]:
        stream, found = run.stream(), list[StreamEntry]()
        with pytest.raises(TimeoutError):
            await until_cancelled(stream, found)
        rules.open_gate(run, "b")
        return found + [entry async for entry in stream]

    assert data(asyncio.run(read())) == ALL


def test_a_reader_is_told_that_a_step_begins_again(rules: Scenario) -> None:
    run = rules.start(CHAIN, a=[["half", "fail"], ["say"]])

    found = list(run.stream())

    assert [(entry.kind, entry.data, entry.attempt) for entry in found[:3]] == [
        ("item", "half", 1),
        ("attempt", 2, 2),
        ("item", ALL[0], 2),
    ]
    assert data(found[2:]) == ALL


def test_G2_what_a_killed_attempt_has_said_is_told_from_what_counts(rules: Scenario) -> None:
    if rules.deployment.pool != "prefork":
        pytest.skip("it would kill the worker of all tests")
    run = rules.start(CHAIN, a=[["half", "kill"], ["say"]])

    found = list(run.stream())

    assert [(entry.kind, entry.data) for entry in found[:2]] == [("item", "half"), ("attempt", 2)]
    assert data(found[2:]) == ALL


def test_what_a_compensation_says_is_told_apart(rules: Scenario) -> None:
    run = rules.start(CHAIN, a=["half"], a__undo=["half"], c=["terminal"])

    assert [(entry.step, entry.direction) for entry in run.stream()] == [("a", "do"), ("a", "undo")]


def test_the_stream_of_a_map_is_that_of_its_items(rules: Scenario) -> None:
    items = {f"each[{number}]": ["half"] for number in range(3)}
    run = rules.start(EACH, {"items": [1, 2, 3]}, **items)

    assert sorted(entry.step for entry in run.stream(step="each")) == sorted(items)
    assert [entry.step for entry in run.stream(step="each[1]")] == ["each[1]"]
    with pytest.raises(UnknownStepError, match='did you mean "each"'):
        next(run.stream(step="eech"))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("say_object", "what step 'c' streams cannot be written as JSON"),
        ("say_much", "an item of 70,002 bytes of JSON"),
    ],
)
def test_what_cannot_be_said_fails_in_words(rules: Scenario, what: str, words: str) -> None:
    seen = rules.play(CHAIN, c=[what])

    assert words in seen.error.message


def test_who_follows_a_run_that_is_deleted_is_told_so(rules: Scenario) -> None:
    run = rules.start(CHAIN, a=["half"])
    rules.end(run)
    reader = run.stream()
    assert next(reader).data == "half"
    run.delete(reason="a test")
    del rules.runs[run.transaction_id]

    with pytest.raises(WorkflowNotFoundError):
        next(run.stream())
    assert rules.redis.keys(f"*stream*{run.transaction_id}*") == []


def test_who_watches_a_run_comes_back_by_offset_and_may_be_a_coroutine(rules: Scenario) -> None:
    run = rules.start(CHAIN, b=["wait"])
    watch = run.watch(poll=0.02)
    first = [next(watch) for _ in range(3)]
    rules.open_gate(run, "b")

    rest = asyncio.run(collected(run.watch(after=watch.offset, poll=0.02)))

    assert [*first, *rest] == run.history()
    assert watch.offset == "3"
