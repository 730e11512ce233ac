"""Which model an agent asks, and how it is reached.

The first of these that is given: the worker's ``model=``, the workflow's, ``multiagents_lm``, what the user's own
module has told ``dspy.configure``. Whatever it is, it is made again with an engine of ours: key, address and time
limits go to the engine that really asks, and are never in a request, nor kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dspy
from dspy.clients.backend_selection import CLIENT_KEYS, select_backend
from dspy.clients.engines.litellm_engine import AsyncLiteLLMEngine, LiteLLMEngine
from dspy.clients.engines.lm15_engine import AsyncLM15Engine, LM15Engine, timeouts_for
from dspy.lm15 import RouterConfig

from multiagents.agents.dspy.engine import AsyncJournaledEngine, JournaledEngine
from multiagents.agents.dspy.route import Route
from multiagents.exceptions import LMNotConfiguredError

if TYPE_CHECKING:
    from multiagents.agents.agent import Agent

logger = logging.getLogger(__name__)

#: Said where nothing says which model is meant.
_HOW = (
    'give the worker model="gemini/gemini-3.8-flash", set multiagents_lm in the Celery configuration '
    "(MULTIAGENTS_LM in the environment), or call dspy.configure(lm=dspy.LM(...)) in the module of the workers; the "
    "key is read from the environment: GOOGLE_API_KEY or GEMINI_API_KEY for Gemini, OPENAI_API_KEY for OpenAI"
)


def choices_of(agent: Agent, *said: Any) -> list[Any]:
    """What an agent asks, as it was said; what comes later stands in for what comes before it. Empty: nobody has.

    The mere name of a model of which more is said elsewhere (a key, an address) means that one.

    Args:
        agent: the agent.
        said: what the workflow says, and ``multiagents_lm``; None: nothing.
    """
    all_said = [_listed(one) for one in (agent.model, *said, dspy.settings.lm) if one is not None]
    more = {_name_of(one): one for some in reversed(all_said) for one in some if not isinstance(one, str)}
    return [more.get(one, one) if isinstance(one, str) else one for one in next(iter(all_said), [])]


def _listed(said: Any) -> list[Any]:
    return list(said) if isinstance(said, list | tuple) else [said]


def _name_of(choice: Any) -> str:
    return str(choice.get("model") if isinstance(choice, Mapping) else getattr(choice, "model", ""))


def lm_of(agent: Agent, *said: Any) -> dspy.BaseLM:
    """The LM that an agent asks.

    Args:
        agent: the agent.
        said: what the workflow says, and ``multiagents_lm``; None: nothing.

    Raises:
        LMNotConfiguredError: when nothing says which.
    """
    given = [_made(choice, agent) for choice in choices_of(agent, *said)]
    if not given:
        raise LMNotConfiguredError(f'worker "{agent.name}" asks a model, and nothing says which; {_HOW}')
    lms = [one for one in given if isinstance(one, dspy.LM)]
    if len(lms) < len(given):
        return _not_durable(given[0], agent)
    first, routes = lms[0], [_route(one) for one in lms]
    asked = {key: value for key, value in first.kwargs.items() if key not in CLIENT_KEYS}
    asked |= {
        name: value
        for name, value in (("temperature", agent.temperature), ("max_tokens", agent.max_tokens))
        if value is not None
    }
    return dspy.LM(
        first.model,
        model_type=first.model_type,
        cache=False,
        num_retries=0,
        engine=JournaledEngine(agent, routes, lms),
        async_engine=AsyncJournaledEngine(agent, routes, lms),
        **asked,
    )


def _not_durable(first: dspy.BaseLM, agent: Agent) -> dspy.BaseLM:
    if agent.budgets:
        raise LMNotConfiguredError(
            f'worker "{agent.name}" has a budget, and asks {type(first).__name__}, which is no dspy.LM: what its calls '
            f"cost is not known, and cannot be limited; take a dspy.LM, or leave budget= out"
        )
    logger.warning(
        'worker "%s" asks %s, which is no dspy.LM: its calls are not kept, and made again by every attempt',
        agent.name,
        type(first).__name__,
    )
    return first


def _made(choice: Any, agent: Agent) -> dspy.BaseLM:
    if isinstance(choice, str):
        return dspy.LM(choice)
    if isinstance(choice, Mapping) and isinstance(choice.get("model"), str):
        return dspy.LM(**{name: value for name, value in choice.items() if name != "adapter"})
    if isinstance(choice, dspy.BaseLM):
        return choice
    raise LMNotConfiguredError(
        f'worker "{agent.name}": a model is a string such as "gemini/gemini-3.8-flash", a dict with "model", or a '
        f"dspy.LM, got a {type(choice).__name__}"
    )


def _route(lm: dspy.LM) -> Route:
    base_url = lm.kwargs.get("api_base") or lm.kwargs.get("base_url")
    if not isinstance(lm.engine, str):
        engine = lm.engine
        if isinstance(engine, JournaledEngine):
            return engine.routes[0]
        return Route(lm.model, base_url, lm.model_type, None, engine, lm._async_engine_spec)  # noqa: SLF001
    selection = select_backend(lm)
    clients = selection.clients
    if not selection.native or selection.resolution is None:
        return Route(
            lm.model,
            base_url,
            lm.model_type,
            None,
            LiteLLMEngine(model_type=lm.model_type, **clients),
            AsyncLiteLLMEngine(model_type=lm.model_type, **clients),
        )
    provider = selection.resolution.provider
    config = RouterConfig(
        api_keys={provider: clients["api_key"]} if "api_key" in clients else None,
        base_urls={provider: base_url} if base_url else None,
        timeouts=timeouts_for(clients.get("timeout")),
    )
    return Route(
        lm.model,
        base_url,
        lm.model_type,
        provider,
        LM15Engine(config, model_type=lm.model_type),
        _PerLoop(config, lm.model_type),
    )


class _PerLoop:
    """An asynchronous engine for each event loop: its connections belong to the loop that made them."""

    def __init__(self, config: RouterConfig, model_type: str) -> None:
        self._config = config
        self._model_type = model_type
        self._engines: dict[Any, AsyncLM15Engine] = {}

    async def complete(self, request: Any) -> Any:
        return await self._here().complete(request)

    async def stream(self, request: Any) -> Any:
        async for event in self._here().stream(request):
            yield event

    def _here(self) -> AsyncLM15Engine:
        import asyncio

        loop = asyncio.get_running_loop()
        for closed in [one for one in self._engines if one.is_closed()]:
            self._engines.pop(closed, None)
        engine = self._engines.get(loop)
        if engine is None:
            engine = self._engines[loop] = AsyncLM15Engine(self._config, model_type=self._model_type)
        return engine
