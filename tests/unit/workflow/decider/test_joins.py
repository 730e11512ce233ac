"""Where results of parallel steps meet: what overlaps is said, and timing never decides."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from multiagents.events import StatusEvent
from multiagents.workflow.builder import Step, WorkflowBuilder
from multiagents.workflow.decider import Fact, decide, merge_note, overlaps
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunState

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def risk() -> Definition:
    branches = [Step("fraud"), [Step("credit"), Step("limit")]]
    return WorkflowBuilder("order").add_parallel("risk", branches).add_step("ship").build(register=False)


def note(results: dict[str, Any], step: str | None = "ship") -> StatusEvent | None:
    definition = risk()
    return merge_note(definition, definition.parts("ship"), results, transaction_id="A-1", step=step, now=NOON)


def test_a_key_that_two_branches_return_is_an_overlap_and_the_one_defined_later_counts() -> None:
    said = note({"limit": {"score": 3}, "fraud": {"score": 1, "ok": True}})

    assert said == StatusEvent(
        id="A-1/merged/ship",
        transaction_id="A-1",
        timestamp=NOON,
        occurred_at=NOON,
        step="ship",
        status=Fact.MERGED,
        reason="results with the same key were merged in definition order: "
        '"score" of fraud, limit: that of limit counts',
        payload={"overlaps": {"score": ["fraud", "limit"]}},
    )


def test_a_step_that_changes_what_a_step_before_it_returned_is_no_overlap() -> None:
    assert note({"credit": {"score": 1}, "limit": {"score": 2}, "fraud": {"ok": True}}) is None


def test_a_result_that_is_no_mapping_counts_under_its_steps_name() -> None:
    found = overlaps(risk(), ("fraud", "credit", "limit"), {"fraud": 0.3, "limit": {"fraud": 0.7}})

    assert found == {"fraud": ("fraud", "limit")}


def test_an_overlap_at_the_end_of_the_run_names_no_step() -> None:
    said = note({"fraud": {"score": 1}, "credit": {"score": 2}}, step=None)

    assert said is not None
    assert (said.id, said.step) == ("A-1/merged", None)


def test_the_note_of_an_overlap_changes_no_state() -> None:
    state = RunState("A-1", "order")

    for step in ("ship", None):
        said = note({"fraud": {"score": 1}, "credit": {"score": 2}}, step)
        assert said is not None
        assert decide(risk(), state, said)[:2] == (state, ())
