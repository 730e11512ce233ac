"""What an agent is: what `dspy_worker` was told, checked without loading DSPy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from multiagents.agents.budget import Budget
from multiagents.agents.reasoning import Reasoning
from multiagents.agents.servers import MCPTools
from multiagents.agents.tools import options_of
from multiagents.exceptions import ConfigurationError, WorkerError
from multiagents.retry import RetryPolicy
from multiagents.worker_sdk.signature import Signature

if TYPE_CHECKING:
    from multiagents.worker_sdk.registry import Worker

#: Input fields that the classes of DSPy take for their own arguments, without a word.
RESERVED_INPUTS = frozenset({"config", "demos", "lm", "max_iters", "prediction", "signature", "trajectory", "history"})
#: How transport errors of a model's provider are tried again, where ``lm_retry`` does not say.
LM_RETRY = RetryPolicy(max_attempts=5, initial_interval=1.0, max_interval=60.0)
#: Where a worker's function keeps whose it is.
_ATTRIBUTE = "multiagents_agent"
_FIELD = re.compile(r"\s*([A-Za-z_]\w*)\s*(?::|$)")


@dataclass(frozen=True, kw_only=True, eq=False)
class Agent:
    """One agent.

    Attributes:
        name: the worker's.
        function: what the user has decorated; it is called with the model's answer in the context.
        signature: what is asked: ``"question -> answer: str"``, or a class of DSPy's; None asks nothing.
        instructions: what the model is told to do, where the signature is a string.
        reasoning: how it comes to the answer.
        tools: what it may call.
        model: what it asks, if it says so itself.
        module: a class, or object, of DSPy's that answers in place of `reasoning`.
        max_iters: how often a model that calls tools, or writes code, may do so.
        temperature, max_tokens: of the model, if it says so itself.
        adapter: how the question is written for the model, by name or as an object; None is the usual way.
        lm_retry: how transport errors are tried again.
        budgets: what its calls may cost.
        on_divergence: what becomes of an attempt that asks something else than those before it did.
        stream: whether what it does is told while it does it.
        namespace: names beside the function, for annotations.
    """

    name: str
    function: Callable[..., Any]
    signature: Any = None
    instructions: str | None = None
    reasoning: Reasoning = Reasoning.PREDICT
    tools: Sequence[Any] = ()
    model: Any = None
    module: Any = None
    max_iters: int = 5
    temperature: float | None = None
    max_tokens: int | None = None
    adapter: Any = None
    lm_retry: RetryPolicy = LM_RETRY
    on_divergence: str = "continue"
    budgets: Sequence[Budget] = ()
    stream: bool = False
    namespace: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for check in (self._check_question, self._check_tools, self._check_numbers):
            check()

    @cached_property
    def parameters(self) -> Signature:
        """How the user's function is called."""
        return Signature(self.name, self.function, self.namespace)

    @property
    def functions(self) -> list[Any]:
        """Of its tools, those that are known here."""
        return [one for one in self.tools if not isinstance(one, MCPTools)]

    @property
    def servers(self) -> list[MCPTools]:
        """Of its tools, those that a server has yet to name."""
        return [one for one in self.tools if isinstance(one, MCPTools)]

    def mark(self, function: Any) -> None:
        """Have a worker's function say that it is this agent's."""
        setattr(function, _ATTRIBUTE, self)

    def _wrong(self, what: str) -> ConfigurationError:
        return ConfigurationError(f'worker "{self.name}": {what}')

    def _check_question(self) -> None:
        if self.module is not None and (self.signature is not None or self.tools):
            raise self._wrong(
                "module= was given together with signature= or tools=; a module has its own, so give either"
            )
        if self.signature is None and self.module is None and (self.tools or self.reasoning is not Reasoning.PREDICT):
            raise self._wrong('tools= and reasoning= are about a question: give signature="question -> answer"')
        if isinstance(self.signature, str):
            _, arrow, outputs = self.signature.partition("->")
            if not arrow or not outputs.strip():
                raise self._wrong(f'signature must look like "question -> answer: str", got {self.signature!r:.200}')
            twice = [name for name, times in Counter([*self._inputs(), *_names(outputs)]).items() if times > 1]
            if twice:
                raise self._wrong(
                    f"signature {self.signature!r:.200} has field {', '.join(twice)} twice; call the input something "
                    f'else, which the step is told: inputs={{"old_{twice[0]}": "{twice[0]}", ...}}'
                )
        elif self.signature is not None and not hasattr(self.signature, "input_fields"):
            raise self._wrong(f"signature must be a string or a dspy.Signature class, got {self.signature!r:.200}")
        if self.instructions is not None:
            self._check_instructions()
        taken = sorted(RESERVED_INPUTS.intersection(self._inputs()))
        if taken:
            raise self._wrong(
                f"input field {', '.join(taken)} has a name that DSPy takes for an argument of its own; call it "
                f"something else"
            )

    def _check_instructions(self) -> None:
        if not isinstance(self.instructions, str) or not self.instructions.strip():
            raise self._wrong(f"instructions must be a text, got {self.instructions!r:.120}")
        if not isinstance(self.signature, str):
            raise self._wrong(
                "instructions= are for a signature that is a string; a dspy.Signature class has them as its docstring, "
                "and a module its own"
            )

    def _inputs(self) -> Iterator[str]:
        if isinstance(self.signature, str):
            yield from _names(self.signature.partition("->")[0])
        elif self.signature is not None:
            yield from self.signature.input_fields

    def _check_tools(self) -> None:
        if self.tools and not self.reasoning.takes_tools:
            with_tools = " or ".join(f'reasoning="{mode}"' for mode in Reasoning if mode.takes_tools)
            raise self._wrong(f'tools= are given, and reasoning="{self.reasoning}" calls none; use {with_tools}')
        if isinstance(self.tools, Mapping | str) or not isinstance(self.tools, Sequence):
            raise self._wrong(f"tools must be a list, got {self.tools!r:.120}")
        names: set[str] = set()
        for one in self.functions:
            if not callable(one):
                raise self._wrong(
                    f"tools must be functions, what @tool or dspy.Tool make of them, or mcp_tools(...), got "
                    f"{one!r:.120}"
                )
            name = options_of(one).name
            if name in names:
                raise self._wrong(f'two tools are called "{name}", and the model could call but one; rename one')
            names.add(name)

    def _check_numbers(self) -> None:
        for option in ("max_iters", "max_tokens"):
            value = getattr(self, option)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise self._wrong(f"{option} must be a whole number of at least 1, got {value!r:.80}")
        if self.budgets and self.max_tokens is None and not _is_bounded(self.model):
            raise self._wrong(
                "budget= needs max_tokens=, the most tokens that an answer may have: before each call it is set aside "
                "what that may cost"
            )
        heat = self.temperature
        if heat is not None and (isinstance(heat, bool) or not isinstance(heat, int | float) or not 0 <= heat <= 10):
            raise self._wrong(f"temperature must be a number from 0 to 10, got {heat!r:.80}")
        if not isinstance(self.lm_retry, RetryPolicy):
            raise self._wrong(f"lm_retry must be a RetryPolicy, got {self.lm_retry!r:.120}")
        if not isinstance(self.stream, bool):
            raise self._wrong(f"stream must be True or False, got {self.stream!r:.80}")
        if self.on_divergence not in ("continue", "park"):
            raise self._wrong(f'on_divergence must be "continue" or "park", got {self.on_divergence!r:.80}')


