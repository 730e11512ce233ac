"""What agents may spend: `Budget`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from multiagents.exceptions import ConfigurationError, TerminalError, WorkflowError, did_you_mean
from multiagents.names import Correlation
from multiagents.state_store.records import Account, Amount, Per, account_of
from multiagents.workflow.definition import filled_template, template_fields

#: How many dollars a budget has at most.
MOST_USD = 100_000_000.0


@dataclass(frozen=True, slots=True)
class Budget:
    """Limit what agents may spend under a key: money, tokens or both.

    Before each call of a model it is set aside what the call may cost at most, so agents that run at the same time
    never spend more together. That takes the most tokens that an answer may have, ``max_tokens=`` of the agent.

    Args:
        key: what has the budget, with ``{field}`` or ``{field.field}`` for what the agent gets as its context:
            ``"all"``, ``"tenant:{customer}"``. Whatever has the same key and ``per`` shares what is spent.
        usd: US dollars; None is without limit.
        tokens: those asked and those answered together; None is without limit.
        per: for what it is, each time anew: a ``call`` of a model, a ``step`` (all attempts), a ``run``, a ``day`` or
            a ``month`` (in UTC, by the server's clock, over all runs).

    Raises:
        ConfigurationError: when a value is not what it must be, or nothing is limited.

    >>> Budget("tenant:{customer}", usd=5, per="day")
    Budget(key='tenant:{customer}', usd=5, tokens=None, per='day')
    """

    key: str
    usd: float | None = field(default=None, kw_only=True)
    tokens: int | None = field(default=None, kw_only=True)
    per: str = field(default="run", kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key.strip():
            raise self._refused("key", 'what has the budget, such as "all" or "tenant:{customer}"')
        try:
            list(template_fields(self.key))
        except ValueError as error:
            raise self._refused("key", f'fields such as in "tenant:{{customer}}": {error}') from None
        if self.usd is None and self.tokens is None:
            raise ConfigurationError(f"{self!r} limits nothing; give it usd=, tokens= or both")
        money = isinstance(self.usd, int | float) and not isinstance(self.usd, bool)
        if self.usd is not None and not (money and math.isfinite(self.usd) and 0.000001 <= self.usd <= MOST_USD):
            raise self._refused("usd", f"US dollars above 0, or None for no limit; at most {MOST_USD:,.0f}")
        whole = isinstance(self.tokens, int) and not isinstance(self.tokens, bool)
        if self.tokens is not None and not (whole and self.tokens > 0):
            raise self._refused("tokens", "a whole number of at least 1, or None for no limit")
        if self.per not in set(Per):
            known = ", ".join(Per)
            raise self._refused("per", f"one of {known}{did_you_mean(str(self.per), known.split(', '))}")

    def _refused(self, option: str, expected: str) -> ConfigurationError:
        return ConfigurationError(f"a Budget has {option}={getattr(self, option)!r:.120}; expected {expected}")

    @property
    def limit(self) -> Amount:
        """How much may be spent; 0 is without limit."""
        return Amount(math.floor(round((self.usd or 0) * 1_000_000, 3)), self.tokens or 0)

    def account(self, context: Mapping[str, Any], correlation: Correlation, now: datetime) -> Account:
        """Where is written what is spent of it now.

        Args:
            context: what fills its key.
            correlation: the attempt that wants to spend.
            now: by the store's clock.

        Raises:
            TerminalError: when the context does not fill the key.
        """
        try:
            key = filled_template(self.key, context)
        except WorkflowError as error:
            raise TerminalError(
                f"step {correlation.step!r} was not begun, for its budget is not known: {error}"
            ) from error
        return account_of(key, Per(self.per), now, correlation)


def checked_budgets(given: Any) -> tuple[Budget, ...]:
    """What ``budget=`` was given, as a tuple.

    Raises:
        ConfigurationError: when it is no budget, nor a list of them.
    """
    budgets = () if given is None else tuple(given) if isinstance(given, list | tuple) else (given,)
    for one in budgets:
        if not isinstance(one, Budget):
            raise ConfigurationError(
                f'budget must be a Budget, or a list of them, got {one!r:.120}; write Budget("all", usd=5, per="day")'
            )
    return budgets
