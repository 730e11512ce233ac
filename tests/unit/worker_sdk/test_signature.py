"""Arguments from the context and results back into it."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field

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


def takes_anything(context):  # type: ignore[no-untyped-def]
    return context


def takes_by_name(order_id):  # type: ignore[no-untyped-def]
    return order_id


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


def takes_rest(order_id: str, **rest: Any) -> Any:
    return order_id, rest


def takes_only_rest(**context: Any) -> Any:
    return context


def takes_two_mappings(order: dict[str, Any], lines: dict[str, Any]) -> Any:
    return order, lines


def takes_typed_dict(parcel: Parcel) -> Any:
    return parcel


@pytest.mark.parametrize(
    ("fn", "context", "got"),
    [
        (takes_scalar, {"order_id": "A-1", "total": 3}, "A-1"),
        (takes_both, {"order_id": "A-1"}, ({"order_id": "A-1"}, "A-1")),
        (takes_bare_names, {"order_id": "A-1", "total": 3, "x": 0}, ("A-1", 3)),
        (takes_by_name, {"order_id": "A-1", "total": 3}, "A-1"),
        (takes_by_name, "A-1", "A-1"),
        (lambda total: total, {"order_id": "A-1", "total": 3}, 3),
        (partial(takes_rest, other=7), {"order_id": "A-1", "total": 3}, ("A-1", {"other": 7, "total": 3})),
        (takes_rest, {"order_id": "A-1", "total": 3}, ("A-1", {"total": 3})),
        (takes_only_rest, {"order_id": "A-1", "total": 3}, {"order_id": "A-1", "total": 3}),
        (lambda c: c, {"total": 3}, {"total": 3}),
        (lambda c: c, {"c": 3}, 3),
        (lambda _context: _context, {"total": 3}, {"total": 3}),
        (len, {"order_id": "A-1", "total": 3}, 2),
        (takes_two_mappings, {"order": {"id": 1}, "lines": {"a": 2}}, ({"id": 1}, {"a": 2})),
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
        (takes_by_name, {"total": 3}, "order_id: the context has no such key .*; a parameter called context gets all"),
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
        (returns_maybe, None, None),
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


class Colour(Enum):
    RED = "red"


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, ser_json_bytes="base64", val_json_bytes="base64")
    at: datetime
    total: Decimal
    blob: bytes = b"\xff\x00"


TYPED: list[tuple[Any, Any]] = [
    (Decimal, Decimal("1.10")),
    (UUID, UUID(int=5)),
    (datetime, datetime.fromisoformat("2026-03-29T02:30:00+00:00")),
    (date, date(2026, 1, 1)),
    (time, time(12, 30)),
    (timedelta, timedelta(days=1, seconds=2)),
    (bytes, b"\xff\x00abc"),
    (list[bytes], [b"\xff", b"abcd"]),
    (bytes | None, b"abcd"),
    (set[int], {10, 9}),
    (frozenset[str], frozenset({"a", "b"})),
    (tuple[int, str], (1, "a")),
    (dict[str, Decimal], {"a": Decimal("0.1")}),
    (dict[int, date], {1: date(2026, 1, 1)}),
    (Colour, Colour.RED),
    (Path, Path("/a")),
    (Address, Address("Rome")),
    (Order, Order(order_id="A-1", total=2.5)),
    (Strict, Strict(at=datetime.fromisoformat("2026-03-29T02:30:00+00:00"), total=Decimal("1.1"))),
]

UNTYPED = [one for one in TYPED if one[0] != dict[int, date]]


@pytest.mark.parametrize(("annotation", "value"), TYPED, ids=range(len(TYPED)))
def test_what_an_annotated_result_is_kept_as_is_read_back_by_an_annotated_parameter(
    annotation: Any, value: Any
) -> None:
    def gives() -> Any: ...

    def takes(one: Any, other: int) -> Any:
        return one

    gives.__annotations__["return"] = takes.__annotations__["one"] = annotation

    kept = recorded(gives, value)

    assert json.loads(json.dumps(kept)) == kept
    assert called(takes, {"one": kept, "other": 1}) == value


@pytest.mark.parametrize(("annotation", "value"), UNTYPED, ids=range(len(UNTYPED)))
def test_so_is_what_a_result_without_annotation_is_kept_as(annotation: Any, value: Any) -> None:
    def takes(one: Any, other: int) -> Any:
        return one

    takes.__annotations__["one"] = annotation

    kept = recorded(takes_anything, {"one": value, "other": 1})

    assert called(takes, kept) == value


def test_sets_are_kept_in_order_wherever_they_are_in_a_typed_result() -> None:
    class Tags(BaseModel):
        tags: set[str]

    def gives() -> list[Tags]: ...  # type: ignore[empty-body]

    many = {f"tag-{number}" for number in range(50)}

    assert recorded(gives, [Tags(tags=many)]) == [{"tags": sorted(many)}]
    assert recorded(takes_anything, {"a": Tags(tags=many)}) == {"a": {"tags": sorted(many)}}


def test_what_pydantic_says_of_a_refused_result_is_nowhere_in_its_error() -> None:
    """Its messages have the values, which may be secrets."""

    class Card(BaseModel):
        card_number: int

    def gives() -> Any: ...

    gives.__annotations__["return"] = Card

    with pytest.raises(ResultError) as caught:
        recorded(gives, {"card_number": "-".join(["4111", "SEC" + "RET"])})

    shown = "".join(traceback.format_exception(caught.value))
    assert "card_number: Input should be a valid integer" in shown
    assert "4111-SECRET" not in shown
