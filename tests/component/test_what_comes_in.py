"""What cannot be kept is refused where it comes in, by name and place, before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, field_serializer

from multiagents import Orchestrator, ResultEvent, Run, WorkflowBuilder, worker
from multiagents.events import event_from_json
from multiagents.exceptions import DecodeError, DefinitionError, MultiAgentsError, WorkerError, WorkflowError
from multiagents.workflow.definition import Limit

ORDER = (
    WorkflowBuilder("incoming-order")
    .add_wait("paid", "payment", timeout=600)
    .add_step("ship", "incoming.ship")
    .build(register=False)
)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


BAD = {
    "depth": (deep(5000), "nested more than 100 levels"),
    "nan": (float("nan"), "is nan"),
    "surrogate": ("caf\udce9", "half a surrogate pair"),
    "digits": (10**5000, "4300 digits"),
    "key": ({None: 1}, "NoneType"),
    "collision": ({1: "a", "1": "b"}, "a key that is int"),
    "type": (object(), "is object"),
    "size": ("x" * 2000, "more than the 1,500 of multiagents_max_payload_bytes"),
}


@pytest.fixture(params=BAD.values(), ids=BAD)
def bad(request: pytest.FixtureRequest) -> tuple[Any, str]:
    value, says = request.param
    return {"lines": [value]}, says


@pytest.fixture
def tight(orchestrator: Orchestrator) -> Orchestrator:
    """An orchestrator that takes no more than 1,500 bytes at once."""
    object.__setattr__(orchestrator.settings, "max_payload_bytes", 1_500)
    orchestrator.runtime.engine.interventions._max_bytes = 1_500
    return orchestrator


def refused(action: Callable[[], Any]) -> str:
    with pytest.raises(MultiAgentsError) as caught:
        action()
    return str(caught.value)


def test_of_an_input(tight: Orchestrator, bad: tuple[Any, str]) -> None:
    value, says = bad

    message = refused(lambda: tight.start(ORDER, value, transaction_id="order-1"))

    assert says in message
    assert message.startswith('the input that workflow "incoming-order" was started with')
    assert tight.count() == 0


def test_of_a_signal(tight: Orchestrator, bad: tuple[Any, str]) -> None:
    value, says = bad
    run = tight.start(ORDER, {})

    message = refused(lambda: run.signal("payment", value, key="webhook-7"))

    assert says in message
    assert message.startswith('signal "payment" of workflow "incoming-order" was not given: its data')
    assert run.signal("payment", {"total": 1}, key="webhook-7") == "received"


def test_of_what_a_person_supplies(tight: Orchestrator, bad: tuple[Any, str]) -> None:
    value, says = bad
    run = tight.start(ORDER, {})

    message = refused(lambda: run.supply("paid", value))

    assert says in message
    assert 'no result for step "paid": what was supplied' in message.replace("'", '"')


def test_of_the_input_of_a_fork(tight: Orchestrator, bad: tuple[Any, str]) -> None:
    value, says = bad
    run = tight.start(ORDER, {"x": 1})
    run.terminate()

    message = refused(lambda: run.fork("ship", value))

    assert says in message


@pytest.mark.parametrize("kind", [kind for kind in BAD if kind != "size"])
def test_of_the_input_of_a_schedule(orchestrator: Orchestrator, kind: str) -> None:
    """Its size is looked at when it ticks: the settings are not read yet when a schedule is made."""
    value, says = BAD[kind]

    message = refused(lambda: orchestrator.schedule("nightly", ORDER, 60, {"lines": [value]}))

    assert says in message
    assert message.startswith("the input of schedule 'nightly'")


class Read(BaseModel):
    """Its author's code reads what comes."""

    how: str

    @field_serializer("how")
    def _read(self, how: str) -> Any:
        if how == "raises":
            raise KeyError("nobody has thought of it")
        return {"depth": deep(100), "surrogate": "caf\udce9", "digits": 10**5000, "size": "x" * 2000}[how]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("raises", "KeyError"),
        ("depth", "nested more than 100 levels"),
        ("surrogate", "half a surrogate pair"),
        ("digits", "4300 digits"),
        ("size", "more than the 1,500 of multiagents_max_payload_bytes"),
    ],
)
def test_of_what_the_schema_of_a_wait_makes_of_a_signal(tight: Orchestrator, how: str, says: str) -> None:
    flow = WorkflowBuilder(f"incoming-{uuid4().hex}").add_wait("paid", schema=Read).build()
    run = tight.start(flow, {})

    message = refused(lambda: run.signal("paid", {"how": how}))
    attempt = f"{run.transaction_id}/paid/do/1"
    elsewhere = ResultEvent(transaction_id=run.transaction_id, correlation_id=attempt, payload={"how": how})

    assert says in message
    assert 'schema of step "paid"' in message
    tight.engine.receive(elsewhere)
    assert [says in letter.why for letter in tight.dead_letters(transaction_id=run.transaction_id).values()] == [True]
    assert run.describe().steps["paid"].status == "scheduled"


