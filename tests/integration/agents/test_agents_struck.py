"""What strikes an agent comes through the loop of each mode: ReAct swallows errors, a sandbox whatever is raised in it.

Every place goes side by side: an agent of its own is held in a call of its model, in a tool of either kind, or in code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

from multiagents.testing import wait_until
from multiagents.testing.lm_stub import LMStub
from tests.support.agent_places import BOTH, CODE, SOON, Place, Scene, Scenes, models, tools
from tests.support.agents_kit import Agents
from tests.support.apps import agent_modes

#: As many at once as there are places; and a lease that a busy machine keeps, where all of them begin in one moment.
WORKER: dict[str, Any] = {"concurrency": 16, "lease": 5.0}
TOOLS = tools(*BOTH)


#: On prefork, each of the places has a process of its own that loads DSPy.
FULL = [pytest.param(pool, marks=pytest.mark.full) for pool in ("prefork", "gevent")]


@pytest.fixture(scope="module", params=["threads", *FULL])
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def warm(pool: str, new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    folder = tmp_path_factory.mktemp(f"struck-{pool}")
    with LMStub() as stub, Agents(new_redis_url(), folder, stub, agent_modes.__name__) as made:
        made.worker(pool, **WORKER)
        yield made


@pytest.fixture
def agents(warm: Agents, pool: str) -> Iterator[Agents]:
    """All places at once have a worker; whoever has killed it has started another one."""
    warm.stub.reset()
    yield warm
    warm.show()


def came_to(scenes: Scenes) -> dict[str, tuple[int, int]]:
    """How many requests and calls of tools there were."""
    return {str(scene): (scene.requests, len(scene.calls())) for scene in scenes}


def until(scenes: Scenes) -> dict[str, tuple[int, int]]:
    """The same, as it should be when nothing is called after the place."""
    return {str(scene): (scene.place.requests_until, scene.place.calls_until) for scene in scenes}


def whole(scenes: Scenes) -> dict[str, tuple[int, int]]:
    """And when nothing is called twice."""
    return {str(scene): (scene.needed, len(scene.place.tools)) for scene in scenes}


def sandboxes(agents: Agents) -> list[int]:
    """The processes in which code runs that a model has written."""
    with suppress(psutil.NoSuchProcess):
        return [pid for pid in agents.workers[-1].children() if psutil.Process(pid).name() == "monty"]
    return []


def play(agents: Agents, *places: list[Place], flows: object = agent_modes.FLOWS) -> Scenes:
    """Start a run for each place, and wait until all are held there."""
    scenes = Scenes(Scene(agents, place, flows) for group in places for place in group)
    scenes.are_there()
    return scenes


def test_S35_a_kill_at_any_place_of_any_mode_repeats_what_was_under_way_and_nothing_else(
    agents: Agents, pool: str
) -> None:
    scenes = play(agents, models(every=True), TOOLS)

    agents.workers[-1].kill()
    scenes.go_on()
    agents.worker(pool, **WORKER)

    assert set(scenes.end().values()) == {"completed"}
    assert {str(scene): scene.run.describe().steps["it"].attempts for scene in scenes} == {
        str(one): 2 for one in scenes
    }
    once = whole(scenes)
    for scene in scenes:
        requests, calls = once[str(scene)]
        once[str(scene)] = (requests + (not scene.place.is_tool), calls + scene.place.is_tool)
    assert came_to(scenes) == once
    # A tool that is called again has the same key, and an equal call of it another one.
    assert {len(set(scene.calls())) - len(scene.place.tools) for scene in scenes} == {0}
    assert {scene.run.describe().steps["it"].usage.possibly_paid_twice for scene in scenes} == {1}


def test_S35_kills_while_it_waits_for_approval_and_in_the_call_that_was_approved_change_nothing(
    agents: Agents, pool: str
) -> None:
    scenes = Scenes(Scene(agents, place) for place in tools("dare", "dare_later"))
    waits = [(scene, scene.approval().id or "") for scene in scenes]

    agents.workers[-1].kill()
    assert {scene.run.approve(call, actor="ann") for scene, call in waits} == {"received"}
    assert {scene.run.reject(call, actor="bob") for scene, call in waits} == {"already_decided"}
    agents.worker(pool, **WORKER)
    scenes.are_there()
    agents.workers[-1].kill()
    scenes.go_on()
    agents.worker(pool, **WORKER)

    assert set(scenes.end().values()) == {"completed"}
    assert {scene.run.describe().steps["it"].attempts for scene in scenes} == {2}
    assert came_to(scenes) == {name: (requests, calls + 1) for name, (requests, calls) in whole(scenes).items()}
    assert {len(set(scene.calls())) - len(scene.place.tools) for scene in scenes} == {0}


def test_S35_what_a_frozen_worker_is_answered_at_any_place_of_any_mode_is_evidence_and_no_result(
    agents: Agents, pool: str
) -> None:
    scenes = play(agents, models(), TOOLS)
    frozen = agents.workers[-1]

    frozen.pause()
    agents.worker(pool, **WORKER)
    scenes.go_on()
    ends = scenes.end()
    frozen.resume()
    for scene in scenes:
        wait_until(scene.evidence, SOON, f"the evidence of {scene}")
    frozen.kill()

    assert set(ends.values()) == {"completed"}
    kinds = {str(scene): ("tool" if scene.place.is_tool else "lm", 1) for scene in scenes}
    assert {str(scene): [(call.kind, call.attempt) for call in scene.evidence()] for scene in scenes} == {
        name: [kind] for name, kind in kinds.items()
    }
    assert came_to(scenes) == {
        str(scene): (scene.needed + (not scene.place.is_tool), len(scene.place.tools) + scene.place.is_tool)
        for scene in scenes
    }


def test_S20_a_cancel_stops_an_agent_of_any_mode_before_its_next_call(agents: Agents, pool: str) -> None:
    scenes = play(agents, models(), TOOLS)

    for scene in scenes:
        scene.run.cancel()
    scenes.go_on()

    assert set(scenes.end().values()) == {"cancelled"}
    assert came_to(scenes) == until(scenes)


def test_S22_a_pause_stops_an_agent_of_any_mode_before_its_next_call_and_it_goes_on_there(
    agents: Agents, pool: str
) -> None:
    scenes = play(agents, models(), TOOLS)

    for scene in scenes:
        scene.run.pause()
    scenes.go_on()
    for scene in scenes:
        wait_until(lambda run=scene.run: run.describe().steps["it"].status != "running", SOON, f"{scene}'s pause")
    came = came_to(scenes)
    for scene in scenes:
        scene.run.resume()

    assert set(scenes.end().values()) == {"completed"}
    assert came == until(scenes)
    assert came_to(scenes) == whole(scenes)
    assert {str(scene): scene.run.describe().steps["it"].attempts for scene in scenes} == {
        str(one): 1 for one in scenes
    }


def test_a_time_limit_ends_an_agent_of_any_mode_and_it_calls_nothing_more(agents: Agents, pool: str) -> None:
    scenes = play(agents, models(), TOOLS, CODE, flows=agent_modes.HURRIED)

    ends = scenes.end()
    scenes.go_on()

    assert set(ends.values()) == {"failed"}
    for scene in scenes:
        step = scene.run.describe().steps["it"]
        assert step.status == "unknown", scene
        assert "limit of 4 s" in step.error.message, scene
    wait_until(lambda: not sandboxes(agents), SOON, "the end of code that does not end by itself")
    # On a busy machine the limit may be over before it has come to its place.
    assert all(scene.requests <= scene.place.requests_until for scene in scenes)
    assert all(len(scene.calls()) <= scene.place.calls_until for scene in scenes)


def test_a_tool_that_takes_too_long_is_told_to_the_model_of_any_mode_which_goes_on(agents: Agents, pool: str) -> None:
    # A thread cannot be taken out of a function, only out of a coroutine.
    slow = [place for place in tools("dawdle", "dawdle_later") if pool != "threads" or place.where == "dawdle_later"]
    scenes = play(agents, slow)

    ends = scenes.end()
    scenes.go_on()

    assert set(ends.values()) == {"completed"}
    for scene in scenes:
        assert "TimeoutError: it took longer than 0.3 s" in scene.prompts, scene


def test_S37_an_agent_of_any_mode_waits_for_approval_and_goes_on_with_the_call(agents: Agents, pool: str) -> None:
    scenes = Scenes(Scene(agents, place) for place in tools("dare", "dare_later"))
    scenes.go_on()
    for scene in scenes:
        wait = scene.approval()
        assert wait.arguments == {"word": scene.word}
        assert len(scene.calls()) == scene.place.calls_until - 1
        assert scene.run.approve(wait.id or "", actor="ann") == "received"

    assert set(scenes.end().values()) == {"completed"}
    assert came_to(scenes) == whole(scenes)
    assert {str(scene): scene.run.describe().steps["it"].attempts for scene in scenes} == {
        str(one): 1 for one in scenes
    }
