"""The methods of `WorkflowBuilder`, which are made of the elements, have their signatures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, assert_type

from multiagents import Child, Definition, Limit, RetryPolicy, Step, WorkflowBuilder


class AddWait(Protocol):
    def __call__(
        self,
        name: str,
        signal: str | None = None,
        schema: Any = None,
        timeout: float | None = None,
        on_timeout: Literal["fail", "continue"] = "fail",
        *,
        after: str | Sequence[str] | None = None,
        when: Callable[[dict[str, Any]], bool] | None = None,
        summary: str | None = None,
    ) -> WorkflowBuilder: ...


class Own(WorkflowBuilder):
    pass


order = WorkflowBuilder("order", version="1")
pay: Definition = WorkflowBuilder("pay").add_step("charge", compensation="refund").build()
add_wait: AddWait = order.add_wait

assert_type(order.add_step("reserve", "reserve_stock"), WorkflowBuilder)
assert_type(Own("order").add_step("reserve").add_sleep("night", 3600), Own)

# As users write them.
order.add_step(
    "charge",
    compensation="refund_card",
    after=["reserve"],
    when=lambda ctx: ctx["total"] > 0,
    inputs={"amount": "order.total"},
    retry=RetryPolicy(max_attempts=5),
    limit=Limit("bank", concurrency=10),
)
order.add_parallel("risk", [Step("fraud", "check_fraud"), ["credit", "limit"]], on_failure="cancel")
order.add_choice("route", lambda ctx: str(ctx["kind"]), {"invoice": "check_sums", "other": []}, default="other")
order.add_loop("poll", "ask", until=lambda ctx: ctx["done"], max_iterations=5, on_exhausted="fail")
order.add_map("resize", worker_or_workflow=Child("each", pay), over=lambda ctx: ctx["images"], max_concurrency=20)
order.add_child("payment", pay, detached=True, on_failure="continue")
order.add_approval("sign", 3600, "continue", signal="signed")
order.add_lock("stock", lambda ctx: f"stock:{ctx['sku']}", lease=60)
order.add_savepoint("packed", retries=2, after="reserve")

# As they must not.
order.add_step("charge", compensate="refund_card")  # type: ignore[call-arg]
order.add_step("charge", on_unknown="parked")  # type: ignore[arg-type]
order.add_step("charge", "charge_card", "refund_card")  # type: ignore[call-arg]
order.add_parallel("risk", ["fraud"], on_failure="cancle")  # type: ignore[arg-type]
order.add_choice("route", lambda ctx: str(ctx["kind"]))  # type: ignore[call-arg]
order.add_loop("poll", "ask", until="done", max_iterations=5)  # type: ignore[arg-type]
order.add_map("resize", every=3)  # type: ignore[call-arg]
order.add_child("payment")  # type: ignore[call-arg]
order.add_wait("paid", on_timeout="reject")  # type: ignore[arg-type]
order.add_sleep("night")  # type: ignore[call-arg]
order.add_lock("stock", 7)  # type: ignore[arg-type]
order.add_savepoint("packed", when=lambda ctx: True)  # type: ignore[call-arg]
Own("order").add_step("reserve").unknown()  # type: ignore[attr-defined]
