"""Maps: their items are steps once the list is known (rules S7, S8)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from multiagents.events import CommandEvent, Event, StatusEvent
from multiagents.workflow.builder import Step, WorkflowBuilder
from multiagents.workflow.decider import Fact, advance, evolve, fold, start_event
from multiagents.workflow.definition import StepDefinition, StepKind
from multiagents.workflow.state import RunState, RunStatus
from tests.support.driven_run import RunOf, by

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def sized(**sizes: int) -> Any:
    """An `Ask` that knows how long the lists of the maps are."""

    def ask(step: StepDefinition, said: Event) -> Event:
        if isinstance(said, CommandEvent) and step.kind is StepKind.MAP:
            facts = {"count": sizes[step.name]}
            return StatusEvent(
                id=f"{said.transaction_id}/laid_out/{step.name}",
                transaction_id=said.transaction_id,
                timestamp=said.timestamp,
                occurred_at=said.occurred_at,
                step=step.name,
                status=Fact.EXPANDED,
                payload=facts,
            )
        return said

    return ask


def album(**options: Any) -> WorkflowBuilder:
    item = options.pop("item", Step("resize", "resize_image"))
    return (
        WorkflowBuilder("album")
        .add_step("open", compensation="close")
        .add_map("resize", item, over="images", **options)
        .add_step("print")
    )


def test_a_map_is_laid_out_as_its_items_once_its_list_is_known(run_of: RunOf) -> None:
    run = run_of(album(), ask=sized(resize=3))

    assert "resize[0]" not in run.steps
    assert run.succeeds("open") == ["resize laid_out", "resize[0]/do/1", "resize[1]/do/1", "resize[2]/do/1"]
    expanded = run.definition.expanded(run.state.sizes)
    assert list(expanded.steps) == ["open", "resize[0]", "resize[1]", "resize[2]", "resize", "print"]
    assert expanded.steps["resize"].after == ("resize[0]", "resize[1]", "resize[2]")
    assert expanded.steps["resize[1]"].worker == "resize_image"
    assert expanded.content_hash == run.definition.content_hash


def test_a_map_is_done_when_its_last_item_is(run_of: RunOf) -> None:
    run = run_of(album(), ask=sized(resize=2))
    run.succeeds("open")

    assert run.succeeds("resize[1]") == []
    assert run.succeeds("resize[0]") == ["resize gathered", "print/do/1"]
    assert run.succeeds("print") == ["completed"]


def test_a_map_without_items_is_done_at_once(run_of: RunOf) -> None:
    run = run_of(album(), ask=sized(resize=0))

    assert run.succeeds("open") == ["resize laid_out", "resize gathered", "print/do/1"]


def test_with_max_concurrency_items_go_in_rows(run_of: RunOf) -> None:
    run = run_of(album(max_concurrency=2), ask=sized(resize=5))

    assert run.succeeds("open") == ["resize laid_out", "resize[0]/do/1", "resize[1]/do/1"]
    assert run.succeeds("resize[1]") == ["resize[3]/do/1"]
    assert run.succeeds("resize[3]") == []
    assert run.succeeds("resize[0]") == ["resize[2]/do/1"]
    assert run.succeeds("resize[2]") == ["resize[4]/do/1"]
    assert run.succeeds("resize[4]") == ["resize gathered", "print/do/1"]


def test_S8_only_items_that_took_effect_are_undone(run_of: RunOf) -> None:
    run = run_of(album(compensation="drop"), ask=sized(resize=4))
    run.succeeds("open")
    run.succeeds("resize[0]")
    run.fails("resize[1]", kind="unknown")
    run.fails_for_good("resize[2]")

    assert run.succeeds("resize[3]") == ["resize[3]/undo/1", "resize[1]/undo/1", "resize[0]/undo/1"]
    for item in ("resize[0]", "resize[3]"):
        assert run.is_undone(item) == []
    assert run.is_undone("resize[1]") == ["open/undo/1"]
    assert run.is_undone("open") == ["compensated"]


def test_S6_rows_are_undone_newest_first(run_of: RunOf) -> None:
    run = run_of(album(max_concurrency=2, compensation="drop"), ask=sized(resize=4))
    for step in ("open", "resize[0]", "resize[1]", "resize[2]", "resize[3]"):
        run.succeeds(step)

    assert run.fails_for_good("print") == ["compensating", "resize[3]/undo/1", "resize[2]/undo/1"]
    assert run.is_undone("resize[3]") == ["resize[1]/undo/1"]


def test_S8_in_bulk_what_was_done_is_gathered_in_part_and_undone_in_one_go(run_of: RunOf) -> None:
    run = run_of(album(compensation="drop", compensate_each=False), ask=sized(resize=2))
    run.succeeds("open")
    run.succeeds("resize[0]")

    assert run.fails_for_good("resize[1]") == ["compensating", "resize gathered", "resize/undo/1"]
    assert run.said[1].payload == {"count": 2, "in_part": True}
    assert run.state.step("resize").outcome == "unknown"
    assert run.is_undone("resize") == ["open/undo/1"]


def test_S8_in_bulk_nothing_is_undone_where_no_item_took_effect(run_of: RunOf) -> None:
    run = run_of(album(compensation="drop", compensate_each=False), ask=sized(resize=1))
    run.succeeds("open")

    assert run.fails_for_good("resize[0]") == ["compensating", "open/undo/1"]


def test_S8_in_bulk_a_finished_map_is_undone_as_one_step(run_of: RunOf) -> None:
    run = run_of(album(compensation="drop", compensate_each=False), ask=sized(resize=2))
    for step in ("open", "resize[0]", "resize[1]"):
        run.succeeds(step)

    assert run.fails_for_good("print") == ["compensating", "resize/undo/1"]
    assert run.state.step("resize").outcome == "succeeded"


@pytest.mark.parametrize("ended", [False, True], ids=["while it goes back", "after its end"])
def test_S5_in_bulk_an_item_that_succeeds_late_has_all_undone_once_more(run_of: RunOf, ended: bool) -> None:
    run = run_of(album(compensation="drop", compensate_each=False), ask=sized(resize=2))
    run.succeeds("open")
    run.succeeds("resize[0]")
    run.fails("resize[1]", kind="unknown")
    run.is_undone("resize")
    if ended:
        assert run.is_undone("open") == ["compensated"]

    said = run.succeeds("resize[1]", attempt=1)

    assert said == (["compensating", "resize/undo/2"] if ended else ["resize/undo/2"])
    assert run.is_undone("resize")[-1:] == (["compensated"] if ended else [])


def test_S5_in_bulk_the_only_item_with_an_effect_may_be_one_that_succeeds_late(run_of: RunOf) -> None:
    run = run_of(album(compensation="drop", compensate_each=False), ask=sized(resize=1))
    run.succeeds("open")
    run.is_cancelled()
    run.is_recalled("resize[0]")
    run.is_undone("open")
    assert run.state.status == "cancelled"

    assert run.succeeds("resize[0]", attempt=1) == ["compensating", "resize gathered", "resize/undo/1"]
    assert run.is_undone("resize") == ["cancelled"]


def test_S20_a_cancel_waits_for_items_in_flight_and_starts_no_further_one(run_of: RunOf) -> None:
    run = run_of(album(max_concurrency=1, compensation="drop"), ask=sized(resize=3))
    run.succeeds("open")

    assert run.is_cancelled() == ["compensating"]
    assert run.succeeds("resize[0]") == ["resize[0]/undo/1"]


def test_S7_cancel_safe_items_are_not_waited_for_when_the_run_is_cancelled(run_of: RunOf) -> None:
    item = Step("resize", "resize_image", compensation="drop", cancel_safe=True)
    run = run_of(album(item=item), ask=sized(resize=2))
    run.succeeds("open")

    assert run.is_cancelled() == [
        "compensating",
        f"resize[0] {Fact.ATTEMPT_ABANDONED}",
        f"resize[1] {Fact.ATTEMPT_ABANDONED}",
        "resize[1]/undo/1",
        "resize[0]/undo/1",
    ]


def test_an_explicit_order_of_undoing_has_the_items_in_the_place_of_their_map(run_of: RunOf) -> None:
    builder = WorkflowBuilder("ordered", compensate_in=["open", "resize"])
    builder.add_step("open", compensation="close").add_map("resize", compensation="drop").add_step("print")
    run = run_of(builder, ask=sized(resize=2))
    for step in ("open", "resize[0]", "resize[1]"):
        run.succeeds(step)

    assert run.fails_for_good("print") == ["compensating", "open/undo/1"]
    assert run.is_undone("open") == ["resize[1]/undo/1"]
    assert run.is_undone("resize[1]") == ["resize[0]/undo/1"]


# --- pages -----------------------------------------------------------------------------------------------------------


def paged(definition: Any, count: int) -> tuple[RunState, list[Event], list[int]]:
    """A run of a map as the shell sends it out: page after page; the last answer is how many each page sends."""
    ask = sized(resize=count)
    started = start_event(definition, "A-1", now=NOON)
    state, history, pages = evolve(definition, RunState("A-1", definition.name), started), [started], []
    while (answer := advance(definition, state, now=NOON, answer=by(ask))).events:
        state, said, *_ = answer
        history += said
        pages.append(sum(isinstance(event, CommandEvent) for event in said))
    return state, history, pages


def test_a_long_map_is_sent_out_in_pages_of_500() -> None:
    definition = WorkflowBuilder("long").add_map("resize").build(register=False)

    state, history, pages = paged(definition, 1_200)

    assert pages == [500, 500, 200]
    assert fold(definition, "A-1", history) == state


def test_a_long_map_is_taken_back_in_pages_of_500() -> None:
    definition = WorkflowBuilder("long").add_map("resize").build(register=False)
    state, _history, _pages = paged(definition, 1_200)
    state = state._replace(status=RunStatus.COMPENSATING)
    unclaimed = {f"resize[{number}]" for number in range(1_200)}

    pages = []
    while state.status is RunStatus.COMPENSATING:
        state, said, *_ = advance(definition, state, now=NOON, unclaimed=unclaimed)
        pages.append(sum(getattr(event, "status", None) == Fact.REVOKED for event in said))

    assert pages == [500, 500, 200]
    assert state.status == "failed"


# --- facts that do not fit -------------------------------------------------------------------------------------------


def test_a_map_is_laid_out_once_and_gathered_once(run_of: RunOf) -> None:
    run = run_of(album(), ask=sized(resize=1))
    run.succeeds("open")
    before = run.state
    again = run.status(Fact.EXPANDED, step="resize", payload={"count": 7})
    assert evolve(run.definition, before, again) is before

    run.succeeds("resize[0]")
    before = run.state
    assert evolve(run.definition, before, run.status(Fact.GATHERED, step="resize", payload={"count": 1})) is before
