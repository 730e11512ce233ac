"""What is run inside a workflow, as data: children and the items of maps."""

from __future__ import annotations

import json
from textwrap import dedent
from typing import Any

import pytest

from multiagents import RetryPolicy
from multiagents.exceptions import DefinitionError
from multiagents.workflow.builder import Child, Map, Step, WorkflowBuilder
from multiagents.workflow.definition import Definition

PAY = (
    WorkflowBuilder("pay")
    .add_step("hold", "hold_money", compensation="release_money", retry=RetryPolicy(max_attempts=2))
    .add_step("charge", inputs=lambda ctx: {"amount": ctx["total"]})
    .build(register=False)
)


def nested() -> Definition:
    return (
        WorkflowBuilder("nested")
        .add_step("open")
        .add_map("resize", "resize_image", over="images", max_concurrency=20, compensation="drop")
        .add_parallel("both", [Child("payment", PAY), Child("news", PAY, detached=True)])
        .add_map("bill", PAY, over=lambda ctx: ctx["bills"], compensation="void", compensate_each=False)
        .build(register=False)
    )


# --- data ------------------------------------------------------------------------------------------------------------


def test_S26_a_definition_with_others_inside_is_read_as_it_was_stored() -> None:
    original = nested()

    read = Definition.from_json(original.to_json())

    assert (read, read.content_hash, read.to_dict()) == (original, original.content_hash, original.to_dict())
    assert read.steps["payment"].workflow == PAY
    assert read.steps["bill"].item.workflow.steps["hold"].retry == RetryPolicy(max_attempts=2)


def test_what_is_inside_is_data_as_well() -> None:
    data = json.loads(nested().to_json())

    by_name = {step["name"]: step for step in data["steps"]}
    assert by_name["resize"] == {
        "name": "resize",
        "kind": "map",
        "after": ["open"],
        "over": "images",
        "max_concurrency": 20,
        "item": {"name": "resize", "worker": "resize_image", "compensation": "drop"},
    }
    assert by_name["payment"]["workflow"] == PAY.to_dict()
    assert by_name["bill"]["over"] is True


def test_code_of_a_child_is_its_own_and_that_of_a_map_is_the_parents() -> None:
    read = Definition.from_json(nested().to_json())

    assert read.lacks_code  # the list of "bill"
    assert not read.steps["payment"].lacks_code
    assert read.steps["payment"].workflow.lacks_code


@pytest.mark.parametrize("where", ["child", "its step", "item", "item's workflow", "item's retry"])
def test_keys_of_a_later_release_inside_are_kept_for_whoever_stores_it(where: str) -> None:
    known = nested()
    data = json.loads(known.to_json())
    steps = {step["name"]: step for step in data["steps"]}
    inside: dict[str, Any] = {
        "child": steps["payment"]["workflow"],
        "its step": steps["payment"]["workflow"]["steps"][0],
        "item": steps["resize"]["item"],
        "item's workflow": steps["bill"]["item"]["workflow"],
        "item's retry": steps["bill"]["item"]["workflow"]["steps"][0]["retry"],
    }
    inside[where]["colour"] = "blue"

    read = Definition.from_dict(data)

    assert read.to_dict() == data
    assert read.content_hash != known.content_hash
    assert Definition.from_json(read.to_json()).content_hash == read.content_hash
    if where == "child":
        assert read.steps["payment"].workflow.to_dict() == inside["child"]
        assert read.steps["payment"].workflow.content_hash != PAY.content_hash


def test_another_child_is_another_definition() -> None:
    other = WorkflowBuilder("pay").add_step("hold", "hold_money_twice").build(register=False)

    one, two = (WorkflowBuilder("parent").add_child("pay", each).build(register=False) for each in (PAY, other))

    assert one.content_hash != two.content_hash


def test_a_definition_that_is_expanded_is_the_same_one_and_is_kept() -> None:
    album = nested()

    expanded = album.expanded({"resize": 2})

    assert expanded == album
    assert album.expanded({"resize": 2}) is expanded
    assert expanded.expanded({}) is album
    assert expanded.expanded({"resize": 2, "bill": 1}).steps["bill[0]"].workflow == PAY
    assert album.own("resize[7]").worker == "resize_image"


# --- pictures --------------------------------------------------------------------------------------------------------


