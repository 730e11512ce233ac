"""Arguments from the context and results back into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import pytest
from pydantic import BaseModel, Field

from multiagents.exceptions import OutcomeUnknownError, TerminalError
from multiagents.worker_sdk import Worker
from multiagents.worker_sdk.signature import ArgumentsError, ResultError

if TYPE_CHECKING:
    from somewhere_else import Unknown


class Item(BaseModel):
    sku: str
    quantity: int


class Order(BaseModel):
    order_id: str
    total: float = 0
    items: list[Item] = []


class Receipt(BaseModel):
    charge_id: str
    amount: Decimal


@dataclass
class Address:
    city: str


class Parcel(TypedDict):
    weight: float


def called(fn: Callable[..., Any], context: Any) -> Any:
    positional, keywords = Worker("charge_card", fn).signature.arguments(context)
    return fn(*positional, **keywords)


def recorded(fn: Callable[..., Any], returned: Any) -> Any:
    return Worker("charge_card", fn).signature.result(returned, 1000)


def takes_anything(whatever):  # type: ignore[no-untyped-def]
    return whatever


def takes_a_dict(context: dict) -> dict:  # type: ignore[type-arg]
    return context


def takes_a_mapping(data: Mapping[str, Any]) -> Any:
    return data


def takes_what_comes(*args: Any, **kwargs: Any) -> Any:
    return args[0]


def takes_unknown(context: dict[str, Unknown]) -> Unknown:
    return context


@pytest.mark.parametrize(
    "fn", [takes_anything, takes_a_dict, takes_a_mapping, takes_what_comes, takes_unknown, lambda ctx: ctx]
)
def test_the_context_goes_as_it_is_to_a_function_that_asks_for_nothing_else(fn: Callable[..., Any]) -> None:
    context = {"total": 3}

    assert called(fn, context) is context


def takes_order(order: Order) -> Any:
    return order


@pytest.mark.parametrize(
    "context",
    [
        {"order_id": "A-1", "total": 3},
        {"order": {"order_id": "A-1", "total": 3}, "other": 1},
        {"order_id": "A-1", "total": 3, "order": "a field that is no order"},
    ],
)
def test_one_model_is_the_key_of_its_name_or_the_whole_context(context: dict[str, Any]) -> None:
    assert called(takes_order, context) == Order(order_id="A-1", total=3)


def takes_several(order: Order, note: str, count: int = 5, *, address: Address | None = None) -> Any:
    return order, note, count, address


def test_several_parameters_are_taken_by_name_and_defaults_stand_in() -> None:
    context = {"order": {"order_id": "A-1"}, "note": "gift", "address": {"city": "Bonn"}}

    assert called(takes_several, context) == (Order(order_id="A-1"), "gift", 5, Address("Bonn"))


def takes_scalar(order_id: str) -> Any:
    return order_id


def takes_both(context: dict[str, Any], order_id: Annotated[str, Field(min_length=2)]) -> Any:
    return context, order_id


def takes_bare_names(order_id, total):  # type: ignore[no-untyped-def]
    return order_id, total


def takes_nothing() -> str:
    return "nothing"


def takes_typed_dict(parcel: Parcel) -> Any:
    return parcel


@pytest.mark.parametrize(
    ("fn", "context", "got"),
    [
        (takes_scalar, {"order_id": "A-1", "total": 3}, "A-1"),
        (takes_both, {"order_id": "A-1"}, ({"order_id": "A-1"}, "A-1")),
        (takes_bare_names, {"order_id": "A-1", "total": 3, "x": 0}, ("A-1", 3)),
        (takes_scalar, "A-1", "A-1"),
        (takes_anything, [1, 2], [1, 2]),
        (takes_nothing, {"order_id": "A-1"}, "nothing"),
        (takes_typed_dict, {"weight": 2}, {"weight": 2}),
    ],
)
def test_each_parameter_gets_what_it_names(fn: Callable[..., Any], context: Any, got: Any) -> None:
    assert called(fn, context) == got


@pytest.mark.parametrize(
    ("fn", "context", "says"),
    [
        (takes_order, {"total": 3}, "order.order_id: Field required"),
        (
            takes_order,
            {"order_id": "A-1", "items": [{"sku": "x", "quantity": "many"}]},
            "order.items.0.quantity: Input",
        ),
        (takes_order, {"order_id": "A-1", "total": "dear"}, r"\(got str\)"),
        (takes_scalar, {"total": 3}, r"order_id: the context has no such key \(keys: total\)"),
        (takes_both, {"order_id": "A"}, "order_id: String should have at least 2 characters"),
        (takes_several, {}, "order: the context has no such key.*note: the context has no such key"),
    ],
)
def test_S1b_a_mismatch_of_arguments_names_the_field_and_is_definite(
    fn: Callable[..., Any], context: dict[str, Any], says: str
) -> None:
    with pytest.raises(ArgumentsError, match=says) as caught:
        called(fn, context)

    assert "was not run" in str(caught.value)
    assert isinstance(caught.value, TerminalError)


def takes_what_is_not_there(order: Unknown) -> None: ...


def test_an_annotation_that_cannot_be_checked_is_a_definite_failure() -> None:
    with pytest.raises(TerminalError, match='parameter "order" is annotated with Unknown'):
        called(takes_what_is_not_there, {"order": {}})


def returns_receipt() -> Receipt:
    raise NotImplementedError


def returns_maybe() -> Receipt | None:
    raise NotImplementedError


def returns_list() -> list[Receipt]:
    raise NotImplementedError


def returns_dict() -> dict[str, Any]:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("fn", "returned", "kept"),
    [
        (returns_receipt, Receipt(charge_id="c", amount=Decimal("1.5")), {"charge_id": "c", "amount": "1.5"}),
        (returns_receipt, {"charge_id": "c", "amount": 2}, {"charge_id": "c", "amount": "2"}),
        (returns_maybe, None, {}),
        (returns_list, [Receipt(charge_id="c", amount=Decimal(1))], [{"charge_id": "c", "amount": "1"}]),
        (
            returns_dict,
            {"receipt": Receipt(charge_id="c", amount=Decimal(1))},
            {"receipt": {"charge_id": "c", "amount": "1"}},
        ),
        (takes_anything, Receipt(charge_id="c", amount=Decimal(1)), {"charge_id": "c", "amount": "1"}),
        (takes_anything, "done", "done"),
    ],
)
def test_results_are_dumped_to_json(fn: Callable[..., Any], returned: Any, kept: Any) -> None:
    assert recorded(fn, returned) == kept


def test_S1b_a_result_that_is_not_what_the_annotation_says_is_an_unknown_outcome_that_names_the_field() -> None:
    with pytest.raises(ResultError, match="amount: Field required") as caught:
        recorded(returns_receipt, {"charge_id": "c"})

    assert isinstance(caught.value, OutcomeUnknownError)


def test_models_of_an_enclosing_function_are_found() -> None:
    from multiagents import worker

    class Local(BaseModel):
        x: int

    @worker("typed_local")
    def typed_local(local: Local) -> Local:
        return Local(x=local.x + 1)

    signature = typed_local.worker.signature
    [argument], _ = signature.arguments({"x": 1})

    assert signature.result(typed_local(argument), 1000) == {"x": 2}
