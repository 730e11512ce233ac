"""Agents in each shape of a workflow, and a worker that is killed under them: rounds, items, undos share no answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from multiagents.names import child_id
from multiagents.testing import wait_until
from multiagents.testing.lm_stub import LMRequest, LMStub, Reply, react_agent
from tests.support.agent_places import SOON
from tests.support.agents_kit import Agents
from tests.support.apps import agent_modes
from tests.support.apps.agent_modes import SHAPES, called

#: Requests of one agent: a call of a tool, the end of it, the answer.
REQUESTS = 3
AGENTS = sum(count for _, count in SHAPES.values())


@pytest.fixture
def agents(redis_url: str, tmp_path: Path, lm_stub: LMStub) -> Iterator[Agents]:
    with Agents(redis_url, tmp_path, lm_stub, agent_modes.__name__) as made:
        yield made
        made.show()


def say(request: LMRequest) -> Reply:
    return react_agent(("look", {"word": "a"}), answer="So.")(request)


@pytest.mark.parametrize(
    "pool", ["threads", pytest.param("prefork", marks=pytest.mark.full), pytest.param("gevent", marks=pytest.mark.full)]
)
def test_S35_agents_in_branches_maps_loops_children_and_undos_go_on_where_they_were(agents: Agents, pool: str) -> None:
    agents.stub.answer_with(say)
    agents.stub.hold(after=40)
    victim = agents.worker(pool, concurrency=16, lease=5.0)
    runs = {name: agents.orchestrator.start(flow, {"question": name}) for name, (flow, _) in SHAPES.items()}
    agents.stub.wait_for(50, SOON)

    victim.kill()
    agents.stub.release()
    agents.worker(pool, concurrency=16, lease=5.0)

    for name, run in runs.items():
        wait_until(lambda run=run: run.status.is_end, SOON, f"the end of {name}")
    assert {name: str(run.status) for name, run in runs.items()} == {
        name: "compensated" if name == "undo" else "completed" for name in SHAPES
    }
    child = agents.orchestrator.get(child_id(runs["child"].transaction_id, "child"))
    calls = [call for run in (*runs.values(), child) for call in run.calls()]
    asked = [call for call in calls if call.kind == "lm"]
    assert len(asked) == AGENTS * REQUESTS
    assert len(calls) == len(asked) + AGENTS
    twice = sum(call.twice for call in calls)
    keys = agents.redis.lrange(called("a"), 0, -1)
    assert len(set(keys)) == AGENTS
    assert 0 < agents.stub.count - len(asked) + len(keys) - AGENTS <= twice <= 16
