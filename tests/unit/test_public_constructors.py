"""What users make themselves refuses a wrong value by an error of ours: it names the field, the value and what fits."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from typing import Any

import pytest
from celery import Celery
from pydantic import BaseModel

import multiagents
from multiagents import (
    Approval,
    Budget,
    Child,
    Choice,
    CommandEvent,
    CompensationEvent,
    ErrorEvent,
    ErrorInfo,
    Limit,
    Lock,
    Loop,
    Map,
    MultiAgentsError,
    Orchestrator,
    Parallel,
    RedisEventBus,
    ResultEvent,
    RetryPolicy,
    Savepoint,
    Settings,
    Sleep,
    StatusEvent,
    Step,
    TerminalError,
    Wait,
    WorkerManager,
    WorkflowBuilder,
)

NO_MODULE: Any = object()


def built(element: Callable[[], Any]) -> Callable[[], Any]:
    """An element of a workflow may be looked at when it is built."""

    def build() -> Any:
        one = element()
        return WorkflowBuilder("wrong").add_parallel("p", [one, Step("other", "play")]).build(register=False)

    return build


def step(**options: Any) -> Callable[[], Any]:
    return built(lambda: Step("a", "play", **options))


def result(**fields: Any) -> Callable[[], Any]:
    return lambda: ResultEvent(**{"transaction_id": "order-1", **fields})


#: What is made, and what the error has to have in it: the field, the value, what was expected.
WRONG: dict[str, tuple[Callable[[], Any], str, str, str]] = {
    "too few": (lambda: RetryPolicy(max_attempts=-1), "max_attempts", "-1", "greater than or equal to 0"),
    "no number": (lambda: RetryPolicy(initial_interval="soon"), "initial_interval", "'soon'", "a valid number"),
    "NaN": (lambda: RetryPolicy(max_interval=float("nan")), "max_interval", "nan", "expected a number"),
    "negative time": (lambda: RetryPolicy(max_interval=timedelta(-1)), "max_interval", "-86400", "greater than"),
    "half an attempt": (lambda: RetryPolicy(max_attempts=2.5), "max_attempts", "2.5", "a valid integer"),
    "coefficient": (lambda: RetryPolicy(backoff_coefficient=0), "backoff_coefficient", "0", "greater than or equal"),
    "not iterable": (lambda: RetryPolicy(non_retryable=5), "non_retryable", "5", "a valid tuple"),
    "misspelt": (lambda: RetryPolicy(max_atempts=3), "max_atempts", "", 'did you mean "max_attempts"?'),
    "no name": (lambda: RetryPolicy(3), "max_attempts", "3", "was given without a name; expected"),
    "jitter": (lambda: RetryPolicy(jitter="perhaps"), "jitter", "'perhaps'", "a valid boolean"),
    "budget": (lambda: Budget("all", usd=-1), "usd", "-1", "US dollars above 0"),
    "stored policy": (lambda: RetryPolicy.from_dict({"max_attempts": -1}), "max_attempts", "-1", "greater than"),
    "no run": (ResultEvent, "transaction_id", "", "expected transaction_id=..."),
    "other kind": (result(type="error"), "type", "'error'", "expected 'result'"),
    "no time": (result(occurred_at="tomorrow"), "occurred_at", "'tomorrow'", "a valid datetime"),
    "no attempt": (result(attempt="first"), "attempt", "'first'", "a valid integer"),
    "no error": (lambda: ErrorEvent(transaction_id="o", error="bad"), "error", "'bad'", "instance of ErrorInfo"),
    "no kind": (
        lambda: ErrorEvent(transaction_id="o", error=ErrorInfo(type="a", message="b"), kind="odd"),
        "kind",
        "'odd'",
        "expected 'failed'",
    ),
    "error info": (lambda: ErrorInfo(type="a", message=5), "message", "5", "a valid string"),
    "command": (lambda: CommandEvent(transaction_id=7), "transaction_id", "7", "a valid string"),
    "compensation": (lambda: CompensationEvent(transaction_id=7), "transaction_id", "7", "a valid string"),
    "status": (lambda: StatusEvent(transaction_id="o", status=7), "status", "7", "a valid string"),
    "limit of none": (lambda: Limit("bank", concurrency=0), "concurrency", "0", "at least 1"),
    "no key": (lambda: Limit("", rate=1), "key", "''", "expected what is limited"),
    "rate": (lambda: Limit("bank", rate=-1), "rate", "-1", "above 0"),
    "per": (lambda: Limit("bank", rate=1, per="a day"), "per", "'a day'", "seconds above 0"),
    "a step's name": (built(lambda: Step("", "play")), "name", "''", "expected"),
    "timeout": (step(timeout=-1), "timeout", "-1", "expected"),
    "retry": (step(retry=3), "retry", "3", "RetryPolicy"),
    "undo_retry": (step(compensation="undo", undo_retry=3), "undo_retry", "3", "RetryPolicy"),
    "limit": (step(limit=3), "limit", "3", "Limit"),
    "priority": (step(priority="high"), "priority", "'high'", "expected"),
    "queue": (step(queue=7), "queue", "7", "expected"),
    "when": (step(when=7), "when", "7", "expected"),
    "on_unknown": (step(on_unknown="retry"), "on_unknown", "'retry'", "expected"),
    "heartbeat_timeout": (step(heartbeat_timeout="x"), "heartbeat_timeout", "'x'", "expected"),
    "schedule_to_start": (step(schedule_to_start=0), "schedule_to_start", "0", "expected"),
    "branches": (built(lambda: Parallel("q", 7)), "branches", "7", "expected"),
    "on_failure": (built(lambda: Parallel("q", ["a", "b"], "stop")), "on_failure", "'stop'", "expected"),
    "chooser": (built(lambda: Choice("c", 7, {"x": ["a"]})), "chooser", "7", "expected"),
    "max_iterations": (
        built(lambda: Loop("l", "play", until=bool, max_iterations=0)),
        "max_iterations",
        "0",
        "expected",
    ),
    "max_concurrency": (built(lambda: Map("m", "play", max_concurrency=0)), "max_concurrency", "0", "expected"),
    "child": (built(lambda: Child("c", "no-workflow")), "workflow", '"no-workflow"', "is registered here"),
    "wait": (built(lambda: Wait("w", timeout=-1)), "timeout", "-1", "expected"),
    "on_timeout": (built(lambda: Approval("a", on_timeout="accept")), "on_timeout", "'accept'", "expected"),
    "seconds": (built(lambda: Sleep("s", -1)), "seconds", "-1", "expected"),
    "lease": (built(lambda: Lock("l", "key", lease=0)), "lease", "0", "expected"),
    "savepoint": (built(lambda: Savepoint("")), "name", "''", "expected"),
    "deadline": (lambda: WorkflowBuilder("w", deadline=-1).add_step("a", "b").build(), "deadline", "-1", "expected"),
    "setting": (lambda: Settings(lease="long"), "lease", "'long'", "must be a number of seconds"),
    "settings": (lambda: Orchestrator(Celery(), {"leas": 3}).settings, "leas", "", "lease"),
    "address": (lambda: RedisEventBus("nowhere"), "nowhere", "", "redis://"),
}
#: Nothing that is given to these can be wrong in itself, or nobody makes them.
FREE = {
    "BulkResult",
    "DeadLetter",
    "Definition",
    "Resolution",
    "Run",
    "Schedule",
    "StreamEntry",
    "WorkerManager",
    "WorkflowState",
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_refused_by_an_error_that_names_the_field_the_value_and_what_was_expected(case: str) -> None:
    make, field, value, expected = WRONG[case]

    with pytest.raises(MultiAgentsError) as caught:
        make()

    said = str(caught.value)
    assert [part for part in (field, value, expected) if part not in said] == [], said
    assert caught.value.__cause__ is None
    assert str(pickle.loads(pickle.dumps(caught.value))) == said


def test_every_public_class_that_users_make_is_in_the_table() -> None:
    public = {name: getattr(multiagents, name) for name in multiagents.__all__}
    made = {
        name
        for name, kind in public.items()
        if inspect.isclass(kind) and not issubclass(kind, Enum | BaseException) and name not in FREE
    }
    source = inspect.getsource(inspect.getmodule(test_every_public_class_that_users_make_is_in_the_table) or NO_MODULE)
    table = source.partition("WRONG:")[2].partition("FREE =")[0] + source.partition("def step")[2][:400]

    assert {name for name in made if f"{name}(" not in table} == set()


def test_every_public_pydantic_model_says_it_in_words() -> None:
    public = [getattr(multiagents, name) for name in multiagents.__all__]
    models = [kind for kind in public if inspect.isclass(kind) and issubclass(kind, BaseModel)]

    for model in models:
        with pytest.raises(multiagents.exceptions.InvalidValueError, match=f"^no {model.__name__} was made: "):
            model(**{next(iter(model.model_fields)): object()})
    assert len(models) >= 7


def test_an_invalid_value_is_a_value_error_and_shows_nobodys_data() -> None:
    with pytest.raises(ValueError, match=r"error\.message=<dict>; expected a valid string") as caught:
        ErrorEvent(transaction_id="order-1", error={"type": "x", "message": {"card": "4711"}})

    assert "4711" not in str(caught.value)
    assert (caught.value.__cause__, caught.value.__suppress_context__ or caught.value.__context__) in (
        (None, None),
        (None, True),
    )


def test_a_field_of_a_model_that_is_made_inside_another_is_named_whole() -> None:
    with pytest.raises(ValueError, match=r"no ErrorEvent was made: error.attempt='first'; expected a valid integer"):
        ErrorEvent(transaction_id="order-1", error={"type": "x", "message": "y", "attempt": "first"})


def test_a_manager_and_an_error_of_users_take_whatever_they_are_given() -> None:
    WorkerManager()
    assert TerminalError("no", details=object()).details is not None
