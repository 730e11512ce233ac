"""Money that is not undone: what is left live is warned of when it is written, and named where a run has ended."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from multiagents import Child, Orchestrator, RetryPolicy, Step, TerminalError, WorkflowBuilder, worker
from multiagents.exceptions import UndoMissingWarning, WorkflowFailedError


@worker("live.do")
def do(context: dict[str, Any]) -> dict[str, Any]:
    return {"done": True}


@worker("live.fail")
def fail(context: dict[str, Any]) -> None:
    raise TerminalError("no")


@worker("live.undo", retry=RetryPolicy(max_attempts=1))
def undo(context: dict[str, Any]) -> None:
    if context.get("stuck"):
        raise TerminalError("stuck")


# When it is written -------------------------------------------------------------------------------------------------


def warned(made: WorkflowBuilder) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made.build(register=False)
    return [str(each.message) for each in caught if each.category is UndoMissingWarning]


def undone() -> WorkflowBuilder:
    return WorkflowBuilder("live-written").add_step("reserve", do, compensation=undo)


def test_S14_each_step_that_says_nothing_of_its_undo_is_named_once_another_one_is_undone() -> None:
    [said] = warned(undone().add_step("charge", do).add_step("ship", do).add_step("look", do, no_compensation="reads"))

    assert said.startswith('workflow "live-written" undoes what it did when it fails, but not steps "charge", "ship", ')
    assert 'no_compensation="it only reads"' in said


@pytest.mark.parametrize(
    ("added", "named"),
    [
        (lambda made: made.add_map("each", do), '"each"'),
        (lambda made: made.add_loop("polls", [Step("poll", do)], bool, 3), '"poll"'),
        (lambda made: made.add_parallel("p", [Step("a", do, compensation=undo), "b"]), '"b"'),
        (lambda made: made.add_child("pay", undone().build(register=False), no_compensation="so"), None),
        (lambda made: made.add_child("pay", undone().build(register=False)), None),
        (
            lambda made: made.add_wait("paid").add_approval("ok").add_sleep("nap", 1).add_choice("c", str, {"a": []}),
            None,
        ),
        (lambda made: made.add_step("send", do, pivot=True).add_step("behind", do), None),
        (lambda made: made.add_map("each", do, compensation=undo), None),
    ],
)
def test_S14_what_is_named_and_what_is_not(added: Any, named: str | None) -> None:
    said = warned(added(undone()))

    assert [f"step {named}, which says nothing" in each for each in said] == ([True] if named else [])


def test_S14_a_workflow_that_undoes_nothing_is_not_warned_of() -> None:
    assert warned(WorkflowBuilder("live-plain").add_step("a", do).add_step("b", do)) == []


def test_S14_the_warning_points_at_who_builds() -> None:
    with pytest.warns(UndoMissingWarning) as caught:
        undone().add_step("charge", do).build(register=False)

    assert [each.filename for each in caught] == [__file__]


# When a run has ended -----------------------------------------------------------------------------------------------

ORDER = (
    WorkflowBuilder("live-order")
    .add_step("look", do, no_compensation="it only reads")
    .add_step("reserve", do, compensation=undo)
    .add_step("charge", do)
    .add_step("ship", fail)
    .build()
)


def test_S28_a_compensated_run_with_a_live_charge_says_so_everywhere(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(ORDER, {})
    fine = orchestrator.start(WorkflowBuilder("live-fine").add_step("a", do, compensation=undo).build(), {})

    seen = run.describe()
    with pytest.raises(
        WorkflowFailedError, match=r"what charge did is not undone: step 'ship': .*TerminalError: no;"
    ) as failed:
        run.result(timeout=1)

    assert failed.value.step == seen.failed_step == "ship"
    assert (seen.status, seen.live, failed.value.live) == ("compensated", ("charge",), ("charge",))
    assert seen.effects == {"look": "live", "reserve": "undone", "charge": "live"}
    assert list(orchestrator.list(live=True)) == [run]
    assert (fine.describe().live, len(orchestrator.list())) == ((), 2)


def test_S28_an_undo_that_failed_or_was_skipped_leaves_its_effect_among_them(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(ORDER, {"stuck": True})
    parked = run.describe().live

    run.skip("reserve", "a gift")

    assert (parked, run.describe().live) == (("reserve", "charge"), ("reserve", "charge"))


def test_S11_S28_a_child_that_is_undone_leaves_nothing_with_its_parent(orchestrator: Orchestrator) -> None:
    child = WorkflowBuilder("live-child").add_step("a", do, compensation=undo).build()
    workflow = WorkflowBuilder("live-parent").add_parallel("p", [Child("pay", child)]).add_step("ship", fail).build()

    run = orchestrator.start(workflow, {})

    assert (run.describe().status, run.describe().live) == ("compensated", ())


# How it is shown ----------------------------------------------------------------------------------------------------


def test_runs_are_listed_by_the_version_that_they_follow(orchestrator: Orchestrator) -> None:
    runs = {}
    for version in ("1", "2"):
        workflow = WorkflowBuilder("live-versions", version).add_step("a", do).add_step(f"b{version}", do).build()
        runs[version] = orchestrator.start(workflow, {})

    assert list(orchestrator.list("live-versions", version="2")) == [runs["2"]]
    assert list(orchestrator.list(version="1")) == [runs["1"]]
    assert list(orchestrator.list(version="3")) == []


def test_a_runs_state_is_a_dict_that_json_can_write(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(ORDER, {"amount": 5}, attributes={"customer": "c-1"})
    seen = run.describe()

    told = json.loads(json.dumps(seen.to_dict()))

    assert (told["status"], told["input"], told["live"]) == ("compensated", {"amount": 5}, ["charge"])
    assert told["steps"]["ship"]["error"]["message"] == "no"
    assert told["steps"]["reserve"]["compensation"]["status"] == "compensated"
    assert told["finished_at"] == (seen.finished_at and seen.finished_at.isoformat())
    assert told.keys() == vars(seen).keys()
