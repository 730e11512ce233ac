"""Rule S15: back to a save-point and forward again, on real workers."""

from __future__ import annotations

import pytest

from tests.support.apps import scripted
from tests.support.scenario import Scenario, statuses


def test_S15_the_second_pass_goes_another_way(rules: Scenario) -> None:
    run = rules.start(
        scripted.parcel,
        fly=[{"by": "air", "seat": 7}],
        **{"drive#2": [{"by": "road"}], "deliver": [["declined"]]},
    )

    seen = rules.end(run)

    assert seen.status == "completed"
    assert statuses(run) == ["running", "compensating", "running", "completed"]
    assert (seen.context["by"], seen.context["packed"]["attempt"]) == ("road", 2)
    assert seen.context["packed"]["error"]["message"] == "the card was declined"
    assert "seat" not in seen.context["last#2_saw"]  # what was undone is not in the context any more
    assert [seen.steps[name].status for name in ("pack", "fly", "customs", "fly#2", "drive#2", "customs#2")] == [
        "succeeded",
        "compensated",
        "compensated",
        "skipped",
        "succeeded",
        "succeeded",
    ]
    assert rules.began(run, "pack", "pack.undo", "fly.undo", "customs.undo") == ["pack", "customs.undo", "fly.undo"]


def test_S15_S25_steps_of_another_pass_have_keys_of_their_own(rules: Scenario) -> None:
    run = rules.start(scripted.parcel, deliver=[["declined"]])
    rules.end(run)

    keys = {entry["step"]: entry["key"] for entry in rules.journal(run) if entry["direction"] == "do"}

    assert keys["customs"] == f"{run.transaction_id}/customs"
    assert keys["customs#2"] == f"{run.transaction_id}/customs#2"


def test_S15_when_the_savepoint_is_used_up_everything_is_undone(rules: Scenario) -> None:
    run = rules.start(scripted.parcel, **{"deliver": [["declined"]], "deliver#2": [["declined"]]})

    seen = rules.end(run)

    assert seen.status == "compensated"
    assert rules.began(run, "fly.undo", "drive#2.undo", "pack.undo") == ["fly.undo", "drive#2.undo", "pack.undo"]


def test_S15_a_worker_killed_in_the_second_pass_costs_an_attempt(rules: Scenario) -> None:
    if rules.deployment.pool != "prefork":
        pytest.skip("elsewhere the process that is killed is the whole worker: that is tested with the faults")
    run = rules.start(scripted.parcel, **{"deliver": [["declined"]], "drive#2": ["kill"]})

    seen = rules.end(run)

    assert (seen.status, seen.steps["drive#2"].attempts) == ("completed", 2)
