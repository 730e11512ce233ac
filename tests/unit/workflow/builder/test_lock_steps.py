"""Locks as steps: what the builder takes, what the core says, and keys with fields in them (rule S29)."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import Lock, Parallel, Step, WorkflowBuilder
from multiagents.exceptions import DefinitionError, WorkflowError
from multiagents.workflow.definition import Definition, checked_key, filled_template, template_fields
from tests.support.driven_run import RunOf


def picking(**options: Any) -> WorkflowBuilder:
    return (
        WorkflowBuilder("picking")
        .add_step("reserve", compensation="release")
        .add_lock("stock", "stock:{sku}", **options)
        .add_step("ship")
    )


# The builder --------------------------------------------------------------------------------------------------------


def test_a_lock_is_data_that_reads_back_and_draws() -> None:
    built = picking(lease=60, timeout=5).build(register=False)

    data = built.to_dict()["steps"][1]

    assert data == {
        "name": "stock",
        "kind": "lock",
        "after": ["reserve"],
        "timeout": 5.0,
        "on_timeout": "fail",
        "key": "stock:{sku}",
        "lease": 60.0,
    }
    assert Definition.from_dict(built.to_dict()) == built
    assert "(lock stock:{sku})" in built.diagram("ascii")


def test_a_key_may_be_code_that_the_data_only_mentions() -> None:
    built = WorkflowBuilder("coded").add_lock("stock", lambda ctx: ctx["sku"]).build(register=False)

    read = Definition.from_dict(built.to_dict())

    assert built.to_dict()["steps"][0]["key"] is True
    assert (built.has_code, read.lacks_code) == (True, True)


def test_a_lock_may_stand_in_a_branch() -> None:
    built = (
        WorkflowBuilder("branch")
        .add_parallel("both", [[Lock("stock", "stock"), Step("pick")], "bill"])
        .build(register=False)
    )

    assert built.steps["pick"].after == ("stock",)
    assert Parallel("p", [Lock("l", "k")]).branches


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"key": ""}, "it is no text"),
        ({"key": None}, "it is no text"),
        ({"key": "stock:{sku"}, "expected '}' before end of string"),
        ({"key": "stock:{}"}, "a field is a name"),
        ({"key": "stock:{sku!r}"}, "a field is a name"),
        ({"key": "stock:{sku.}"}, "a field is a name"),
        ({"key": "k", "lease": 0}, "lease=0; expected a number, more than 0 seconds, a timedelta, or None to hold it"),
        ({"key": "k", "timeout": -1}, "timeout=-1"),
        ({"key": "k", "on_timeout": "reject"}, 'on_timeout=\'reject\'; expected "fail" or "continue"'),
        ({"key": "k", "when": "always"}, "when='always'"),
    ],
)
def test_a_lock_whose_options_do_not_fit_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError, match=r'"refused" step "stock" has') as refused:
        WorkflowBuilder("refused").add_lock("stock", **options).build(register=False)

    assert said in str(refused.value)


def test_an_async_key_is_refused() -> None:
    async def key(_context: dict[str, Any]) -> str:
        return "stock"

    with pytest.raises(DefinitionError, match="async function as its key"):
        WorkflowBuilder("refused").add_lock("stock", key).build(register=False)  # type: ignore[arg-type]


# The core -----------------------------------------------------------------------------------------------------------


def test_S29_what_comes_after_a_lock_waits_for_it(run_of: RunOf) -> None:
    run = run_of(picking())

    assert run.succeeds("reserve") == ["stock/do/1"]
    assert run.succeeds("stock") == ["ship/do/1"]
    assert run.succeeds("ship") == ["completed"]


def test_S29_a_lock_has_no_undo_and_is_in_nobodys_way_going_back(run_of: RunOf) -> None:
    run = run_of(picking())
    run.succeeds("reserve")
    run.succeeds("stock")

    assert run.fails_for_good("ship") == ["compensating", "reserve/undo/1"]
    assert run.is_undone("reserve") == ["compensated"]


# Keys ---------------------------------------------------------------------------------------------------------------


def test_a_key_takes_texts_and_numbers_from_the_context() -> None:
    context = {"order": {"sku": "a/7", "shop": {"id": 3}}, "n": 1.5}

    assert filled_template("s:{order.sku}:{order.shop.id}:{n}:{{x}}", context) == "s:a/7:3:1.5:{x}"
    assert list(template_fields("s:{order.sku}:{n}")) == ["order.sku", "n"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{skv}",
            'takes "skv" from the context, which does not have it; did you mean "sku"? (it has: sku, flag, list)',
        ),
        ("{sku.shop}", 'takes "sku.shop" from the context, which does not have it'),
        ("{flag}", "where it is a bool; expected a text or a number"),
        ("{list}", "where it is a list"),
    ],
)
def test_a_key_that_the_context_cannot_fill_says_what_is_missing(template: str, said: str) -> None:
    with pytest.raises(WorkflowError) as refused:
        filled_template(template, {"sku": "7", "flag": True, "list": []})

    assert said in str(refused.value)


@pytest.mark.parametrize("key", ["", "  ", "a\nb", "x" * 513, 7, None])
def test_what_cannot_be_a_key_is_refused(key: Any) -> None:
    with pytest.raises(WorkflowError, match="cannot be a key; expected 1 to 512 printable characters"):
        checked_key(key)
