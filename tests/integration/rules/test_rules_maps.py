"""Rules S7, S8 and S25 for the items of maps, on real workers."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import ErrorEvent, ResultEvent, RetryPolicy, Step, WorkflowBuilder
from tests.support.apps import scripted
from tests.support.scenario import Scenario, events, outcomes

ONCE = RetryPolicy(max_attempts=1)
ALBUM = (
    WorkflowBuilder("album")
    .add_step("first", "play", compensation="undo")
    .add_map("resize", Step("resize", "play", retry=ONCE), over="order.images", compensation="undo")
    .add_step("last", "echo")
    .build()
)
IN_BULK = (
    WorkflowBuilder("album_in_bulk")
    .add_step("first", "play", compensation="undo")
    .add_map("resize", Step("resize", "play", retry=ONCE), over="images", compensation="undo", compensate_each=False)
    .add_step("last", "play", retry=ONCE)
    .build()
)


def album(*images: Any, **script: Any) -> dict[str, Any]:
    return {"order": {"id": 7, "images": list(images)}, "images": list(images), "script": script}


def test_results_of_a_map_are_in_the_order_of_its_list(rules: Scenario) -> None:
    script = {"resize[0]": [{"size": 10}], "resize[1]": [7], "resize[2]": ["none"]}
    script["resize[1]"] = ["number"]

    seen = rules.play(ALBUM, album("a", "b", "c", **script))

    assert seen.status == "completed"
    assert seen.context["resize"] == [{"size": 10}, 42, None]
    assert seen.steps["resize[1]"].result == 42
    assert [name for name in seen.steps if name.startswith("resize")] == [
        "resize[0]",
        "resize[1]",
        "resize[2]",
        "resize",
    ]
    assert seen.context["last_saw"]["order"]["images"] == ["a", "b", "c"]


def test_an_item_gets_its_item_and_the_context_without_the_list(rules: Scenario) -> None:
    echoing = WorkflowBuilder("map_echo").add_map("see", "echo", over="order.images").build()

    seen = rules.play(echoing, {"order": {"id": 7, "images": ["a", {"b": 1}]}, "n": 5})

    assert seen.context["see"] == [
        {"see[0]_saw": {"order": {"id": 7}, "n": 5, "item": "a", "index": 0}},
        {"see[1]_saw": {"order": {"id": 7}, "n": 5, "item": {"b": 1}, "index": 1}},
    ]


def test_inputs_of_an_item_narrow_what_items_share(rules: Scenario) -> None:
    item = Step("see", "echo", inputs={"order": "order.id"})
    echoing = WorkflowBuilder("map_narrow").add_map("see", item, over="order.images").build()

    seen = rules.play(echoing, {"order": {"id": 7, "images": ["a"]}, "n": 5})

    assert seen.context["see"] == [{"see[0]_saw": {"order": 7, "item": "a", "index": 0}}]


def test_a_map_over_an_empty_list_is_done_at_once(rules: Scenario) -> None:
    seen = rules.play(ALBUM, album())

    assert (seen.status, seen.context["resize"]) == ("completed", [])


def test_S8_only_items_that_took_effect_are_undone_once_each(rules: Scenario) -> None:
    if rules.deployment.pool == "solo":
        pytest.skip("where steps run one at a time, one that waits keeps the others from beginning")
    # All have begun before the first one fails: an item that has not is withdrawn, and took no effect.
    script = {"resize[1]": [["wait", "fail"]], "resize[3]": [["wait", "unknown"]]}
    run = rules.start(ALBUM, album("a", "b", "c", "d", **script))
    for item in ("resize[0]", "resize[1]", "resize[2]", "resize[3]"):
        rules.until_begun(run, item)

    rules.open_gate(run, "resize[3]")
    rules.open_gate(run, "resize[1]")

    seen = rules.end(run)
    undone = rules.began(run, *(f"resize[{index}].undo" for index in range(4)))
    assert seen.status == "compensated"
    assert sorted(undone) == ["resize[0].undo", "resize[2].undo", "resize[3].undo"]
    assert rules.began(run)[-1] == "first.undo"
    assert seen.steps["resize"].status == "failed"
    assert seen.effects == {"first": "undone", "resize[0]": "undone", "resize[2]": "undone", "resize[3]": "undone"}


def test_S8_the_undo_of_an_item_gets_what_the_item_had_and_returned(rules: Scenario) -> None:
    run = rules.start(ALBUM, album("a", "b", **{"resize[0]": [{"size": 10}], "resize[1]": [["wait", "fail"]]}))
    rules.until_begun(run, "resize[0]")
    rules.until_begun(run, "resize[1]")
    rules.open_gate(run, "resize[1]")
    rules.end(run)

    undo = next(entry for entry in rules.journal(run) if entry["step"] == "resize[0]" and entry["direction"] == "undo")

    assert (undo["input"]["item"], undo["input"]["index"], undo["result"], undo["outcome"]) == (
        "a",
        0,
        {"size": 10},
        "succeeded",
    )
    assert undo["key"] == f"{run.transaction_id}/resize[0]"


def test_S8_one_bulk_undo_takes_the_place_of_the_items(rules: Scenario) -> None:
    run = rules.start(IN_BULK, album("a", "b", **{"resize[0]": [{"n": 0}], "resize[1]": [["wait", "fail"]]}))
    rules.until_begun(run, "resize[0]")
    rules.until_begun(run, "resize[1]")
    rules.open_gate(run, "resize[1]")

    seen = rules.end(run)

    undos = [entry for entry in rules.journal(run) if entry["direction"] == "undo"]
    assert [(entry["step"], entry["result"], entry["outcome"]) for entry in undos] == [
        ("resize", [{"n": 0}, None], "unknown"),
        ("first", None, "succeeded"),
    ]
    assert (seen.status, seen.effects["resize[0]"]) == ("compensated", "undone")


def test_S8_a_finished_map_is_undone_in_bulk_with_all_results(rules: Scenario) -> None:
    seen = rules.play(IN_BULK, album("a", "b", **{"resize[0]": [{"n": 0}], "last": ["fail"]}))

    assert seen.status == "compensated"
    assert seen.steps["resize"].compensation.status == "compensated"


def test_no_more_items_run_at_once_than_the_map_allows(rules: Scenario) -> None:
    if rules.deployment.pool == "solo":
        pytest.skip("where steps run one at a time, one that waits keeps the others from beginning")
    slow = (
        WorkflowBuilder("sliding").add_map("resize", Step("resize", "play"), over="images", max_concurrency=2).build()
    )
    run = rules.start(slow, album(*"abcde", **{"resize[0]": ["wait"]}))

    rules.until_begun(run, "resize[3]")
    began, under_way = rules.began(run), run.describe().steps["resize"].status
    rules.open_gate(run, "resize[0]")

    assert (sorted(began), "resize[2]" in began) == (["resize[0]", "resize[1]", "resize[3]"], False)
    assert under_way == "running"
    assert rules.end(run).status == "completed"


def test_an_item_is_retried_by_its_own_policy_and_counted_by_itself(rules: Scenario) -> None:
    patient = WorkflowBuilder("map_retry").add_map("resize", Step("resize", "play", retry=scripted.QUICK)).build()

    run = rules.start(patient, {"items": [1, 2], "script": {"resize[1]": ["fail", "fail", {"n": 3}]}})

    assert rules.end(run).context["resize"] == [None, {"n": 3}]
    assert outcomes(run, "resize[1]") == ["failed", "failed", "result"]


def test_a_killed_worker_costs_an_item_one_attempt(rules: Scenario) -> None:
    if rules.deployment.pool != "prefork":
        pytest.skip("elsewhere the process that is killed is the whole worker: that is tested with the faults")
    run = rules.start(ALBUM, album("a", "b", **{"resize[1]": ["kill"]}))

    seen = rules.end(run)

    assert (seen.status, seen.steps["resize[1]"].attempts) == ("completed", 2)


def test_a_map_over_what_is_no_list_has_failed_and_says_so(rules: Scenario) -> None:
    seen = rules.play(ALBUM, {"order": {"images": 5}})

    assert (seen.status, seen.error.type) == ("compensated", "multiagents.exceptions.WorkflowError")
    assert "over= of step 'resize'" in seen.error.message


def test_a_map_of_more_items_than_fit_a_page_runs_them_all(rules: Scenario) -> None:
    many = WorkflowBuilder("many").add_map("each", "echo", over="numbers").add_step("last", "play").build()

    run = rules.start(many, {"numbers": list(range(1_100))})
    seen = rules.end(run, 60)

    assert [result[f"each[{n}]_saw"]["item"] for n, result in enumerate(seen.context["each"])] == list(range(1_100))
    assert len(events(run, ResultEvent)) == 1_101
    assert events(run, ErrorEvent) == []


def test_cancel_in_a_map_undoes_what_ran(rules: Scenario) -> None:
    run = rules.start(ALBUM, album("a", "b", **{"resize[1]": ["wait"]}))
    rules.until_begun(run, "resize[0]")
    rules.until_begun(run, "resize[1]")

    run.cancel()
    rules.open_gate(run, "resize[1]")

    seen = rules.end(run)
    assert seen.status == "cancelled"
    assert sorted(rules.began(run, "resize[0].undo", "resize[1].undo")) == ["resize[0].undo", "resize[1].undo"]