@pytest.mark.parametrize("said", ["caf\udce9", "x" * 5000, 7], ids=["surrogate", "size", "type"])
def test_of_what_people_say(orchestrator: Orchestrator, said: Any) -> None:
    run = orchestrator.start(ORDER, {})
    ways: list[Callable[..., Any]] = [
        run.cancel,
        run.pause,
        run.terminate,
        lambda **words: run.signal("payment", {}, **words),
        lambda **words: run.update_timer("paid", 5, **words),
        lambda **words: run.update_deadline(5, **words),
        lambda **words: run.set_attributes({"a": 1}, **words),
        run.delete,
    ]

    for way in ways:
        assert "reason=" in refused(partial(way, reason=said))
        assert "actor=" in refused(partial(way, actor=said))
    assert "key=" in refused(lambda: run.signal("payment", {}, key=said))
    assert run.status == "running"


@pytest.mark.parametrize("value", [10**400, float("inf"), "caf\udce9"], ids=["digits", "inf", "surrogate"])
def test_of_a_search_attribute(orchestrator: Orchestrator, value: Any) -> None:
    assert "attribute 'n'" in refused(lambda: orchestrator.start(ORDER, {}, attributes={"n": value}))


def test_the_last_moment_of_the_calendar_is_an_attribute_like_others(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(ORDER, {}, attributes={"until": datetime.max.replace(tzinfo=UTC)})

    assert run.describe().attributes["until"].year == 9999


NO_TIMES = {"long": 1e12, "digits": 10**400, "inf": float("inf"), "nan": float("nan")}


class TestTimesBeyondTheCalendar:
    @pytest.mark.parametrize(
        "seconds", [1e12, 10**400, float("inf"), float("nan")], ids=["long", "digits", "inf", "nan"]
    )
    def test_are_refused_where_they_are_written(self, seconds: float) -> None:
        builders: list[Callable[[], Any]] = [
            lambda: WorkflowBuilder("w", deadline=seconds).add_step("a").build(register=False),
            lambda: WorkflowBuilder("w", retention=seconds).add_step("a").build(register=False),
            lambda: WorkflowBuilder("w").add_sleep("a", seconds).build(register=False),
            lambda: WorkflowBuilder("w").add_wait("a", "s", timeout=seconds).build(register=False),
            lambda: WorkflowBuilder("w").add_approval("a", timeout=seconds).build(register=False),
            lambda: WorkflowBuilder("w").add_step("a", timeout=seconds).build(register=False),
            lambda: WorkflowBuilder("w").add_step("a", schedule_to_start=seconds).build(register=False),
            lambda: WorkflowBuilder("w").add_step("a", schedule_to_close=seconds).build(register=False),
            lambda: WorkflowBuilder("w").add_step("a", heartbeat_timeout=seconds).build(register=False),
            lambda: WorkflowBuilder("w").add_lock("a", "k", lease=seconds).build(register=False),
            lambda: Limit("bank", rate=1, per=seconds),
        ]

        for build in builders:
            with pytest.raises(DefinitionError):
                build()
        with pytest.raises(WorkerError):
            worker("incoming.slow", timeout=seconds)

    @pytest.mark.parametrize(
        "moved",
        [{"seconds": 1e12}, {"seconds": 10**400}, {"at": datetime.max.replace(tzinfo=UTC)}],
        ids=["seconds", "digits", "at"],
    )
    def test_are_no_time_to_move_a_timer_to(self, orchestrator: Orchestrator, moved: dict[str, Any]) -> None:
        run = orchestrator.start(ORDER, {})

        assert "100 years" in refused(lambda: run.update_timer("paid", **moved))
        assert "100 years" in refused(lambda: run.update_deadline(**moved))
        assert run.describe().status == "running"


def test_what_kombu_carries_is_kept_as_text(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(
        ORDER, {"total": Decimal("9.90"), "id": UUID(int=5), "at": datetime(2026, 1, 1, tzinfo=UTC), "blob": b"\xff"}
    )

    assert orchestrator.store.payloads(run.transaction_id).input == {
        "total": "9.90",
        "id": "00000000-0000-0000-0000-000000000005",
        "at": "2026-01-01T00:00:00+00:00",
        "blob": "/w==",
    }


def test_G3_equal_input_is_equal_whatever_the_order_of_its_keys(orchestrator: Orchestrator) -> None:
    """A webhook that comes again need not write its keys in the same order."""
    given = {"n": 1, "x": {"b": {"d": 1, "c": {3, 1, 2}}, "a": [Decimal("1.0")]}}
    turned = {"x": {"a": ["1.0"], "b": {"c": (1, 2, 3), "d": 1}}, "n": 1}
    run = orchestrator.start(ORDER, given, transaction_id="order-7")

    assert orchestrator.start(ORDER, turned, transaction_id="order-7") == run
    assert orchestrator.start(ORDER, given, idempotency_key="webhook") == orchestrator.start(
        ORDER, turned, idempotency_key="webhook"
    )
    with pytest.raises(WorkflowError, match="another"):
        orchestrator.start(ORDER, {**turned, "n": 2}, transaction_id="order-7")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"n": 1e999}', "payload.n is inf"),
        ("[" * 150 + "]" * 150, "nested more than 100 levels"),
        ('"\\ud800"', "surrogate|hex escape|unexpected end"),
    ],
    ids=["infinite", "deep", "surrogate"],
)
def test_of_an_event_from_outside(text: str, says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        event_from_json(f'{{"type": "result", "transaction_id": "order-1", "payload": {text}}}')


FOREIGN = (
    WorkflowBuilder("incoming-elsewhere")
    .add_step("charge", external=True, compensation="refund")
    .add_wait("paid")
    .build(register=False)
)


def published(orchestrator: Orchestrator, run: Run, step: str, payload: Any) -> None:
    attempt = f"{run.transaction_id}/{step}/do/1"
    orchestrator.engine.receive(ResultEvent(transaction_id=run.transaction_id, correlation_id=attempt, payload=payload))


def test_S1b_of_a_result_from_outside_it_is_an_unknown_outcome_at_once(
    tight: Orchestrator, bad: tuple[Any, str]
) -> None:
    value, says = bad
    run = tight.start(FOREIGN, {})

    published(tight, run, "charge", value)

    seen = run.describe()
    assert (seen.status, seen.steps["charge"].status) == ("compensating", "compensating")
    assert says in seen.error.message
    assert seen.error.message.startswith("the result of step 'charge' that was published")
    assert tight.store.payloads(run.transaction_id).results == {}


def test_of_a_result_from_outside_that_is_to_end_a_wait(tight: Orchestrator) -> None:
    value, says = BAD["size"]
    run = tight.start(FOREIGN, {})
    published(tight, run, "charge", {})

    published(tight, run, "paid", value)

    [letter] = tight.dead_letters().values()
    assert says in letter.why
    assert run.describe().steps["paid"].status == "scheduled"
