"""What user code in a definition answers is looked at before anything is done; what cannot be used fails its step."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from multiagents import Limit, Orchestrator, ResultEvent, Run, Step, TerminalError, WorkflowBuilder
from multiagents.names import Direction
from multiagents.state_store.records import Delivery
from multiagents.worker_sdk.attempt.rate_limits import take
from multiagents.workflow.definition import Definition

Answer = Callable[[dict[str, Any]], Any]


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


async def later() -> bool:
    return True


class Unreadable:
    """Neither true nor false, equal to nothing, and without a text."""

    def __bool__(self) -> bool:
        raise ValueError("neither true nor false")

    def __repr__(self) -> str:
        raise ValueError("no text")


#: what cannot be written as JSON, and what is said of it
UNWRITABLE: dict[str, tuple[Any, str]] = {
    "depth": (deep(5000), "nested more than 100 levels"),
    "nan": (float("nan"), "is nan"),
    "1e999": (1e999, "is inf"),
    "surrogate": ("caf\udce9", "half a surrogate pair"),
    "digits": (10**5000, "4300 digits"),
    "key": ({None: 1}, "a key that is NoneType"),
    "collision": ({1: "a", "1": "b"}, "a key that is int"),
    "type": (object(), "is object"),
    "unreadable": (Unreadable(), "Unreadable"),
    "generator": ((x for x in ()), "is generator"),
    "size": ("x" * 5000, "more than the 4,000 of multiagents_max_payload_bytes"),
}
NO_LIST = {"none": None, "text": "abc", "set": {1}, "dict": {"a": 1}, "generator": (x for x in ()), "number": 10**5000}
NO_TIME = {
    "nan": float("nan"),
    "1e999": 1e999,
    "digits": 10**5000,
    "negative": -1,
    "beyond the calendar": 1e12,
    "timedelta": timedelta.max,
    "text": "5",
    "true": True,
    "none": None,
    "depth": deep(5000),
    "unreadable": Unreadable(),
}
NO_KEY = {
    "surrogate": "caf\udce9",
    "empty": "",
    "lines": "a\nb",
    "size": "x" * 5000,
    "number": 7,
    "digits": 10**5000,
    "none": None,
    "depth": deep(5000),
    "unreadable": Unreadable(),
}
NO_LABEL = {
    "other": "bitcoin",
    "size": "x" * 100_000,
    "surrogate": "caf\udce9",
    "depth": deep(5000),
    "unreadable": Unreadable(),
}
CHILD = WorkflowBuilder("answered-child").add_step("in", "in").build(register=False)


def place(where: str, answer: Answer, *, behind: bool = True) -> tuple[Definition, str]:
    """A workflow with user code at a place, behind a first step or at its head; and the name of its step."""
    flow = WorkflowBuilder(f"answered-{uuid4().hex}")
    if behind:
        flow.add_step("first", external=True, timeout=600)
    match where:
        case "when":
            flow.add_step("a", "a", when=answer)
        case "inputs":
            flow.add_step("a", "a", inputs=answer)
        case "inputs of a child":
            flow.add_child("a", CHILD, inputs=answer)
        case "inputs of items":
            flow.add_map("a", Step("a", "a", inputs=answer), over="items")
        case "over":
            flow.add_map("a", "a", over=answer)
        case "seconds":
            flow.add_sleep("a", answer)
        case "key":
            flow.add_lock("a", answer)
        case "chooser":
            flow.add_choice("a", answer, {"card": Step("b", "b")})
        case "until":
            flow.add_loop("a", Step("b", external=True, timeout=600), answer, 3)
    return flow.build(), {"until": "a.until#1"}.get(where, "a")


TABLE = [
    *((where, value, says) for where in ("inputs", "inputs of a child") for value, says in UNWRITABLE.values()),
    *(("inputs of items", {"x": [value]}, says) for value, says in UNWRITABLE.values()),
    *(("over", [value], says) for value, says in UNWRITABLE.values()),
    *(("over", value, "a map runs over a list") for value in NO_LIST.values()),
    ("over", [0] * 100_001, "100,000"),
    ("inputs of a child", [1], "the input of a run is a dict"),
    *(("seconds", value, "no time to sleep") for value in NO_TIME.values()),
    *(("key", value, "cannot be a key; expected 1 to") for value in NO_KEY.values()),
    *(("chooser", value, "no branch of that name") for value in NO_LABEL.values()),
    *((where, Unreadable(), "neither true nor false") for where in ("when", "until")),
]
IDS = [f"{where} {kind}" for where, kinds in (
    ("inputs", UNWRITABLE), ("child", UNWRITABLE), ("items", UNWRITABLE), ("over", UNWRITABLE), ("over", NO_LIST),
    ("over", ["many"]), ("child", ["list"]), ("seconds", NO_TIME), ("key", NO_KEY), ("chooser", NO_LABEL),
    ("when", ["unreadable"]), ("until", ["unreadable"])) for kind in kinds]  # fmt: skip


@pytest.fixture
def tight(orchestrator: Orchestrator) -> Orchestrator:
    """An orchestrator that takes no more than 4,000 bytes at once."""
    object.__setattr__(orchestrator.settings, "max_payload_bytes", 4_000)
    return orchestrator


def goes_on(orchestrator: Orchestrator, flow: Definition, given: dict[str, Any], result: Any = None) -> Run:
    """Start a run, and have somebody elsewhere do its first step, or its first two."""
    run = orchestrator.start(flow, given)
    for step in ("first", "b#1"):
        if step in orchestrator.store.load(run.transaction_id).in_flight:
            attempt = f"{run.transaction_id}/{step}/do/1"
            event = ResultEvent(transaction_id=run.transaction_id, correlation_id=attempt, payload=result)
            orchestrator.engine.receive(event)
    orchestrator.engine.advance(run.transaction_id)
    return run


@pytest.mark.parametrize(("where", "value", "says"), TABLE, ids=IDS)
def test_S27_an_answer_that_cannot_be_used_fails_its_step_by_its_place(
    tight: Orchestrator, where: str, value: Any, says: str
) -> None:
    """Nothing is done, nothing is written of it, and the run does not hang."""
    flow, step = place(where, lambda context: value)

    run = goes_on(tight, flow, {"items": [1, 2]})

    seen = run.describe()
    assert seen.status == "failed"
    assert seen.steps["first"].status == "succeeded"
    assert seen.steps[step].status == "failed"
    error = seen.steps[step].error
    assert error is not None
    parameter = where.partition(" ")[0]
    assert error.message.startswith(f"{parameter}= of step {step!r}"), error.message
    assert says in error.message
    assert len(error.message) < 5000
    assert where in ("when", "until") or error.type == "multiagents.exceptions.WorkflowError"
    assert tight.store.visibility.unattended() == []
    assert not tight.store.load(run.transaction_id).in_flight
    assert set(seen.steps) - {"first", step} <= {"b", "b#1", "b#2", "b#3", "a#1", "a#2", "a#3", "a.until#2"}


@pytest.mark.parametrize(
    "where", ["when", "inputs", "inputs of a child", "inputs of items", "over", "seconds", "key", "chooser", "until"]
)
def test_code_that_answers_a_coroutine_has_answered_nothing(orchestrator: Orchestrator, where: str) -> None:
    flow, step = place(where, lambda context: later())

    run = goes_on(orchestrator, flow, {"items": [1, 2]})

    message = run.describe().steps[step].error.message
    assert "its answer is a coroutine: expected an ordinary function" in message


@pytest.mark.parametrize(
    ("where", "value"),
    [("when", Unreadable()), ("inputs", float("nan")), ("seconds", 1e999), ("key", "a\nb"), ("chooser", "bitcoin")],
)
def test_whoever_starts_a_run_whose_first_step_answers_so_gets_a_run_that_has_failed(
    orchestrator: Orchestrator, where: str, value: Any
) -> None:
    flow, step = place(where, lambda context: value, behind=False)

    run = orchestrator.start(flow, {})

    assert (run.status, run.describe().steps[step].status) == ("failed", "failed")


@pytest.mark.parametrize("where", ["when", "inputs", "inputs of items", "over", "seconds", "key", "chooser", "until"])
def test_what_code_changes_in_what_it_was_given_changes_nothing(orchestrator: Orchestrator, where: str) -> None:
    """It looks at the run's data, and what it writes there is neither stored nor seen by others."""
    answers = {"inputs": {}, "inputs of items": {}, "over": [1], "seconds": 5, "key": "k", "chooser": "card"}

    def spoil(context: dict[str, Any]) -> Any:
        context["kept"]["lines"].append(object())
        context["kept"]["total"] = float("nan")
        if "item" in context:
            context["item"].append(object())
        return answers.get(where, True)

    flow, _ = place(where, spoil)

    run = goes_on(orchestrator, flow, {"items": [[1], [2]], "kept": {"lines": [1]}}, {"kept": {"lines": [2]}})

    seen = run.describe()
    assert seen.status in ("running", "completed"), seen.error
    assert seen.context["kept"] == {"lines": [2]}
    assert seen.context["items"] == [[1], [2]]
    if where == "inputs of items":
        assert [orchestrator.store.payloads(run.transaction_id).inputs[f"a[{index}]"]["item"] for index in (0, 1)] == [
            [1],
            [2],
        ]


LIMITED = WorkflowBuilder("answered-limited").add_step("pay", "pay").build(register=False)


@pytest.mark.parametrize(
    "customer",
    [None, True, {}, ["a"], "a\nb", "x" * 5000, 10**4000],
    ids=["none", "true", "dict", "list", "lines", "size", "digits"],
)
def test_a_context_that_makes_no_key_of_a_limit_fails_the_step_and_nothing_is_begun(
    orchestrator: Orchestrator, customer: Any
) -> None:
    run = orchestrator.start(LIMITED, {"customer": customer})
    state = orchestrator.store.load(run.transaction_id).state
    attempt = state.correlation("pay", Direction.DO, 1)
    claim = orchestrator.store.claim(attempt, state.definition_hash, owner="w", worker="w", timeout=None)

    with pytest.raises(TerminalError, match="step 'pay' was not begun, for its limit is not known: "):
        take(orchestrator.store, Limit("bank:{customer}", concurrency=1), claim)

    assert orchestrator.store.load(run.transaction_id).in_flight["pay"].delivery is Delivery.CLAIMED
