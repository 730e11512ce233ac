"""Who looks at many runs asks for them by the page, and one that cannot be read keeps none of the others from view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from multiagents import Orchestrator, ResultEvent, Run, WorkflowBuilder
from multiagents.state_store.redis import RedisStateStore
from tests.support.round_trips import round_trips

CHARGES = WorkflowBuilder("many-charges", version="2").add_step("charge", external=True).add_step("ship", "ship")
CHARGE = CHARGES.build(register=False)
WAITS = WorkflowBuilder("many-waits").add_wait("paid").build(register=False)
FAMILY = WorkflowBuilder("many-families").add_child("pay", WAITS).build(register=False)


def ids(runs: Any) -> list[str]:
    return sorted(run.transaction_id for run in runs)


def charged(orchestrator: Orchestrator, name: str) -> Run:
    """A run that was stopped when its charge was made."""
    run = orchestrator.start(CHARGE, {}, name)
    attempt = f"{name}/charge/do/1"
    orchestrator.engine.receive(ResultEvent(transaction_id=name, correlation_id=attempt, payload={}))
    run.terminate()
    return run


def asked_for(orchestrator: Orchestrator, action: Callable[[], Any]) -> int:
    """In how many round trips a look at many runs is done; in memory there are none."""
    action()  # what a process learns once, definitions and what workers have announced, it has learned by now
    with round_trips() as sent:
        action()
    return len(sent)


@pytest.mark.parametrize("count", [5, 60])
def test_a_page_of_a_version_or_of_live_effects_takes_two_round_trips(orchestrator: Orchestrator, count: int) -> None:
    names = sorted(charged(orchestrator, f"order-{number}").transaction_id for number in range(count))
    orchestrator.start(WAITS, {}, "other")

    by_version = asked_for(orchestrator, lambda: orchestrator.list(version="2", limit=200))
    live = asked_for(orchestrator, lambda: orchestrator.list(live=True, limit=200))
    both = asked_for(orchestrator, lambda: orchestrator.list(version="2", live=True, limit=200))

    assert ids(orchestrator.list(version="2", limit=200)) == names
    assert ids(orchestrator.list(live=True, limit=200)) == names
    expected = (2, 2, 3) if isinstance(orchestrator.store, RedisStateStore) else (0, 0, 0)
    assert (by_version, live, both) == expected


def test_only_what_can_have_left_something_live_is_looked_at(orchestrator: Orchestrator) -> None:
    for number in range(20):
        orchestrator.start(WAITS, {}, f"other-{number}")
    charged(orchestrator, "order-1")

    assert ids(orchestrator.list(live=True, limit=5)) == ["order-1"]
    assert ids(orchestrator.list(live=True, status="running")) == []
    assert ids(orchestrator.list(live=True, status=["running", "terminated"])) == ["order-1"]


@pytest.mark.parametrize("count", [3, 40])
def test_what_waits_is_asked_for_by_the_page_and_by_the_generation(orchestrator: Orchestrator, count: int) -> None:
    """A page of a hundred runs, one look at all of them, one at all of their children that were not among them."""
    for number in range(count):
        orchestrator.start(WAITS, {}, f"wait-{number}")
        orchestrator.start(FAMILY, {}, f"family-{number}")

    looks = asked_for(orchestrator, lambda: orchestrator.waiting(limit=1_000))

    waits = orchestrator.waiting(limit=1_000)
    expected = {f"wait-{number}" for number in range(count)} | {f"family-{number}:pay" for number in range(count)}
    assert {each.run.transaction_id for each in waits} == expected
    assert looks <= (6 if isinstance(orchestrator.store, RedisStateStore) else 0)


def test_S34_a_run_that_cannot_be_read_keeps_none_of_the_others_from_view(
    orchestrator: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    orchestrator.start(WAITS, {}, "wait-1")
    for name in ("order-1", "order-2"):
        charged(orchestrator, name)
    for name in ("wait-1", "order-1"):
        damage(orchestrator, name)
    orchestrator.start(WAITS, {}, "wait-2")

    assert ids(orchestrator.list(live=True)) == ["order-2"]
    assert [each.run.transaction_id for each in orchestrator.waiting()] == ["wait-2"]
    assert "run order-1 is left out, for it cannot be read" in caplog.text


def damage(orchestrator: Orchestrator, name: str) -> None:
    """Write something into a run that is none of its steps' states."""
    store = orchestrator.store
    if isinstance(store, RedisStateStore):
        store._client.hset(store.keys.of_run(name).run, "s:charge", "{")
    else:
        store._tables.rows[name].fields["s:charge"] = "{"  # type: ignore[attr-defined]


def test_many_are_loaded_as_each_is(orchestrator: Orchestrator) -> None:
    names = [f"wait-{number}" for number in range(250)]
    for name in names[::2]:
        orchestrator.start(WAITS, {}, name)

    with round_trips() as sent:
        found = orchestrator.store.load_many(names)

    assert list(found) == names[::2]
    one = orchestrator.store.load("wait-4")
    assert (found["wait-4"].state, found["wait-4"].in_flight, found["wait-4"].version) == (
        one.state,
        one.in_flight,
        one.version,
    )
    assert len(sent) <= (4 if isinstance(orchestrator.store, RedisStateStore) else 0)
