"""Rule S27: what is stored of a run cannot be read. Nothing is sent round and round, and nothing hangs unseen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from multiagents import Step, WorkflowBuilder
from multiagents.keys import RunKeys
from multiagents.orchestrator.recovery import Sweep
from multiagents.testing import server_kind, wait_until
from tests.support.letters import letter_about
from tests.support.scenario import Deployment, Scenario

GARBAGE = "{no json"
PAIR = (
    WorkflowBuilder("unreadable")
    .add_step("a", "play", compensation="undo")
    .add_step("b", "play")
    .add_step("c", "play")
    .build(register=False)
)


@contextmanager
def deployed(request: pytest.FixtureRequest, url: str, folder: Path) -> Iterator[Deployment]:
    broker = request.getfixturevalue("rabbitmq").new_vhost() if server_kind() == "rabbitmq" else ""
    with Deployment(url, folder, broker=broker) as made:
        yield made


@pytest.fixture(scope="module")
def shared(
    new_redis_url: Callable[[], str], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with deployed(request, new_redis_url(), tmp_path_factory.mktemp("unreadable")) as made:
        yield made


@pytest.fixture
def scenario(shared: Deployment, request: pytest.FixtureRequest) -> Scenario:
    """On a deployment of this file's own: what cannot be read there is no other test's matter."""
    return Scenario(shared, request.node.name)


@pytest.fixture
def own(new_redis_url: Callable[[], str], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scenario]:
    """On a deployment of the test's own, to kill its worker."""
    with deployed(request, new_redis_url(), tmp_path) as made:
        yield Scenario(made, request.node.name)


def keys(scenario: Scenario, run: Any) -> RunKeys:
    return scenario.orchestrator.keys.of_run(run.transaction_id)


def end(scenario: Scenario, run: Any) -> Any:
    """Wait for the end of a run; its state. Its data cannot be read, so neither can `describe()`."""
    scenario.store.wait_for_end(run.transaction_id, 20)
    scenario.check_history(run)
    return scenario.store.load(run.transaction_id).state


def test_S27_a_step_whose_data_cannot_be_read_has_failed_and_what_was_done_is_undone(scenario: Scenario) -> None:
    run = scenario.start(PAIR, b=["wait"])
    scenario.until_begun(run, "b")
    scenario.redis.hset(keys(scenario, run).context, "total", GARBAGE)

    scenario.open_gate(run, "b")
    state = end(scenario, run)

    # Nothing ran, so nothing is in doubt; and nothing was tried again, because it would have been the same.
    failed = state.step("c").do
    assert (state.status, state.step("a").status, state.step("c").status) == ("compensated", "compensated", "failed")
    assert (failed.attempt, failed.losses, failed.in_doubt) == (1, 0, False)
    assert state.error.type == "ValueError"
    assert "step 'c' was not run, because what is stored of it cannot be read: " in state.error.message
    assert scenario.began(run) == ["a", "b", "a.undo"]


def test_S17_S27_an_undo_whose_data_cannot_be_read_is_parked_with_a_letter_that_says_so(scenario: Scenario) -> None:
    run = scenario.start(PAIR, b=[["wait", "terminal"]])
    scenario.until_begun(run, "b")
    scenario.redis.hset(keys(scenario, run).results, "i", GARBAGE)

    scenario.open_gate(run, "b")
    state = end(scenario, run)

    letter = letter_about(scenario.orchestrator, f"{run.transaction_id}/a/undo/1")
    assert (state.status, state.step("a").undo.attempt) == ("compensation_failed", 1)
    assert state.error.message == "it will never work"
    assert "was not run, because what is stored of it cannot be read" in state.error.causes[0].message
    assert "its data is left out: the field 'i' of a run's stored data is not JSON" in letter["why"]
    assert scenario.began(run) == ["a", "b"]


def test_S27_a_when_whose_context_cannot_be_read_fails_its_step(scenario: Scenario) -> None:
    branches = [Step("left", "play", compensation="undo"), Step("right", "play")]
    workflow = (
        WorkflowBuilder("unreadable_when")
        .add_parallel("both", branches)
        .add_step("last", "play", when=lambda ctx: True, after=["both"])
        .build()
    )
    run = scenario.start(workflow, left=["wait"], right=["wait"])
    scenario.until_begun(run, "left")
    scenario.until_begun(run, "right")
    # The workers lack the code of `when`: the sweep of this process decides, as it has it.
    sweep = Sweep(scenario.orchestrator.engine)
    scenario.redis.hset(keys(scenario, run).results, "n:left", GARBAGE)
    scenario.open_gate(run, "left")
    scenario.open_gate(run, "right")

    wait_until(lambda: sweep.tick() and run.status.is_end, 20, "the end of the run")

    state = scenario.store.load(run.transaction_id).state
    assert state.step("last").status == "failed"
    assert "when= of step 'last' raised" in state.error.message
    assert "'n:left' of a run's stored data is not JSON" in state.error.message


def test_S27_a_definition_that_a_worker_cannot_read_ends_the_run_where_another_process_can(scenario: Scenario) -> None:
    # Given: this process has built the workflow; to the worker, the store says nonsense.
    workflow = WorkflowBuilder("unreadable_there").add_step("a", "play").add_step("b", "play").build()
    definitions = scenario.orchestrator.keys.of_partition(0).definitions
    scenario.redis.hset(definitions, workflow.content_hash, GARBAGE)
    sweep = Sweep(scenario.orchestrator.engine)

    # When: it is started, and swept here as well.
    run = scenario.start(workflow)
    wait_until(lambda: sweep.tick() and run.status.is_end, 30, "the end of the run")

    # Then: the attempt has failed for the reason that the worker met, after its schedule_to_start (4 s here).
    seen = run.describe()
    assert (seen.status, seen.steps["a"].status, seen.steps["a"].attempts) == ("failed", "failed", 1)
    assert seen.error.type == "multiagents.exceptions.DecodeError"
    assert "step 'a' was not run" in seen.error.message
    assert "a workflow definition is not JSON" in seen.error.message
    assert scenario.began(run) == []
    scenario.check_history(run)


def test_S27_a_run_whose_definition_nobody_can_read_is_in_the_dead_letters_and_goes_on_when_it_is_back(
    own: Scenario,
) -> None:
    # Given: the snapshot is gone while a step runs in a process that has never read it.
    definitions = own.orchestrator.keys.of_partition(0).definitions
    run = own.start(PAIR, b=["wait"])
    own.until_begun(run, "b")
    snapshot = own.redis.hget(definitions, PAIR.content_hash)
    own.redis.hdel(definitions, PAIR.content_hash)
    own.deployment.workers[0].kill()
    own.deployment.start_worker().ready()

    # When: only workers are left that cannot read it.
    letter = wait_until(
        lambda: next(iter(own.orchestrator.dead_letters(transaction_id=run.transaction_id).values()), None),
        20,
        "the dead letter of the run",
    )

    # Then: a person sees why; and once the snapshot is back, the run goes on where it was.
    assert f"no definition with content hash '{PAIR.content_hash}'" in letter["why"]
    assert run.transaction_id in own.redis.zrange(keys(own, run).index("running"), 0, -1)
    own.redis.hset(definitions, PAIR.content_hash, snapshot)
    own.open_gate(run, "b")
    assert own.end(run).status == "completed"
    own.check_history(run)
