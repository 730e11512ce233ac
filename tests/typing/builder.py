"""`WorkflowBuilder`: what its methods, which are made of the elements, take; all but ``build`` return the builder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Literal, Protocol, assert_type

from multiagents import (
    Approval,
    Child,
    Choice,
    Definition,
    Limit,
    Lock,
    Loop,
    Map,
    Parallel,
    RetryPolicy,
    Savepoint,
    Sleep,
    Step,
    Wait,
    WorkflowBuilder,
    worker,
)


@worker
def reserve_stock(context: dict[str, Any]) -> dict[str, Any]:
    return context


def paid(context: dict[str, Any]) -> bool:
    return bool(context["paid"])


def kind(context: dict[str, Any]) -> str:
    return str(context["kind"])


OTHER = WorkflowBuilder("other").add_step("only").build()


def what_each_takes() -> None:
    built = (
        WorkflowBuilder(
            "order",
            "2",
            deadline=timedelta(hours=1),
            retention=86_400.0,
            strict=True,
            compensate_in=["ship", "reserve"],
            on_end="tell",
            model=["gemini/gemini-3.8-flash", {"model": "openai/gpt-5", "temperature": 0.2}],
        )
        .add_step("charge")
        .add_step(
            "reserve",
            reserve_stock,
            compensation="release_stock",
            after=[],
            when=lambda context: context["pieces"] > 0,
            inputs={"pieces": "order.pieces"},
            retry=RetryPolicy(max_attempts=3),
            undo_retry=RetryPolicy(max_attempts=9),
            timeout=30,
            schedule_to_start=60.0,
            schedule_to_close=120,
            heartbeat_timeout=5,
            cancel_safe=True,
            resolve_with="find_reservation",
            on_unknown="resolve",
            compensate_on_failure=True,
            local=False,
            queue="stock",
            priority=3,
            limit=Limit("stock", concurrency=10),
            summary="takes the pieces out of the warehouse",
        )
        .add_step("pay", pivot=True, reread="look_again", external=False)
        .add_step("log", no_compensation="a line in a log", inputs=lambda context: {"line": context["line"]})
        .add_parallel("risk", ["check_fraud", Step("credit"), [Step("limit"), reserve_stock]], "cancel", after="pay")
        .add_choice("route", kind, {"letter": "by_post", "parcel": [Step("pack"), "by_van"]}, "letter", when=paid)
        .add_loop("poll", ["ask", "look"], paid, 5, "fail", after=["route"])
        .add_wait("paid", "payment", dict[str, int], 86_400, "continue", after="poll", when=paid, summary="the bank")
        .add_wait("arrived", signal="arrival", schema=None, timeout=0.5, on_timeout="fail")
        .add_approval(
            "release", 3_600, "continue", signal="ok", schema=None, after="arrived", when=paid, summary="a person"
        )
        .add_sleep("a_day", timedelta(days=1), after="release", when=paid, summary="so that it may be taken back")
        .add_sleep("as_long_as_it_says", lambda context: context["seconds"])
        .add_savepoint("packed", 2, after="a_day", summary="what is packed stays packed")
        .add_lock(
            "alone",
            "stock:{sku}",
            lease=timedelta(minutes=10),
            timeout=60,
            on_timeout="continue",
            after="packed",
            when=paid,
        )
        .add_lock("alone_too", lambda context: f"customer:{context['customer']}", summary="one order at a time")
        .add_child("invoice", OTHER, {"total": "total"}, "refund", False, "continue", after="alone", when=paid)
        .add_child("letter", OTHER, detached=True, no_compensation="it is only a letter", undo_retry=RetryPolicy())
        .add_map("resize", reserve_stock, "pictures", 4, "remove", True, after="invoice", when=paid)
        .add_map(
            "print",
            worker_or_workflow=OTHER,
            over=lambda context: context["pages"],
            compensate_each=False,
            summary="page by page",
        )
        .build(register=False)
    )
    assert_type(built, Definition)


class AddWait(Protocol):
    """The whole signature of one of them."""

    def __call__(
        self,
        name: str,
        signal: str | None = None,
        schema: Any = None,
        timeout: float | timedelta | None = None,
        on_timeout: Literal["fail", "continue"] = "fail",
        *,
        after: str | Sequence[str] | None = None,
        when: Callable[[dict[str, Any]], bool] | None = None,
        summary: str | None = None,
    ) -> WorkflowBuilder: ...


class OwnBuilder(WorkflowBuilder):
    pass


def what_each_returns(builder: WorkflowBuilder, own: OwnBuilder) -> None:
    add_wait: AddWait = builder.add_wait
    assert_type(add_wait("a"), WorkflowBuilder)
    assert_type(own.add_step("a").add_sleep("b", 1), OwnBuilder)
    assert_type(builder.add_step("a"), WorkflowBuilder)
    assert_type(builder.add_parallel("a", []), WorkflowBuilder)
    assert_type(builder.add_choice("a", kind, {}), WorkflowBuilder)
    assert_type(builder.add_loop("a", "b", paid, 2), WorkflowBuilder)
    assert_type(builder.add_wait("a"), WorkflowBuilder)
    assert_type(builder.add_approval("a"), WorkflowBuilder)
    assert_type(builder.add_sleep("a", 1), WorkflowBuilder)
    assert_type(builder.add_savepoint("a"), WorkflowBuilder)
    assert_type(builder.add_lock("a", "k"), WorkflowBuilder)
    assert_type(builder.add_child("a", OTHER), WorkflowBuilder)
    assert_type(builder.add_map("a"), WorkflowBuilder)
    assert_type(builder.build(), Definition)


def an_element_for_each() -> list[object]:
    """What may stand in a branch."""
    return [
        Step("a", reserve_stock, compensation="b", timeout=3),
        Parallel("a", ["b"], "cancel", after="c"),
        Choice("a", kind, {"b": []}, "b", when=paid),
        Loop("a", ["b"], paid, 3, "fail"),
        Wait("a", "signal", timeout=timedelta(days=3), on_timeout="continue"),
        Approval("a", timedelta(days=3), "continue", signal="signal"),
        Sleep("a", timedelta(minutes=3)),
        Sleep("a", lambda context: timedelta(days=context["days"])),
        Savepoint("a", 2),
        Lock("a", "k", lease=3),
        Child("a", OTHER, detached=True),
        Map("a", "b", "items", 4),
    ]


def what_is_refused(builder: WorkflowBuilder) -> None:
    # What is missing.
    builder.add_step()  # type: ignore[call-arg]
    builder.add_parallel("a")  # type: ignore[call-arg]
    builder.add_choice("a", kind)  # type: ignore[call-arg]
    builder.add_loop("a", "b", paid)  # type: ignore[call-arg]
    builder.add_wait()  # type: ignore[call-arg]
    builder.add_sleep("a")  # type: ignore[call-arg]
    builder.add_lock("a")  # type: ignore[call-arg]
    builder.add_child("a")  # type: ignore[call-arg]

    # What there is not.
    builder.add_step("a", tiemout=3)  # type: ignore[call-arg]
    builder.add_parallel("a", [], when=paid)  # type: ignore[call-arg]
    builder.add_choice("a", kind, {}, timeout=3)  # type: ignore[call-arg]
    builder.add_loop("a", "b", paid, 3, when=paid)  # type: ignore[call-arg]
    builder.add_wait("a", compensation="b")  # type: ignore[call-arg]
    builder.add_approval("a", key="b")  # type: ignore[call-arg]
    builder.add_sleep("a", 3, timeout=3)  # type: ignore[call-arg]
    builder.add_savepoint("a", when=paid)  # type: ignore[call-arg]
    builder.add_lock("a", "k", ttl=3)  # type: ignore[call-arg]
    builder.add_child("a", OTHER, timeout=3)  # type: ignore[call-arg]
    builder.add_map("a", timeout=3)  # type: ignore[call-arg]
    builder.build().add_step("a")  # type: ignore[attr-defined]

    # What is of another kind.
    builder.add_step(7)  # type: ignore[arg-type]
    builder.add_step("a", timeout="30 s")  # type: ignore[arg-type]
    builder.add_step("a", retry=3)  # type: ignore[arg-type]
    builder.add_step("a", limit=10)  # type: ignore[arg-type]
    builder.add_step("a", after=7)  # type: ignore[arg-type]
    builder.add_step("a", when=True)  # type: ignore[arg-type]
    builder.add_step("a", "b", "c")  # type: ignore[call-arg]
    builder.add_step("a", inputs="total")  # type: ignore[arg-type]
    builder.add_parallel("a", 7)  # type: ignore[arg-type]
    builder.add_choice("a", "kind", {})  # type: ignore[arg-type]
    builder.add_choice("a", kind, {}, 7)  # type: ignore[arg-type]
    builder.add_loop("a", "b", "until", 3)  # type: ignore[arg-type]
    builder.add_loop("a", "b", paid, "3")  # type: ignore[arg-type]
    builder.add_wait("a", 7)  # type: ignore[arg-type]
    builder.add_wait("a", timeout="a day")  # type: ignore[arg-type]
    builder.add_approval("a", "a day")  # type: ignore[arg-type]
    builder.add_sleep("a", "a day")  # type: ignore[arg-type]
    builder.add_savepoint("a", "twice")  # type: ignore[arg-type]
    builder.add_lock("a", 7)  # type: ignore[arg-type]
    builder.add_lock("a", "k", lease="a day")  # type: ignore[arg-type]
    builder.add_child("a", OTHER, 7)  # type: ignore[arg-type]
    builder.add_map("a", "b", 7)  # type: ignore[arg-type]
    builder.add_map("a", max_concurrency="4")  # type: ignore[arg-type]

    # Words that mean nothing there.
    builder.add_step("a", on_unknown="parked")  # type: ignore[arg-type]
    builder.add_parallel("a", [], on_failure="continue")  # type: ignore[arg-type]
    builder.add_loop("a", "b", paid, 3, on_exhausted="stop")  # type: ignore[arg-type]
    builder.add_wait("a", on_timeout="reject")  # type: ignore[arg-type]
    builder.add_approval("a", on_timeout="fail")  # type: ignore[arg-type]
    builder.add_lock("a", "k", on_timeout="reject")  # type: ignore[arg-type]
    builder.add_child("a", OTHER, on_failure="wait")  # type: ignore[arg-type]
