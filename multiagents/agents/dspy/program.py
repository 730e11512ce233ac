"""The classes of DSPy's behind our words: how a question becomes a program, and how it is written for the model."""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

import dspy

from multiagents.agents.dspy.tools import JournaledTool
from multiagents.agents.reasoning import Reasoning
from multiagents.exceptions import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from multiagents.agents.agent import Agent

_ADAPTERS = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter}


def program_of(agent: Agent, listed: Sequence[Any] = ()) -> Any:
    """The program that answers an agent's question; None for one that asks nothing.

    Args:
        agent: the agent.
        listed: tools of servers, which it has beside its own.

    Raises:
        ConfigurationError: when there is none.
    """
    if agent.module is not None:
        return _given(agent)
    if agent.signature is None:
        return None
    signature = signature_of(agent)
    match agent.reasoning:
        case Reasoning.PREDICT:
            return dspy.Predict(signature)
        case Reasoning.CHAIN_OF_THOUGHT:
            return dspy.ChainOfThought(signature)
        case Reasoning.REACT:
            tools = [JournaledTool(one, as_data=False) for one in (*agent.functions, *listed)]
            return dspy.ReAct(signature, tools=tools, max_iters=agent.max_iters)
        case _:
            tools = [JournaledTool(one, as_data=True) for one in (*agent.functions, *listed)]
            return dspy.RLM(signature, tools=tools, max_iters=agent.max_iters)


def signature_of(agent: Agent) -> type[dspy.Signature]:
    """An agent's question as a class.

    Raises:
        ConfigurationError: when it cannot be read.
    """
    if not isinstance(agent.signature, str):
        return agent.signature  # type: ignore[no-any-return]
    known = {**getattr(agent.function, "__globals__", {}), **(agent.namespace or {})}
    names = set(re.findall(r"[A-Za-z_]\w*", agent.signature)) - set(dir(builtins))
    try:
        made: type[dspy.Signature] = dspy.Signature(
            agent.signature,
            None if agent.instructions is None else cleandoc(agent.instructions),
            custom_types={name: known[name] for name in names if isinstance(known.get(name), type)},
        )
        return made
    except (ValueError, TypeError, NameError, SyntaxError) as error:
        raise ConfigurationError(
            f'worker "{agent.name}": signature {agent.signature!r:.200} cannot be read: {error}'
        ) from error


def _given(agent: Agent) -> Any:
    module = agent.module() if isinstance(agent.module, type) else agent.module
    if not isinstance(module, dspy.Module):
        raise ConfigurationError(
            f'worker "{agent.name}": module= must be a dspy.Module class that is made without arguments, or an object '
            f"of one, got {agent.module!r:.120}"
        )
    # Tools that it has handed to DSPy's own loops are called there, past everything that is ours.
    for _, part in module.named_sub_modules():
        if isinstance(part, dspy.ReAct):
            part.tools = {
                name: one if name == "finish" or isinstance(one, JournaledTool) else JournaledTool(one, as_data=False)
                for name, one in part.tools.items()
            }
        elif isinstance(part, dspy.RLM):
            part._user_tools = {  # noqa: SLF001 - where it keeps them
                name: one if isinstance(one, JournaledTool) else JournaledTool(one, as_data=True)
                for name, one in part._user_tools.items()  # noqa: SLF001
            }
    return module


def adapter_of(agent: Agent, choices: Sequence[Any] = ()) -> Any:
    """How the question is written for the model, without DSPy's second, paid try in another form.

    Args:
        agent: the agent, which may say so itself.
        choices: what it asks; the first may say it.

    Raises:
        ConfigurationError: when there is none of the name.
    """
    first = choices[0] if choices else None
    chosen = agent.adapter or (first.get("adapter") if isinstance(first, Mapping) else None) or "chat"
    if not isinstance(chosen, str):
        return chosen
    kind = _ADAPTERS.get(chosen)
    if kind is None:
        raise ConfigurationError(
            f'worker "{agent.name}" has adapter={chosen!r}, which there is not{did_you_mean(chosen, _ADAPTERS)} (there '
            f"are: {', '.join(_ADAPTERS)})"
        )
    return kind() if kind is dspy.JSONAdapter else kind(use_json_adapter_fallback=False)