def test_the_terminal_picture_shows_what_is_run_for_what() -> None:
    expected = """
    nested · version 1
    │
    ● open          open
    │
    ● resize               ⤺ drop for each  (resize_image for each of images, 20 at once)
    │
    ├─┬─ both
    │ ├─● payment          (run of pay)
    │ ╰─● news             (run of pay, left alone)
    │
    ● bill                 ⤺ void  (run of pay for each item)
    """

    assert "\n" + nested().diagram("ascii") + "\n" == dedent(expected)


def test_the_mermaid_picture_shows_what_is_run_for_what() -> None:
    lines = [line.strip() for line in nested().diagram("mermaid").splitlines()]

    assert 's1["resize<br/>resize_image for each of images, 20 at once"]' in lines
    assert 's1_undo(["⤺ drop for each"])' in lines
    assert "s1 -. undo .-> s1_undo" in lines
    assert 's2["payment<br/>run of pay"]' in lines
    assert 's4["bill<br/>run of pay for each item"]' in lines


# --- what is refused -------------------------------------------------------------------------------------------------


async def later(context: dict[str, Any]) -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("element", "sentence"),
    [
        (Map("m", over=5), 'step "m" has over=5; expected a dotted path to a list in the context'),
        (Map("m", over=""), "has over=''"),
        (Map("m", over=later), 'step "m" has an async function as its over'),
        (Map("m", max_concurrency=0), "has max_concurrency=0; expected a whole number from 1, or None for no limit"),
        (Map("m", max_concurrency=True), "has max_concurrency=True"),
        (Map("m", compensate_each=False), 'map "m" has compensate_each=False and no compensation; add compensation='),
        (Map("m", compensate_each="no"), "has compensate_each='no'; expected True or False"),
        (Map("m", 7), 'map "m" has worker=7; expected the name of a worker'),
        (Map("m", undo_retry=3), "write undo_retry=RetryPolicy(max_attempts=3)"),
        (Map("m", Step("m", after="x")), "map \"m\" has items with after='x'; all items run when the map does"),
        (Map("m", Step("m", pivot=True)), 'map "m" has items with pivot=True'),
        (Map("m", Step("m", compensation="a"), compensation="b"), 'map "m" has a compensation, and so have its items'),
        (Map("m", Step("m", no_compensation="it reads"), compensation="b"), "and its items a no_compensation"),
        (Map("m", Child("m", "nowhere")), 'step "m" is to run another workflow: '),
        (Child("c", None), 'step "c" has workflow=None; expected a definition, as build() returns it'),
        (Child("c", "nowhere"), 'step "c" is to run another workflow: '),
        (Child("c", PAY, detached=1), "has detached=1; expected True or False"),  # type: ignore[arg-type]
        (Child("c", PAY, on_failure="stop"), 'has on_failure=\'stop\'; expected "fail", "continue" or "park"'),
        (Child("c", PAY, detached=True, compensation="undo"), 'step "c" is detached and has a compensation'),
        (Child("c", PAY, compensation="undo", no_compensation="x"), "has compensation and no_compensation"),
        (Child("c", PAY, inputs=5), "has inputs=5; expected a mapping of argument to dotted path"),  # type: ignore[arg-type]
    ],
)
def test_what_does_not_fit_is_named(element: Any, sentence: str) -> None:
    builder = WorkflowBuilder("refused").add_parallel("both", [element])

    with pytest.raises(DefinitionError) as refused:
        builder.build(register=False)

    assert sentence in str(refused.value)


def test_S12_a_child_with_a_pivot_is_one() -> None:
    sealed = WorkflowBuilder("sealed").add_step("sign", pivot=True).build(register=False)

    steps = (
        WorkflowBuilder("parent")
        .add_step("a", no_compensation="it reads")
        .add_child("b", sealed, compensation="undo")
        .add_child("c", sealed)
        .build(register=False)
        .steps
    )

    assert (steps["b"].pivot, steps["c"].pivot, steps["c"].is_undoable) == (False, True, False)


def test_S14_a_strict_workflow_takes_a_child_for_undone_by_its_journal_and_asks_of_the_items_of_a_map() -> None:
    WorkflowBuilder("strict", strict=True).add_child("pay", PAY).add_map("paid", PAY).build(register=False)

    with pytest.raises(DefinitionError, match='step "each" of it does not say how to undo what was done'):
        WorkflowBuilder("strict", strict=True).add_map("each").build(register=False)
