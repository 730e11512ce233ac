"""Rule S15: a failure behind a save-point undoes what stands behind it, and then the run goes forward again."""

from __future__ import annotations

from multiagents import Step, WorkflowBuilder
from multiagents.retry import RetryPolicy
from multiagents.workflow.state import RunStatus
from tests.support.driven_run import RunOf

ONCE = RetryPolicy(max_attempts=1)


def parcel(retries: int = 1) -> WorkflowBuilder:
    return (
        WorkflowBuilder("parcel")
        .add_step("pack", compensation="unpack")
        .add_savepoint("packed", retries)
        .add_step("book", compensation="unbook", retry=ONCE)
        .add_step("send", retry=ONCE)
    )


def test_S15_only_what_stands_behind_the_savepoint_is_undone_and_done_again(run_of: RunOf) -> None:
    run = run_of(parcel())
    run.succeeds("pack")
    run.succeeds("book")

    said = run.fails("send")
    assert said == ["compensating", "book/undo/1"]
    said = run.is_undone("book")

    assert said == ["packed rolled_back", "running", "book#2/do/1"]
    assert run.state.status is RunStatus.RUNNING
    assert run.state.error is None
    run.succeeds("book#2")
    assert run.succeeds("send#2") == ["completed"]


def test_S15_a_savepoint_that_was_used_up_leads_no_further_back(run_of: RunOf) -> None:
    run = run_of(parcel())
    run.succeeds("pack")
    run.succeeds("book")
    run.fails("send")
    run.is_undone("book")
    run.succeeds("book#2")

    said = run.fails("send#2")

    assert said == ["compensating", "book#2/undo/1"]
    assert run.is_undone("book#2") == ["pack/undo/1"]
    assert run.is_undone("pack") == ["compensated"]


def test_S15_a_failure_before_the_savepoint_undoes_everything(run_of: RunOf) -> None:
    run = run_of(parcel())

    assert run.fails("pack", retryable=False) == ["compensating", "failed"]


def test_S15_the_outer_savepoint_is_gone_back_to_when_the_inner_one_is_used_up(run_of: RunOf) -> None:
    run = run_of(
        WorkflowBuilder("nested")
        .add_savepoint("outer")
        .add_step("a", compensation="un")
        .add_savepoint("inner")
        .add_step("b", compensation="un", retry=ONCE)
    )
    run.succeeds("a")
    assert run.fails("b") == ["compensating", "inner rolled_back", "running", "b#2/do/1"]

    assert run.fails("b#2") == ["compensating", "a/undo/1"]
    assert run.is_undone("a") == ["outer rolled_back", "running", "a#3/do/1"]

    assert run.succeeds("a#3") == ["inner#3 reached", "b#3/do/1"]
    assert run.succeeds("b#3") == ["completed"]


def test_S15_what_runs_beside_the_savepoint_goes_on(run_of: RunOf) -> None:
    run = run_of(
        WorkflowBuilder("beside")
        .add_step("long", after=[], retry=RetryPolicy(max_attempts=2, initial_interval=1.0, jitter=False))
        .add_savepoint("point", after=[])
        .add_step("risky", compensation="un", retry=ONCE)
        .add_step("last", after=["long", "risky"])
    )

    assert run.fails("risky") == ["compensating", "point rolled_back", "running", "risky#2/do/1"]
    run.succeeds("risky#2")

    assert run.fails("long") == ["long/do/2 in 1 s"]
    assert run.succeeds("long") == ["last#2/do/1"]
    assert run.succeeds("last#2") == ["completed"]


def test_S15_an_undo_that_fails_for_good_on_the_way_back_undoes_the_whole_run(run_of: RunOf) -> None:
    run = run_of(
        WorkflowBuilder("stuck")
        .add_step("pack", compensation="unpack")
        .add_savepoint("packed")
        .add_step("book", compensation="unbook", undo_retry=ONCE)
        .add_step("send", retry=ONCE)
    )
    run.succeeds("pack")
    run.succeeds("book")
    run.fails("send")

    said = run.undo_fails("book")

    assert said == ["compensating", "pack/undo/1"]
    assert run.is_undone("pack") == ["compensation_failed"]


def test_S15_S20_a_cancel_on_the_way_back_undoes_everything_in_the_end(run_of: RunOf) -> None:
    run = run_of(parcel())
    run.succeeds("pack")
    run.succeeds("book")
    run.fails("send")

    run.is_cancelled()
    said = run.is_undone("book")

    assert said == ["packed rolled_back", "running", "compensating", "pack/undo/1"]
    assert run.is_undone("pack") == ["cancelled"]


def test_S5_S15_a_late_success_of_an_undone_pass_is_undone_while_the_run_goes_forward(run_of: RunOf) -> None:
    run = run_of(parcel(), max_lost=1)
    run.succeeds("pack")
    run.is_lost("book")
    assert run.is_undone("book")[:2] == ["packed rolled_back", "running"]
    run.succeeds("book#2")

    said = run.succeeds("book", attempt=1)

    assert said == ["book/undo/2"]
    assert run.succeeds("send#2") == []
    assert run.is_undone("book") == ["completed"]


def test_S15_a_choice_behind_a_savepoint_is_asked_anew(run_of: RunOf) -> None:
    run = run_of(
        WorkflowBuilder("ways")
        .add_savepoint("point")
        .add_choice("way", lambda _: "", {"air": Step("fly", retry=ONCE), "road": Step("drive", retry=ONCE)}),
        label=lambda step: "air" if step == "way" else "road",
    )

    assert run.fails("fly")[-2:] == ["way#2 chosen", "drive#2/do/1"]
    assert run.succeeds("drive#2") == ["completed"]
