"""What a `Budget` is told, and where what is spent of it is written."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from multiagents import Budget, dspy_worker
from multiagents.exceptions import BudgetExceededError, ConfigurationError, TerminalError
from multiagents.names import Correlation, Direction
from multiagents.state_store.records import Amount

STEP = Correlation("run-1", "ask", Direction.DO, 2, "3")
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"key": ""}, "what has the budget"),
        ({"key": "tenant:{customer"}, "fields such as in"),
        ({}, "limits nothing; give it usd=, tokens= or both"),
        ({"usd": 0}, "US dollars above 0"),
        ({"usd": float("inf")}, "US dollars above 0"),
        ({"usd": True}, "US dollars above 0"),
        ({"tokens": 0}, "a whole number of at least 1"),
        ({"tokens": 1.5}, "a whole number of at least 1"),
        ({"usd": 1, "per": "dya"}, 'one of call, step, run, day, month; did you mean "day"'),
    ],
)
def test_what_cannot_be_a_budget_is_an_error_that_says_what_was_expected(told: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Budget(**{"key": "all", **told})


def test_a_budget_is_of_a_run_unless_it_says_otherwise_and_its_limit_is_in_millionths() -> None:
    assert Budget("all", usd=0.29).per == "run"
    assert Budget("all", usd=0.29).limit == Amount(290_000)
    assert Budget("all", usd=5, tokens=7).limit == Amount(5_000_000, 7)


@pytest.mark.parametrize(
    ("per", "period", "own"),
    [
        ("day", "2026-11-30", False),
        ("month", "2026-11", False),
        ("run", "", True),
        ("step", "", True),
    ],
)
def test_days_and_months_are_shared_and_a_run_has_its_own(per: str, period: str, own: bool) -> None:
    account = Budget("tenant:{customer.id}", usd=5, per=per).account({"customer": {"id": 7}}, STEP, NOON)

    assert (account.key, account.period) == ("tenant:7", period)
    assert account.identity == (STEP.identity if own else "")


def test_days_are_those_of_UTC_wherever_a_worker_is() -> None:
    tokyo = timezone(timedelta(hours=9))
    early = datetime(2026, 12, 1, 8, tzinfo=tokyo)

    assert Budget("all", usd=5, per="day").account({}, STEP, early).period == "2026-11-30"


def test_a_context_that_does_not_fill_the_key_is_a_failure_for_good() -> None:
    with pytest.raises(TerminalError, match=r'its budget is not known: the key "tenant:\{customer\}"'):
        Budget("tenant:{customer}", usd=5, per="day").account({"customr": 7}, STEP, NOON)


@pytest.mark.parametrize("model", [{"model": "x", "max_tokens": 9}, [{"model": "x", "max_tokens": 9}]])
def test_the_most_tokens_of_an_answer_may_be_said_of_the_model(model: Any) -> None:
    def answer(context: dict[str, Any]) -> None:
        """Answer."""

    name = f"bounded-{type(model).__name__}"
    assert dspy_worker(name, "q -> a", model=model, budget=Budget("all", usd=1))(answer).name == name


def test_the_error_of_a_budget_keeps_its_data_wherever_it_goes() -> None:
    error = BudgetExceededError("it is spent", details={"budget": "all"})

    assert pickle.loads(pickle.dumps(error)).details == {"budget": "all"}
