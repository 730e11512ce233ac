"""Looking for a better program with DSPy's optimizers, and measuring one, inside a step: every call is in the journal.

All of it comes to the same when it is done again: chance has a seed, examples and metric are given, and calls are made
one after the other. So an attempt that was lost is made again from its beginning, and is answered from the journal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import dspy
from dspy.teleprompt import bootstrap as bootstrapping
from pydantic import TypeAdapter, ValidationError

from multiagents.agents.budget import Budget
from multiagents.agents.calls import Calls, Leave
from multiagents.agents.dspy.answer import Prepared, asked_by, called, inputs_of, prepared_for
from multiagents.agents.dspy.faults import in_our_words, without_words
from multiagents.agents.dspy.learned import learned, made, written
from multiagents.agents.dspy.models import lm_of
from multiagents.agents.learning.metric import GOOD, Judged, Metric, metric_of
from multiagents.agents.learning.options import Optimizer, Options
from multiagents.agents.spending import Spending
from multiagents.exceptions import BudgetExceededError, LMAnswerError, LMTruncatedError, TerminalError
from multiagents.interruption import is_interrupted
from multiagents.state_store.records import BUILT_IN, Begun

if TYPE_CHECKING:
    from multiagents.agents.agent import Agent
    from multiagents.worker_sdk.attempt import StepContext

logger = logging.getLogger(__name__)

# It prints how far it is, which is nothing for the standard output of whoever runs steps.
bootstrapping.print = logger.debug
# These tell of examples, answers and instructions, and no log is to have them; what came of them is in the run.
for _name in ("dspy.teleprompt", "dspy.evaluate", "dspy.utils.parallelizer"):
    if logging.getLogger(_name).level == logging.NOTSET:
        logging.getLogger(_name).setLevel(logging.CRITICAL)

#: How many examples are shown to the model at most: of its own good answers, and together with others.
DEMOS, ALL_DEMOS = 4, 8
#: How many instructions, and combinations of them with examples, MIPRO tries at most.
CANDIDATES, TRIALS = 5, 12


class _OptimizersCalls(Calls):
    """The calls of an optimizer: so many at most; an answer that cannot be used is one that scores nothing."""

    def __init__(self, step: StepContext, agent: Agent, most: int | None = None) -> None:
        super().__init__(step, agent)
        self._most = most
        self.made = 0
        #: how many were made when the last round began, and what the longest round has taken
        self._before, self._longest = 0, 0

    @property
    def tells(self) -> bool:
        """Nobody reads along."""
        return False

    @property
    def is_spent(self) -> bool:
        """Whether it may make no more."""
        return self._most is not None and self.made >= self._most

    def has_no_more_rounds(self, _state: Any = None) -> bool:
        """Asked before each round: whether the longest one so far would go beyond the budget."""
        self._before, took = self.made, self.made - self._before
        self._longest = max(self._longest, took)
        return self._most is not None and self.made + self._longest > self._most

    def begin_lm(self, key: Mapping[str, Any], text: str, model: str) -> Begun:
        if self.is_spent:
            raise BudgetExceededError(f"looking for a program has taken {self.made} calls of its budget={self._most}")
        self.made += 1
        return super().begin_lm(key, text, model)

    def refuse(self, begun: Begun, why: str) -> None:
        if why != LMTruncatedError.__name__:  # it is told the same again
            super().refuse(begun, why)

    def leave(self, error: BaseException) -> BaseException:  # type: ignore[override]  # it is raised in any case
        return error if isinstance(error, LMAnswerError) else super().leave(error)


def compiled(
    agent: Agent, options: Options, step: StepContext, examples: Sequence[Mapping[str, Any]], current: int
) -> dict[str, Any]:
    """A program that may be better than the current one, as it is kept, and what it was made with.

    Raises:
        TerminalError: when the budget is too small to come to one.
    """
    calls = _OptimizersCalls(step, agent, options.budget)
    with _working(agent, step, calls, options) as prepared:
        program = _program(agent, step, current, prepared)
        judge = metric_of(options.metric)
        train = [_example(agent, prepared, one) for one in examples]
        try:
            found = _SEARCHES[Optimizer(options.optimizer)](
                program, judge, train, options, calls, _teacher(agent, options)
            )
        except Exception as error:
            if calls.is_spent:
                raise TerminalError(
                    f'optimizer="{options.optimizer}" had come to nothing when its budget of {options.budget} calls '
                    f"was spent; give it more: budget={2 * (options.budget or 0)}"
                ) from without_words(error)
            raise
        return {"candidate": written(found, agent, prepared.adapter), "versions": _versions(options)}


def evaluated(
    agent: Agent,
    options: Options,
    step: StepContext,
    examples: Sequence[Mapping[str, Any]],
    current: int,
    candidate: Mapping[str, Any],
) -> dict[str, float]:
    """What the current program and a candidate come to, on the average."""
    calls = _OptimizersCalls(step, agent)
    with _working(agent, step, calls, options) as prepared:
        judge = metric_of(options.metric)
        held_out = [_example(agent, prepared, one) for one in examples]
        contenders = {
            "current": _program(agent, step, current, prepared),
            "candidate": made(agent, candidate, BUILT_IN, prepared.adapter),
        }
        scores = {}
        for name, program in contenders.items():
            reached = 0.0
            for number, example in enumerate(held_out):
                step.heartbeat({"measured": name, "examples": number, "of": len(held_out)})
                reached += _score(agent, program, judge, example)
            scores[name] = round(reached / len(held_out), 6)
        return scores


@contextmanager
def _working(agent: Agent, step: StepContext, calls: Calls, options: Options) -> Iterator[Prepared]:
    """Have what is done meanwhile be done as the agent does it, with the calls of this attempt.

    Raises:
        BaseException: what the attempt is to end with: time is over, the run is cancelled, the provider is away, ...
    """
    prepared = prepared_for(agent, step)
    spending = None
    if options.spend is not None:
        spending = Spending(step, agent.name, (Budget(**options.spend),), {"worker": agent.name})
    try:
        calls.open({**_versions(options), "adapter": type(prepared.adapter).__name__})
        with asked_by(agent, prepared, calls, [], spending):
            yield prepared
    except Leave as left:
        raise left.error from left.__cause__
    except Exception as error:
        told = in_our_words(error, agent.name, calls)
        if told is error:
            raise
        raise told from without_words(error)
    if calls.left is not None:
        raise calls.left  # something has swallowed it


def _versions(options: Options) -> dict[str, str]:
    found = {"dspy": dspy.__version__}
    for name in Optimizer(options.optimizer).packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _program(agent: Agent, step: StepContext, current: int, prepared: Prepared) -> Any:
    found = learned(agent, current, step.store_here(), prepared.adapter)  # what does not fit is not asked with either
    return (prepared.program if found is None else found).deepcopy()


def _teacher(agent: Agent, options: Options) -> Any:
    if options.model is None:
        return dspy.settings.lm
    return lm_of(replace(agent, model=options.model), None)


def _example(agent: Agent, prepared: Prepared, line: Mapping[str, Any]) -> dspy.Example:
    """An example as DSPy has it: inputs as the agent is asked with them, outputs of the types of its signature."""
    inputs = inputs_of(agent, prepared, line["inputs"])
    outputs = dict(line["outputs"])
    if prepared.question is not None:
        for name, field in prepared.question.output_fields.items():
            try:
                outputs[name] = TypeAdapter(field.annotation).validate_python(outputs[name])
            except (KeyError, ValidationError):
                continue  # it was made for another signature; the metric sees it as it is
    return dspy.Example(**{**outputs, **inputs}).with_inputs(*inputs)


def _score(agent: Agent, program: Any, judge: Metric, example: dspy.Example) -> float:
    try:
        prediction = called(program, dict(example.inputs()), agent)
    except Exception as error:
        if is_interrupted(error):
            raise
        # A program that cannot answer has answered wrongly. What is wrong may quote the answer, so nobody is told.
        logger.info("an example of worker %s scores nothing: %s", agent.name, type(error).__name__)
        return 0.0
    return judge(example, prediction).score


# --- the optimizers --------------------------------------------------------------------------------------------------


def _bootstrap(
    program: Any, judge: Metric, train: list[dspy.Example], _options: Options, _calls: _OptimizersCalls, teacher: Any
) -> Any:
    search = dspy.BootstrapFewShot(
        metric=lambda example, prediction, trace=None: judge(example, prediction, trace).score >= GOOD,
        teacher_settings={"lm": teacher},
        max_bootstrapped_demos=DEMOS,
        max_labeled_demos=ALL_DEMOS,
        max_errors=len(train) + 1,
    )
    return search.compile(program, trainset=train)


def _gepa(
    program: Any, judge: Metric, train: list[dspy.Example], options: Options, calls: _OptimizersCalls, teacher: Any
) -> Any:
    def metric(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
        found = judge(gold, pred, trace, pred_name, pred_trace)
        return dspy.Prediction(score=found.score, feedback=found.feedback or _feedback(gold, found))

    half = len(train) // 2
    search = dspy.GEPA(
        metric=metric,
        reflection_lm=teacher,
        num_threads=1,
        seed=options.seed,
        gepa_kwargs={"stop_callbacks": [calls.has_no_more_rounds]},
        **({"auto": "light"} if options.budget is None else {"max_metric_calls": options.budget}),
    )
    return search.compile(program, trainset=train[:half] or train, valset=train[half:])


def _feedback(gold: Any, found: Judged) -> str:
    expected = ", ".join(f"{name}={value!r}" for name, value in gold.labels().items())
    return f"This scored {found.score:g} of 1. Expected: {expected}"


def _mipro(
    program: Any, judge: Metric, train: list[dspy.Example], options: Options, _calls: _OptimizersCalls, teacher: Any
) -> Any:
    half = len(train) // 2
    learned, measured = train[:half] or train, train[half:]
    trials = TRIALS
    if options.budget is not None:
        # What is left when examples are answered and instructions proposed, for each round of measuring.
        left = options.budget - 2 * len(learned) - 2 * CANDIDATES
        trials = max(1, min(TRIALS, left // len(measured) - 1))
    search = dspy.MIPROv2(
        metric=lambda example, prediction, trace=None: judge(example, prediction, trace).score,
        prompt_model=teacher,
        task_model=dspy.settings.lm,
        teacher_settings={"lm": teacher},
        auto=None,
        num_candidates=CANDIDATES,
        num_threads=1,
        seed=options.seed,
        max_bootstrapped_demos=DEMOS,
        max_labeled_demos=ALL_DEMOS,
        track_stats=False,
    )
    return search.compile(program, trainset=learned, valset=measured, num_trials=trials, minibatch=False)


_SEARCHES: Mapping[Optimizer, Callable[..., Any]] = {
    Optimizer.BOOTSTRAP: _bootstrap,
    Optimizer.GEPA: _gepa,
    Optimizer.MIPRO: _mipro,
}