def agent_of(worker: Worker) -> Agent:
    """The agent that a worker is.

    Raises:
        WorkerError: when it is none.
    """
    found = getattr(worker.fn, _ATTRIBUTE, None)
    if not isinstance(found, Agent):
        raise WorkerError(
            f'worker "{worker.name}" ({worker.where}) is no agent, so it has no program; expected one made with '
            f"@dspy_worker"
        )
    return found


def _is_bounded(model: Any) -> bool:
    """Whether what a model is given as says how long its answers may be."""
    if isinstance(model, list | tuple):
        return bool(model) and all(_is_bounded(one) for one in model)
    options = model if isinstance(model, Mapping) else getattr(model, "kwargs", None)
    return isinstance(options, Mapping) and options.get("max_tokens") is not None


def _parts(fields: str) -> Iterator[str]:
    """The fields of one side of a signature; a comma inside brackets parts none."""
    depth, start = 0, 0
    for at, character in enumerate(fields):
        if character in "[({":
            depth += 1
        elif character in "])}":
            depth -= 1
        elif character == "," and depth == 0:
            yield fields[start:at]
            start = at + 1
    yield fields[start:]


def _names(fields: str) -> Iterator[str]:
    """The names of the fields of one side of a signature."""
    return (found[1] for part in _parts(fields) if (found := _FIELD.match(part)) is not None)
