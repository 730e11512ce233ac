"""What says how good an answer is: a function by its import path, or a worker by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from math import isnan
from typing import Any, NamedTuple

from multiagents.exceptions import ConfigurationError
from multiagents.plain_json import plain
from multiagents.worker_sdk.execution import event_loop
from multiagents.worker_sdk.registry import Worker, workers

#: From here on an answer is good enough to be shown as an example of one.
GOOD = 0.5
#: How many arguments a metric takes that wants to know which predictor it judges, as GEPA's do.
_WITH_PREDICTOR = 5


class Judged(NamedTuple):
    """How good an answer is, from 0 to 1, and in words."""

    score: float
    feedback: str = ""


Metric = Callable[..., Judged]


def named(metric: Any) -> str:
    """What a metric is called, to be found again in another process.

    Raises:
        ConfigurationError: when it cannot be found.
    """
    if callable(metric) and not isinstance(metric, str) and not hasattr(metric, "worker"):
        path = f"{getattr(metric, '__module__', '')}:{getattr(metric, '__qualname__', '')}"
        if "<" in path or path.startswith("__main__"):
            raise ConfigurationError(
                f"metric {metric!r:.120} cannot be imported by the workers; put it into a module of theirs, and give "
                f'"package.module:function"'
            )
        name = path
    else:
        name = str(getattr(metric, "name", metric))
    metric_of(name)
    return name


def metric_of(name: str) -> Metric:
    """The metric of a name: ``package.module:function``, or a worker.

    Raises:
        ConfigurationError: when there is none.
    """
    if ":" not in name and name in workers:
        return _of_worker(workers[name])
    module, _, function = name.partition(":") if ":" in name else name.rpartition(".")[::1]
    try:
        found: Any = import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f'metric "{name}" was not found: {type(error).__name__}: {error}; expected "package.module:function", '
            f"called as metric(example, prediction, trace=None), or the name of a worker that is registered here "
            f"({', '.join(sorted(workers)) or 'none'})"
        ) from error
    if not callable(found):
        raise ConfigurationError(f'metric "{name}" is {found!r:.80}; expected a function')
    return _of_function(name, found)


def _of_function(name: str, function: Callable[..., Any]) -> Metric:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    takes_all = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    places = sum(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in parameters)

    def judge(example: Any, prediction: Any, trace: Any = None, *predictor: Any) -> Judged:
        given = (example, prediction, trace, *predictor)
        if not takes_all and places < _WITH_PREDICTOR:
            given = given[: max(2, places)]
        return judged(name, _awaited(name, function(*given)))

    return judge


def _of_worker(worker: Worker) -> Metric:
    """A worker's function is given ``example`` and ``prediction``, and answers with a ``score``.

    The latter is there as ``answer``, too: the signature of an agent cannot have a field called ``prediction``.
    """

    def judge(example: Any, prediction: Any, _trace: Any = None, *_predictor: Any) -> Judged:
        answer = plain(dict(prediction.items()), "a prediction")
        context = {"example": plain(dict(example.items()), "an example"), "prediction": answer, "answer": answer}
        positional, keywords = worker.signature.arguments(context)
        return judged(worker.name, _awaited(worker.name, worker.fn(*positional, **keywords)))

    return judge


def _awaited(name: str, answer: Any) -> Any:
    return event_loop.run(answer, worker=name) if inspect.isawaitable(answer) else answer


def judged(name: str, answer: Any) -> Judged:
    """What a metric has answered: a number, True or False, or ``score`` and ``feedback``.

    Raises:
        ConfigurationError: when it is none of these.

    >>> judged("exact", True), judged("close", {"score": 0.5, "feedback": "too long"})
    (Judged(score=1.0, feedback=''), Judged(score=0.5, feedback='too long'))
    """
    score, feedback = answer, ""
    if isinstance(answer, Mapping):
        score, feedback = answer.get("score"), answer.get("feedback") or ""
    elif hasattr(answer, "score"):
        score, feedback = answer.score, getattr(answer, "feedback", "") or ""
    if not isinstance(score, int | float) or isnan(score):
        raise ConfigurationError(
            f'metric "{name}" answered {answer!r:.120}; expected a number from 0 to 1, True or False, or a score with '
            f"feedback"
        )
    return Judged(float(score), str(feedback))
