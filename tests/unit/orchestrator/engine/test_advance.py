"""What a decision over a whole run is refused for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from multiagents.events import StatusEvent
from multiagents.orchestrator.engine.advance import LONGEST_PAUSE, RACES_AT_ONCE, fence, let_others_first
from multiagents.orchestrator.engine.pipeline import Decided
from multiagents.state_store.records import Snapshot
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.decider import command, evolve
from multiagents.workflow.state import Activity, ActivityStatus, RunState, RunStatus, StepState

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FLOW = WorkflowBuilder("fenced").add_step("a").add_step("b", after=[]).build(register=False)
RUN = RunState("A-1", "fenced", status=RunStatus.RUNNING)
FAILED_ONCE = StepState(Activity(ActivityStatus.FAILED, 1, 1, retry_in=0.0))


def fenced(before: RunState, *steps: str, also: Any = None, paged: bool = True) -> dict[str, Any]:
    facts = [command(FLOW, before, step, NOON) for step in steps]
    after = before
    for fact in [*facts, *([also] if also else [])]:
        after = evolve(FLOW, after, fact)
    snapshot = Snapshot(before, FLOW, {}, 7, 3, NOON)
    return fence(snapshot, Decided(FLOW, after, [*facts, *([also] if also else [])], pending=paged))


def test_a_page_of_first_attempts_is_refused_if_the_run_has_turned_or_they_were_sent_out() -> None:
    assert fenced(RUN, "a", "b") == {"epoch": 3, "fresh": ["a", "b"]}


@pytest.mark.parametrize(
    "given",
    [
        {"before": RUN, "paged": False},
        {"before": RUN.with_step("a", FAILED_ONCE)},
        {"before": RUN._replace(status=RunStatus.COMPENSATING)},
        {
            "before": RUN,
            "also": StatusEvent(transaction_id="A-1", timestamp=NOON, occurred_at=NOON, status="pause_requested"),
        },
    ],
    ids=["the last page", "an attempt that is not the first", "a run that goes back", "another fact beside them"],
)
def test_any_other_decision_is_refused_if_anything_was_committed(given: dict[str, Any]) -> None:
    assert fenced(given.pop("before"), "a", **given) == {"version": 7}


def test_who_loses_again_and_again_lets_others_first(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    monkeypatch.setattr("multiagents.orchestrator.engine.advance.time.sleep", paused.append)

    for race in range(100):
        let_others_first(race)

    assert len(paused) == 100 - RACES_AT_ONCE - 1
    assert paused == sorted(paused)
    assert (paused[0], paused[-1]) == (0.01, LONGEST_PAUSE)
