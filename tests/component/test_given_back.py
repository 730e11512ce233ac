"""An attempt that a worker has begun and given back: nobody has it now, and it may have taken effect (rule S1b)."""

from __future__ import annotations

import pytest

from multiagents import Orchestrator, RetryPolicy, WorkflowBuilder
from multiagents.exceptions import OutcomeUnknownError, TerminalError
from multiagents.names import Direction
from multiagents.worker_sdk.attempt.give_back import give_back

ONCE = RetryPolicy(max_attempts=1)
FLOW = WorkflowBuilder("given-back").add_step("ask", "ask", compensation="forget", retry=ONCE).build(register=False)


def is_given_back(orchestrator: Orchestrator, *, begun: bool, cancelled: bool = False) -> None:
    """Let a worker have the first attempt, and give it back."""
    store = orchestrator.store
    state = store.load("order-1").state
    attempt = state.correlation("ask", Direction.DO, 1)
    claim = store.claim(attempt, state.definition_hash, owner="worker", worker="w@here", timeout=None)
    if cancelled:
        orchestrator.get("order-1").cancel()
    give_back(store, claim, 60_000, "it waits", begun=begun)


@pytest.mark.parametrize(("begun", "outcome", "status"), [(False, None, "failed"), (True, "unknown", "compensating")])
def test_S1b_a_cancel_undoes_what_was_given_back_half_way_and_only_that(
    orchestrator: Orchestrator, begun: bool, outcome: str | None, status: str
) -> None:
    run = orchestrator.start(FLOW, {}, "order-1")
    is_given_back(orchestrator, begun=begun)

    run.cancel()

    state = orchestrator.store.load("order-1").state
    assert state.step("ask").outcome == outcome
    assert state.status == ("cancelled" if status == "failed" else status)
    assert state.step("ask").undo.in_flight is begun


@pytest.mark.parametrize(("begun", "effect"), [(False, "pending"), (True, "unknown")])
def test_S28_nobody_knows_of_the_effect_of_what_was_given_back_half_way(
    orchestrator: Orchestrator, begun: bool, effect: str
) -> None:
    run = orchestrator.start(FLOW, {}, "order-1")

    is_given_back(orchestrator, begun=begun)

    assert run.describe().effects == {"ask": effect}


@pytest.mark.parametrize(("begun", "outcome"), [(False, "failed"), (True, "unknown")])
def test_S1b_what_nobody_takes_again_after_it_was_given_back_half_way_has_not_failed_for_certain(
    orchestrator: Orchestrator, begun: bool, outcome: str
) -> None:
    run = orchestrator.start(FLOW, {}, "order-1")
    is_given_back(orchestrator, begun=begun)

    orchestrator.engine.revoked(
        orchestrator.store.load("order-1").state.correlation("ask", Direction.DO, 1), terminated=False
    )

    assert orchestrator.store.load("order-1").state.step("ask").outcome == outcome
    assert run.status == ("compensating" if begun else "failed")


@pytest.mark.parametrize(("begun", "error"), [(False, TerminalError), (True, OutcomeUnknownError)])
def test_S1b_what_is_given_back_to_a_run_that_goes_back_has_come_to_what_it_had_done(
    orchestrator: Orchestrator, begun: bool, error: type[Exception]
) -> None:
    orchestrator.start(FLOW, {}, "order-1")

    with pytest.raises(error, match="the run goes back meanwhile"):
        is_given_back(orchestrator, begun=begun, cancelled=True)
