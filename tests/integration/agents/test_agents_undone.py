"""Calls of tools are undone as steps are, whatever becomes of the worker that makes them (rule S36)."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents.testing import wait_until
from multiagents.testing.lm_stub import react_agent
from multiagents.workflow.decider import fold
from tests.support.agents_kit import Agents
from tests.support.apps.agents import PLAN, TRIP

SOON = 40.0


def script(agents: Agents, *calls: tuple[str, str]) -> None:
    agents.stub.when("Go!").reply(react_agent(*((name, {"city": city}) for name, city in calls), answer="Done."))


def begins(agents: Agents, count: int) -> None:
    """So many calls of tools have begun, and the last of them goes on until it is let go."""
    wait_until(lambda: len(agents.tools()) == count, SOON, "the call")


def folds(agents: Agents, run: Any) -> bool:
    snapshot = agents.orchestrator.store.load(run.transaction_id)
    return fold(snapshot.definition, run.transaction_id, run.history()) == snapshot.state


def test_S36_calls_are_undone_newest_first_and_then_their_step_when_a_later_one_fails(agents: Agents) -> None:
    script(agents, ("flight", "Rome"), ("hotel", "Rome"), ("flight", "Oslo"))
    run = agents.orchestrator.start(TRIP, {"wish": "Go!"})

    wait_until(lambda: run.status == "compensated", SOON, "the end")
    undone = agents.undone()
    assert [told["step"] for told in undone] == ["plan.flight[1]", "plan.hotel[0]", "plan.flight[0]", "plan"]
    assert undone[1] == {
        "step": "plan.hotel[0]",
        "context": {"city": "Rome"},
        "key": f"{run.transaction_id}/plan.hotel[0]",
        "outcome": "succeeded",
        "result": {"booking": "hotel in Rome"},
    }
    assert sorted(agents.keys()) == sorted(told["key"] for told in undone[:3])
    assert folds(agents, run)


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.full)])
def test_S36_an_agent_whose_worker_dies_in_a_tool_and_that_has_no_attempt_left_is_undone(
    own_agents: Agents, pool: str
) -> None:
    agents = own_agents
    script(agents, ("flight", "Rome"), ("hotel", "Rome"))
    agents.orchestrator = agents.with_settings(max_lost=1)
    victim = agents.worker(pool, max_lost=1)
    agents.redis.set("hold-tools", 2)
    run = agents.orchestrator.start(PLAN, {"wish": "Go!"})
    begins(agents, 2)
    assert run.describe().steps["plan.hotel[0]"].status == "running"
    assert run.describe().effects == {"plan": "unknown", "plan.flight[0]": "live", "plan.hotel[0]": "unknown"}

    victim.kill()
    agents.redis.delete("hold-tools")
    agents.worker(pool, max_lost=1)

    wait_until(lambda: run.status == "compensated", SOON, "the end")
    undone = agents.undone()
    assert [(told["step"], told["outcome"]) for told in undone] == [
        ("plan.hotel[0]", "unknown"),
        ("plan.flight[0]", "succeeded"),
    ]
    assert agents.tools() == ["flight Rome", "hotel Rome"]
    assert agents.keys() == [undone[1]["key"], undone[0]["key"]]
    assert folds(agents, run)


def test_S36_an_agent_that_is_killed_and_goes_on_registers_no_call_twice(own_agents: Agents) -> None:
    agents = own_agents
    script(agents, ("flight", "Rome"), ("hotel", "Rome"))
    victim = agents.worker()
    agents.redis.set("hold-tools", 2)
    run = agents.orchestrator.start(TRIP, {"wish": "Go!"})
    begins(agents, 2)

    victim.kill()
    agents.redis.delete("hold-tools")
    agents.worker()

    wait_until(lambda: run.status == "compensated", SOON, "the end")
    assert [told["step"] for told in agents.undone()] == ["plan.hotel[0]", "plan.flight[0]", "plan"]
    assert [told["outcome"] for told in agents.undone()[:2]] == ["succeeded", "succeeded"]
    assert agents.tools() == ["flight Rome", "hotel Rome", "hotel Rome"]
    assert folds(agents, run)


def test_S5_a_cancelled_agent_ends_its_call_and_then_all_of_them_are_undone(agents: Agents) -> None:
    script(agents, ("flight", "Rome"), ("hotel", "Rome"), ("flight", "Oslo"))
    agents.redis.set("hold-tools", 2)
    run = agents.orchestrator.start(PLAN, {"wish": "Go!"})
    begins(agents, 2)

    run.cancel(reason="changed my mind")
    assert agents.undone() == []
    agents.redis.delete("hold-tools")

    wait_until(lambda: run.status == "cancelled", SOON, "the end")
    assert [(told["step"], told["outcome"]) for told in agents.undone()] == [
        ("plan.hotel[0]", "succeeded"),
        ("plan.flight[0]", "succeeded"),
    ]
    assert agents.tools() == ["flight Rome", "hotel Rome"]
    assert folds(agents, run)


def test_S5_a_call_that_a_frozen_worker_ends_after_its_undo_is_undone_again(own_agents: Agents) -> None:
    agents = own_agents
    script(agents, ("flight", "Rome"))
    agents.orchestrator = agents.with_settings(max_lost=1)
    frozen = agents.worker("solo", max_lost=1)
    agents.redis.set("hold-tools", 1)
    run = agents.orchestrator.start(PLAN, {"wish": "Go!"})
    begins(agents, 1)

    frozen.pause()
    agents.worker("solo", max_lost=1)
    wait_until(lambda: run.status == "compensated", SOON, "the first end")
    assert [told["outcome"] for told in agents.undone()] == ["unknown"]
    agents.redis.delete("hold-tools")
    frozen.resume()

    wait_until(lambda: len(agents.undone()) == 2, SOON, "the second undo")
    wait_until(lambda: run.status == "compensated", SOON, "the second end")
    assert agents.undone()[1]["outcome"] == "succeeded"
    assert agents.undone()[1]["result"] == {"booking": "flight to Rome"}
    assert agents.tools() == ["flight Rome"]
    assert folds(agents, run)


def test_S4_a_call_that_a_person_has_changed_is_undone_as_it_was_made(agents: Agents) -> None:
    script(agents, ("villa", "Rome"))
    run = agents.orchestrator.start(TRIP, {"wish": "Go!"})
    waiting = wait_until(
        lambda: [one for one in run.describe().steps["plan"].waiting_for if one.kind == "tool"], SOON, "the question"
    )
    assert list(run.describe().steps) == ["plan", "pay"]

    run.approve(waiting[0].id, arguments={"city": "Oslo"}, actor="ann")

    wait_until(lambda: run.status == "compensated", SOON, "the end")
    assert [(told["step"], told.get("context")) for told in agents.undone()] == [
        ("plan.villa[0]", {"city": "Oslo"}),
        ("plan", None),
    ]
    assert agents.tools() == ["villa Oslo"]
