"""What calls of models cost: by ``multiagents_lm_prices``, else by DSPy's own list as it was released.

Nothing is fetched for that: see `multiagents.agents.worker`. What is not known is None, never 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from dspy.clients.costs import estimate_cost
from dspy.clients.model_metadata import model_info, rate

from multiagents.agents.by_model import found_for
from multiagents.agents.dspy.route import Route
from multiagents.state_store.records import Usage

Prices = Mapping[str, Mapping[str, float]]

#: Providers that tell the tokens of their reasoning apart from those of the answer, as `dspy.clients.costs` has them.
_REASON_APART = frozenset({"gemini", "vertex", "vertex-express", "xai"})
#: What a price is called that holds for longer requests only.
_LONGER = re.compile(r"_above_(\d+)k_tokens")
#: Prices of ways to be asked that a request has to choose.
_CHOSEN = ("_batches", "_flex", "_priority")


class Rates(NamedTuple):
    """What a token costs at most, in millionths of a US dollar: that is, dollars for a million."""

    input: float
    output: float


def usage_of(route: Route, request: Any, response: Any, prices: Prices) -> Usage:
    """What a call has used; dollars that nobody knows are counted as none."""
    asked, answered = _tokens(route, response.usage)
    dollars = cost_of(route, request, response, prices)
    return Usage(asked, answered, _whole((dollars or 0.0) * 1_000_000), route.model)


def cost_of(route: Route, request: Any, response: Any, prices: Prices) -> float | None:
    """What a call has cost, in US dollars; None: nobody knows."""
    told = found_for(route.model, prices)
    if told is not None:
        asked, answered = _tokens(route, response.usage)
        return (asked * told[1]["input"] + answered * told[1]["output"]) / 1_000_000
    dollars, _ = estimate_cost(response, provider=route.provider, requested_model=request.model, request=request)
    return None if dollars is None else float(dollars)


def most_of(route: Route, prices: Prices, length: int) -> Rates | None:
    """What a token of a call costs at most; None: nobody knows.

    Args:
        route: the way to the model.
        prices: those of the settings.
        length: how many tokens the request has at most.
    """
    told = found_for(route.model, prices)
    if told is not None:
        return Rates(told[1]["input"], told[1]["output"])
    info = {} if route.provider is None else _info(route)
    asked = _highest(info, ("input_cost_per_token", "cache_creation_input_token_cost"), length)
    answered = _highest(info, ("output_cost_per_token", "output_cost_per_reasoning_token"), length)
    if rate(info, "input_cost_per_token") is None or rate(info, "output_cost_per_token") is None:
        return None
    return Rates(asked * 1_000_000, answered * 1_000_000)


def bound_of(rates: Rates, asked: int, answered: int) -> int:
    """What so many tokens cost at most, in millionths of a US dollar."""
    return _whole(asked * rates.input + answered * rates.output)


def _info(route: Route) -> Mapping[str, Any]:
    own = route.model.partition("/")[2]
    found: Mapping[str, Any] = model_info(route.provider, own) or model_info(route.provider, route.model)
    return found


def _highest(info: Mapping[str, Any], names: tuple[str, ...], length: int) -> float:
    found = [0.0]
    for key in info:
        if not key.startswith(names) or key.endswith(_CHOSEN):
            continue
        longer = _LONGER.search(key)
        if longer is None or length > int(longer[1]) * 1_000:
            found.append(rate(info, key) or 0.0)
    return max(found)


def _tokens(route: Route, used: Any) -> tuple[int, int]:
    """All that was read and written, where some providers tell parts of it apart."""
    asked, answered = used.input_tokens or 0, used.output_tokens or 0
    if "anthropic" in (route.provider or ""):
        asked += (used.cache_read_tokens or 0) + (used.cache_write_tokens or 0)
    if route.provider in _REASON_APART:
        answered += used.reasoning_tokens or 0
    return asked, answered


def _whole(micro_usd: float) -> int:
    """Up to the next millionth: what is small is not nothing."""
    return math.ceil(round(micro_usd, 3))
