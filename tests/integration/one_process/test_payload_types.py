"""Everyday values on their way through a run: kept as plain JSON, read back where somebody says what they are."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import Celery
from pydantic import BaseModel

from multiagents import Orchestrator, Step, WorkflowBuilder, celery_task, current_step, worker

AT = dt.datetime(2026, 3, 29, 2, 30, tzinfo=dt.UTC)

#: what a worker returns, and the text that it is kept as
VALUES: dict[str, tuple[Any, Any]] = {
    "decimal": (Decimal("12.50"), "12.50"),
    "uuid": (UUID(int=9), "00000000-0000-0000-0000-000000000009"),
    "datetime": (AT, "2026-03-29T02:30:00+00:00"),
    "date": (dt.date(2026, 1, 1), "2026-01-01"),
    "bytes": (b"\xff\x00abc", "/wBhYmM="),
    "set": ({3, 1, 2}, [1, 2, 3]),
}

seen: list[Any] = []


class Bill(BaseModel):
    amount: Decimal
    at: dt.datetime


@worker("types.give")
def give(kind):  # type: ignore[no-untyped-def]
    return {"value": VALUES[kind][0]}


@worker("types.see")
def see(value):  # type: ignore[no-untyped-def]
    seen.append(value)


@worker("types.see_decimal")
def see_decimal(value: Decimal) -> None:
    seen.append(value)


@worker("types.bill")
def bill(total: Decimal) -> Bill:
    return Bill(amount=total * 2, at=AT)


@worker("types.see_bill")
def see_bill(bill: Bill) -> None:
    seen.append(bill)


@worker("types.see_item")
def see_item(sku, position, of):  # type: ignore[no-untyped-def]
    seen.append((sku, position, of))


@worker("types.unbill")
def unbill(amount: Decimal, total: Decimal) -> None:
    seen.append(("undone", amount, total))


@worker("types.refuse")
def refuse(context):  # type: ignore[no-untyped-def]
    from multiagents import TerminalError

    raise TerminalError("no")


@pytest.fixture
def app(orchestrator: Orchestrator) -> Celery:
    return orchestrator.app


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


def builder() -> WorkflowBuilder:
    return WorkflowBuilder(f"types-{uuid4().hex[:8]}")


@pytest.mark.parametrize("kind", VALUES)
def test_what_celerys_json_carries_is_a_result_and_an_input(orchestrator: Orchestrator, kind: str) -> None:
    value, kept = VALUES[kind]

    run = orchestrator.start(
        builder().add_step("give", give).add_step("see", see).build(), {"kind": kind, "own": value}
    )

    assert run.result() == {"kind": kind, "own": kept, "value": kept}
    assert seen == [kept]


@pytest.mark.parametrize("kind", VALUES)
def test_a_celery_task_that_is_there_returns_what_it_always_has(
    orchestrator: Orchestrator, app: Celery, kind: str
) -> None:
    @app.task(name=f"types.charge.{kind}")
    def charge(kind):  # type: ignore[no-untyped-def]
        return {"value": VALUES[kind][0]}

    run = orchestrator.start(builder().add_step("charge", celery_task(charge)).build(), {"kind": kind})

    assert run.result()["value"] == VALUES[kind][1]


def test_an_annotation_reads_it_back(orchestrator: Orchestrator) -> None:
    flow = builder().add_step("give", give).add_step("see", see_decimal).build()

    assert orchestrator.start(flow, {"kind": "decimal"}).status == "completed"
    assert seen == [Decimal("12.50")]


def test_a_model_that_was_returned_is_read_as_a_model_and_undone_by_its_fields(orchestrator: Orchestrator) -> None:
    flow = (
        builder()
        .add_step("bill", bill, compensation=unbill)
        .add_step("see", see_bill)
        .add_step("refuse", refuse)
        .build()
    )

    assert orchestrator.start(flow, {"total": Decimal("1.25")}).status == "compensated"
    assert seen == [Bill(amount=Decimal("2.50"), at=AT), ("undone", Decimal("2.50"), Decimal("1.25"))]


@pytest.mark.parametrize("inputs", [None, {"amount": "total"}], ids=["context", "inputs"])
def test_an_annotated_celery_task_is_given_what_it_says(
    orchestrator: Orchestrator, app: Celery, inputs: dict[str, str] | None
) -> None:
    @app.task(name=f"types.pay.{inputs is None}")
    def pay(amount: Decimal, at: dt.datetime = AT, note="none") -> None:  # type: ignore[no-untyped-def]
        seen.append((amount, at, note))

    flow = builder().add_step("pay", celery_task(pay), inputs=inputs).build()

    assert orchestrator.start(flow, {"total": Decimal("2.5"), "amount": "2.5"}).status == "completed"
    assert seen == [(Decimal("2.5"), AT, "none")]


@pytest.mark.parametrize("is_task", [False, True], ids=["worker", "celery_task"])
@pytest.mark.parametrize(
    "inputs",
    [
        {"sku": "item.sku", "position": "index", "of": "order.id"},
        lambda ctx: {"sku": ctx["item"]["sku"], "position": ctx["index"], "of": ctx["order"]["id"]},
    ],
    ids=["paths", "function"],
)
def test_inputs_of_a_maps_item_see_the_item_and_its_index(
    orchestrator: Orchestrator, app: Celery, inputs: Any, is_task: bool
) -> None:
    name = f"types.pick.{uuid4().hex[:8]}"

    @app.task(name=name)
    def pick(sku, position, of):  # type: ignore[no-untyped-def]
        seen.append((sku, position, of))

    item = Step("pick", celery_task(pick) if is_task else see_item, inputs=inputs)
    flow = builder().add_map("pick", item, over="order.lines").build()

    run = orchestrator.start(flow, {"order": {"id": 7, "lines": [{"sku": "a"}, {"sku": "b"}]}})

    assert run.status == "completed"
    assert sorted(seen) == [("a", 0, 7), ("b", 1, 7)]


def test_a_fork_takes_over_what_inputs_gave_each_item(orchestrator: Orchestrator) -> None:
    item = Step("pick", see_item, inputs={"sku": "item.sku", "position": "index", "of": "order.id"})
    flow = builder().add_map("pick", item, over="order.lines").add_step("see", see).build()
    run = orchestrator.start(flow, {"order": {"id": 7, "lines": [{"sku": "a"}]}, "value": 1})

    fork = run.fork("see", {"value": 2})

    assert fork.status == "completed"
    assert orchestrator.store.payloads(fork.transaction_id).inputs["pick[0]"] == {
        "item": {"sku": "a"},
        "index": 0,
        "sku": "a",
        "position": 0,
    }


def test_a_parameter_that_the_context_lacks_is_named_with_what_it_has(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(builder().add_step("see", see).build(), {"total": 5})

    assert run.status == "failed"
    assert "value: the context has no such key (keys: total)" in run.describe().error.message


@pytest.mark.parametrize("items", [1, 2, 3])
@pytest.mark.parametrize("returned", [None, {}, [], {"a": 1}], ids=["none", "empty", "list", "dict"])
def test_what_a_worker_returns_is_its_result_alike_in_steps_and_in_maps_of_one_and_of_many(
    orchestrator: Orchestrator, returned: Any, items: int
) -> None:
    @worker(f"types.return.{uuid4().hex[:8]}")
    def give_back(context: dict[str, Any]) -> Any:
        return returned

    @worker(f"types.read.{uuid4().hex[:8]}")
    def read(context: dict[str, Any]) -> Any:
        return dict(current_step().results)

    flow = builder().add_step("one", give_back).add_map("each", give_back, over="items").add_step("read", read).build()

    described = orchestrator.start(flow, {"items": list(range(items))}).describe()

    each = {f"each[{index}]": returned for index in range(items)}
    expected = {"one": returned, **each, "each": [returned] * items}
    assert described.steps["read"].result == expected
    assert {name: described.steps[name].result for name in expected} == expected
