"""Whether a call of a model may be made now, and what becomes of what was set aside for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dspy
from dspy import lm15
from dspy._vendor.lm15.transports import ConnectError

from multiagents.agents.dspy.costs import Prices, bound_of, cost_of, most_of, usage_of
from multiagents.agents.dspy.route import Route
from multiagents.agents.spending import Bound, Held, Spending
from multiagents.agents.turns import AMONG_OTHERS, Share, Turn, shares_of_model
from multiagents.exceptions import MultiAgentsError
from multiagents.state_store.records import Amount, Begun, Usage
from multiagents.worker_sdk.attempt.asked import GivenBack

if TYPE_CHECKING:
    from multiagents.agents.calls import Calls, Leave

#: Tokens that a provider may add to a request of its own, to say how tools are called.
ADDED_FOR_TOOLS = 1_000
#: Tokens that an answer is thought to have which may have any number; it is corrected by what it has.
GUESSED_ANSWER = 1_000
#: What a provider says that has not answered, and takes no money for it.
_FREE = (
    lm15.AuthError,
    lm15.BillingError,
    lm15.CapabilityError,
    lm15.ConfigurationError,
    lm15.InvalidRequestError,
    lm15.RateLimitError,
    lm15.ServerError,
)


class Admission:
    """What stands between a call that was begun and the model: limits, and budgets.

    Args:
        calls: those of the attempt.
        begun: the call.
        route: the way to the model.
        request: what is asked.
        text: that as JSON. No model makes more tokens of a text than it has bytes.
    """

    def __init__(self, calls: Calls, begun: Begun, route: Route, request: Any, text: str) -> None:
        self._calls = calls
        self._begun = begun
        self._route = route
        self._request = request
        self._text = text
        self._held: Held | None = None
        self._spending: Spending | None = dspy.settings.get("multiagents_spending")
        self._turn = Turn(calls, begun, self._shares())

    def take(self) -> float:
        """Ask whether the call may be made now, and set aside what it may cost.

        Returns:
            in how many seconds to ask again; 0: it may.

        Raises:
            Leave: when it must not be made, or not now.
        """
        seconds = self._turn.take()
        if seconds or self._spending is None:
            return seconds
        try:
            self._held = self._spending.reserve(self._begun, self._bound())
        except GivenBack as error:
            if self._calls.under_way:
                return AMONG_OTHERS
            raise self._not_made(error) from error
        except MultiAgentsError as error:
            raise self._not_made(error) from error
        return 0.0

    def _not_made(self, error: Exception) -> Leave:
        self._turn.give_up()
        self._calls.withhold(self._begun)
        return self._calls.leave(error)

    def answered(self, response: Any) -> Usage:
        """Say what the call has cost; gives what it has used."""
        used = usage_of(self._route, self._request, response, self._prices)
        self._turn.end(used.input_tokens + used.output_tokens)
        if self._held is not None:
            known = cost_of(self._route, self._request, response, self._prices) is not None
            micro_usd = used.micro_usd if known else self._held.bound.micro_usd
            self._settle(Amount(micro_usd, used.input_tokens + used.output_tokens))
        return used

    def failed(self, error: Exception) -> None:
        """The call was not answered: unless that is known to cost nothing, it counts as paid."""
        self._turn.end()
        if self._held is not None:
            unheard = isinstance(error.__cause__, ConnectError)
            self._settle(Amount() if unheard or isinstance(error, _FREE) else self._held.bound)

    @property
    def _prices(self) -> Prices:
        return self._calls.step.settings.lm_prices or {}

    def _settle(self, used: Amount) -> None:
        if self._held is not None and self._spending is not None:
            self._spending.settle(self._held, used)
            self._held = None

    def _shares(self) -> list[Share]:
        limits = self._calls.step.settings.lm_limits
        if not limits:
            return []
        guess = len(self._text) // 4 + (self._request.config.max_tokens or GUESSED_ANSWER)
        return shares_of_model(self._route.model, limits, guess)

    def _bound(self) -> Bound:
        most = self._request.config.max_tokens
        if most is None:
            return Bound(self._route.model, None, None)
        asked = len(self._text.encode()) + (ADDED_FOR_TOOLS if self._request.tools else 0)
        rates = most_of(self._route, self._prices, asked)
        return Bound(self._route.model, asked + most, None if rates is None else bound_of(rates, asked, most))
