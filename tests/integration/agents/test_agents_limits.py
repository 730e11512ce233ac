"""How much models and tools are asked by all workers together: who has to wait does so without a worker."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multiagents import Run
from multiagents.testing import wait_until
from multiagents.testing.lm_stub import LMStub, fields, react_agent, slow
from tests.support.agents_kit import Agents
from tests.support.apps import spenders
from tests.support.apps.spenders import AT_ONCE, BANK, LIMITED

SOON = 60.0
#: What each answer uses, and how long it takes until so many tokens may be used again.
TOKENS, EVERY = 1_000, 0.5


@pytest.fixture(scope="module")
def warm(new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    folder = tmp_path_factory.mktemp("limits")
    with LMStub() as stub, Agents(new_redis_url(), folder, stub, spenders.__name__) as made:
        for _ in range(2):
            made.worker("threads", concurrency=4)
        yield made


@pytest.fixture
def agents(warm: Agents) -> Iterator[Agents]:
    warm.stub.reset()
    yield warm
    warm.show()


class Crowd:
    """A model that takes its time, and knows by how many it was asked at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, request: Any) -> Any:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.2)
        with self._lock:
            self.now -= 1
        return fields(answer="So.")


def start(agents: Agents, name: str, count: int) -> list[Run]:
    return [agents.orchestrator.start(LIMITED[name], {"question": f"Why {number}?"}) for number in range(count)]


def test_eight_agents_at_once_keep_to_the_tokens_that_a_model_takes_in_a_minute(agents: Agents) -> None:
    agents.stub.answer_with(lambda _: fields(answer="So.").with_usage(input_tokens=900, output_tokens=TOKENS - 900))

    runs = start(agents, "metered", 8)

    assert [run.result(timeout=SOON)["answer"] for run in runs] == ["So."] * 8
    times = [request.at for request in agents.stub.requests]
    assert len(times) == 8
    # No two of them are nearer to each other than those between them may be; one of them may have been late to come.
    pairs = list(itertools.combinations(enumerate(times), 2))
    assert all(later - first > (j - i - 1) * EVERY for (i, first), (j, later) in pairs), times
    steps = [run.describe().steps["it"] for run in runs]
    assert {(step.attempts, step.usage.calls, step.usage.possibly_paid_twice) for step in steps} == {(1, 1, 0)}


def test_no_more_calls_of_a_model_at_once_than_it_takes_over_all_workers(agents: Agents) -> None:
    crowd = Crowd()
    agents.stub.answer_with(crowd)

    runs = start(agents, "narrow", 8)

    assert [run.result(timeout=SOON)["answer"] for run in runs] == ["So."] * 8
    assert crowd.most == 2
    assert agents.stub.count == 8


def test_S37_who_waits_for_a_model_for_long_is_seen_to_and_has_no_worker(agents: Agents) -> None:
    agents.stub.answer_with(lambda _: fields(answer="So."))
    agents.stub.hold()
    first, *others = start(agents, "single", 3)
    agents.stub.wait_for(1, timeout=SOON)

    def waits() -> list[tuple[str, str]]:
        found = [each for run in (first, *others) for each in run.describe().steps["it"].waiting_for]
        return [(each.kind, each.name) for each in found]

    wait_until(lambda: waits() == [("limit", "lm:openai/single-*")] * 2, SOON, "the waits")
    assert agents.stub.count == 1
    agents.stub.release()
    assert [run.result(timeout=SOON)["answer"] for run in (first, *others)] == ["So."] * 3


@pytest.mark.parametrize("what", ["limit", "budget"])
def test_an_agent_that_asks_two_things_at_once_loses_neither_when_one_has_to_wait(agents: Agents, what: str) -> None:
    agents.stub.answer_with(lambda _: slow(fields(answer="So.").with_usage(input_tokens=10, output_tokens=1), 2.5))

    run = agents.orchestrator.start(AT_ONCE[what], {"question": "Why?"})

    assert run.result(timeout=SOON)["answer"] == "So. So."
    assert agents.stub.count == 2
    step = run.describe().steps["it"]
    assert (step.attempts, step.usage.calls, step.usage.possibly_paid_twice) == (1, 2, 0)


def test_what_a_killed_worker_had_of_a_model_is_given_to_others(
    redis_url: str, tmp_path: Path, lm_stub: LMStub
) -> None:
    lm_stub.answer_with(lambda _: fields(answer="So."))
    with Agents(redis_url, tmp_path, lm_stub, spenders.__name__) as own:
        victim = own.worker()
        lm_stub.hold()
        killed = start(own, "single", 1)
        lm_stub.wait_for(1, timeout=SOON)

        victim.kill()
        lm_stub.release()
        own.worker()

        assert [run.result(timeout=SOON)["answer"] for run in [*killed, *start(own, "single", 1)]] == ["So."] * 2


def test_a_tool_is_called_as_often_as_its_limit_lets_all_agents_and_each_call_once(agents: Agents) -> None:
    for account in ("a", "b"):
        agents.stub.when(f"How is {account}?").reply(react_agent(("call_bank", {"account": account}), answer=account))
    asks = ["a", "a", "b"]

    runs = [agents.orchestrator.start(BANK, {"question": f"How is {account}?"}) for account in asks]

    assert [run.result(timeout=SOON)["answer"] for run in runs] == asks
    calls = [call for run in runs for call in run.calls("it") if call.kind == "tool"]
    first, second = sorted(call.started for call in calls if call.request == {"account": "a"})
    assert len(calls) == 3
    assert (second - first).total_seconds() > 1.9  # half of what lies between two is let to who comes early
    steps = [run.describe().steps["it"] for run in runs]
    assert {(step.attempts, step.usage.possibly_paid_twice) for step in steps} == {(1, 0)}
