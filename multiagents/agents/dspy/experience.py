"""What an attempt leaves to learn from: what it was asked, what it has come to, and what its predictors have said.

It is written by the commit that ends the attempt, and costs no write of its own. It never costs the step anything: what
cannot be kept is warned of.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import dspy

from multiagents.error_report import message_of, qualified_name
from multiagents.exceptions import MultiAgentsError
from multiagents.interruption import is_interrupted
from multiagents.plain_json import plain
from multiagents.state_store.records import BUILT_IN, MAX_EXAMPLE, Experience, Lesson, Traced

if TYPE_CHECKING:
    from multiagents.agents.agent import Agent
    from multiagents.agents.calls import Calls
    from multiagents.worker_sdk.attempt import StepContext

logger = logging.getLogger(__name__)


def _is_learned_from(step: StepContext) -> bool:
    return step.settings.examples > 0 and step.direction == "do" and not step.probing


class Notes:
    """What is noted of an attempt while it goes on.

    Args:
        agent: whose.
        calls: the calls of the attempt; None of a plain call, which leaves nothing.

    Attributes:
        trace: what DSPy's predictors note.
    """

    def __init__(self, agent: Agent, calls: Calls | None) -> None:
        self._agent = agent
        self._calls = calls if calls is not None and _is_learned_from(calls.step) else None
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Any] | None = None
        self._program: Any = None
        self._wanted: tuple[str, ...] = ()
        self._models: list[str] = []
        self.trace: list[Any] = []

    def asks(self, program: Any, lm: Any, inputs: Mapping[str, Any], wanted: Iterable[str] = ()) -> None:
        """The question is put.

        Args:
            program: to whom.
            lm: which model it asks.
            inputs: the fields of the question, as the context has them.
            wanted: the fields of the answer.
        """
        self._wanted = tuple(wanted)
        self._program, self._inputs = program, dict(inputs)
        self._models = [route.model for route in getattr(getattr(lm, "engine", None), "routes", ())]
        self._models = self._models or [str(getattr(lm, "model", type(lm).__name__))]

    def answered(self, outputs: Mapping[str, Any]) -> None:
        """The answer is there, as plain JSON."""
        self._outputs = dict(outputs)

    def leave(self, error: BaseException | None = None) -> None:
        """Have the commit that ends the attempt keep what was noted.

        Args:
            error: what the attempt has failed with.
        """
        if self._calls is None:
            return
        try:
            self._leave(self._calls, error)
        except Exception as problem:
            if is_interrupted(problem):
                raise
            logger.warning("step %s leaves no example to learn from", self._calls.step.correlation_id, exc_info=True)

    def _leave(self, calls: Calls, error: BaseException | None) -> None:
        step = calls.step
        store, settings = step.store_here(), step.settings
        experience = Experience(
            inputs=plain(self._inputs, "the inputs of an example"),
            outputs=self._outputs,
            trace=self._traced(),
            error="" if error is None else f"{qualified_name(type(error))}: {message_of(error)}",
            attempt=step.attempt,
            seconds=round((store.now() - step.claim.now).total_seconds(), 3),
            models=self._models,
            program=str(calls.program) if calls.program != BUILT_IN else "",
            dspy=dspy.__version__,
            edited=calls.edited,
            wanted=self._wanted if self._outputs is None else (),
        )
        text = experience.written(store.policy)
        if text is None:
            logger.warning(
                "step %s leaves no example to learn from: its inputs and outputs take more than %d bytes",
                step.correlation_id,
                MAX_EXAMPLE,
            )
            return
        step.lesson = Lesson(
            self._agent.name, step.step, text, settings.examples, round(settings.example_retention * 1000)
        )

    def _traced(self) -> list[Traced]:
        """What the predictors have noted; nothing, if one was asked with what cannot be written down."""
        try:
            return self._all_traced()
        except MultiAgentsError as error:
            logger.debug("an example of %s is kept without its trace: %s", self._agent.name, error)
            return []

    def _all_traced(self) -> list[Traced]:
        names = {} if self._program is None else {id(one): name for name, one in self._program.named_predictors()}
        return [
            Traced(
                names.get(id(predictor), type(predictor).__name__),
                plain(dict(inputs), "the inputs of a trace"),
                plain(dict(prediction.items()), "the outputs of a trace"),
            )
            for predictor, inputs, prediction in list(self.trace)
        ]
