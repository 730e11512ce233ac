"""The decorator ``@dspy_worker``: a worker that asks a language model before its function is called."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from multiagents.agents.agent import LM_RETRY, Agent
from multiagents.agents.agent_task import AgentTask
from multiagents.agents.budget import Budget, checked_budgets
from multiagents.agents.extras import lacks
from multiagents.agents.reasoning import Reasoning
from multiagents.exceptions import ConfigurationError
from multiagents.retry import RetryPolicy
from multiagents.worker_sdk.attempt import running
from multiagents.worker_sdk.worker import checked_name, names_beside, worker

#: What installs what an agent needs.
_INSTALL = 'pip install "celery-multiagents[dspy]"'


def dspy_worker(
    name: str | None = None,
    signature: Any = None,
    *,
    instructions: str | None = None,
    tools: Sequence[Any] = (),
    reasoning: str = "predict",
    model: Any = None,
    module: Any = None,
    max_iters: int = 5,
    temperature: float | None = None,
    max_tokens: int | None = None,
    adapter: Any = None,
    budget: Budget | Sequence[Budget] | None = None,
    lm_retry: RetryPolicy | None = None,
    on_divergence: str = "continue",
    stream: bool = False,
    **worker_options: Any,
) -> Callable[[Callable[..., Any]], AgentTask]:
    """Make a function a worker that asks a language model, with DSPy, before it is called.

    The signature's input fields are taken from the context. The output fields are in the context, typed, when the
    function is called, and in the step's result, as JSON, with what it returns on top; it may return None, and may be
    ``def`` or ``async def``. Every call of the model and of a tool is kept in the run's journal: an attempt that is
    lost, or whose function fails, makes none of them again.

    Args:
        name: the worker's name; the function's own if left out.
        signature: ``"question -> answer: str, sources: list[str]"``, or a ``dspy.Signature`` class; without it, nothing
            is asked, and the function may ask for itself (``dspy.Predict(...)``).
        instructions: what the model is told to do, beside what the names of the fields say; for a signature that is a
            string.
        tools: functions, what `tool` has made of them, or ``dspy.Tool``; for ``react`` and ``codeact``.
        reasoning: ``predict``, ``chain_of_thought``, ``react``, ``program_of_thought`` or ``codeact``.
        model: ``"gemini/gemini-3.8-flash"``, a ``dspy.LM``, a dict with ``model`` and more, or a list of these: each is
            asked where those before it cannot be. Else ``multiagents_lm``, else what ``dspy.configure`` was given.
        module: a ``dspy.Module`` class that is made without arguments, or an object of one, in place of ``signature``.
        max_iters: how many rounds a model that calls tools, or writes code, has.
        temperature: of the model.
        max_tokens: how many tokens an answer of the model may have.
        adapter: ``"chat"``, ``"json"``, ``"xml"``, or an adapter of DSPy's.
        budget: what its calls may cost, or a list of such; it needs ``max_tokens``. A call for which there is not
            enough left is not made, and the step fails for good with `BudgetExceededError`.
        lm_retry: how transport errors of the model's provider (429, 5xx, time-outs) are tried again. What is wrong with
            an answer is for the step's own policy, ``retry=``.
        on_divergence: what to do when an attempt asks something else than those before it: ``continue``, or ``park`` it
            for a person before it costs anything.
        stream: tell whoever reads ``run.stream()`` what the model says while it says it, and which tools it calls.
        worker_options: those of `multiagents.worker`: ``retry``, ``timeout``, ``queue``, ``limit``, ...

    Raises:
        ConfigurationError: when an argument is not what it must be.

    >>> @dspy_worker("classify", signature="text -> sentiment: str, confidence: float")
    ... async def classify(context: dict) -> dict:
    ...     return {"needs_review": context["confidence"] < 0.7}
    >>> classify
    <worker 'classify': multiagents.agents.worker.classify>
    """
    if name is not None and not isinstance(name, str):
        raise ConfigurationError(
            f'@dspy_worker takes a name and a signature, got {name!r:.120}; write @dspy_worker("summarizer", '
            f'signature="document -> summary: str")'
        )
    _keep_to_known_prices()
    budgets = checked_budgets(budget)
    policy = LM_RETRY if lm_retry is None else lm_retry

    def decorate(function: Callable[..., Any]) -> AgentTask:
        chosen = checked_name(name, function)
        agent = Agent(
            name=chosen,
            function=function,
            signature=signature,
            instructions=instructions,
            reasoning=Reasoning.named(reasoning, chosen),
            tools=tools,
            model=model,
            module=module,
            max_iters=max_iters,
            temperature=temperature,
            max_tokens=max_tokens,
            adapter=adapter,
            lm_retry=policy,
            on_divergence=on_divergence,
            budgets=budgets,
            stream=stream,
            namespace=names_beside(function),
        )
        return AgentTask(worker(chosen, **worker_options)(_step_of(agent)), agent)

    return decorate


def _keep_to_known_prices() -> None:
    """Have DSPy take what it knows of models from its own files, not from the network, unless somebody wants that.

    It would ask once in each process, before the first call of a model, and wait for up to 5 s.
    """
    if "LITELLM_MODEL_COST_MAP_URL" not in os.environ:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")


def _step_of(agent: Agent) -> Callable[..., Any]:
    """The function that Celery's task calls: it asks, then calls the user's."""

    def step(context: dict[str, Any]) -> Any:
        if running.get() is None and inspect.iscoroutinefunction(agent.function):
            return asyncio.to_thread(_perform, agent, context)  # A plain call of what is an `async def`.
        return _perform(agent, context)

    agent.mark(step)
    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(step, attribute, getattr(agent.function, attribute, None) or getattr(step, attribute))
    return step


def _perform(agent: Agent, context: Mapping[str, Any]) -> Any:
    try:
        from multiagents.agents.dspy import perform
    except ModuleNotFoundError as error:
        if not lacks(error, "dspy"):
            raise
        raise ConfigurationError(
            f'worker "{agent.name}" needs DSPy, which is not installed here; install it where its steps run: {_INSTALL}'
        ) from error
    return perform(agent, context)
