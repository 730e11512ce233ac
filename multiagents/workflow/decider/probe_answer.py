"""What a probe answers, and what that says of its step (rule S3).

*succeeded* counts as the success of the step, *failed* as a definite failure, whatever the attempts before left in
doubt. All else, *unknown* or a probe that is given up, leaves the step to a person, as ``on_unknown="park"`` does. When
a probe is asked is in `multiagents.workflow.decider.unknown_outcomes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict, cast

from multiagents.events import ErrorEvent, ErrorInfo, ErrorKind, ResultEvent
from multiagents.exceptions import ResolutionError

__all__ = ["OUTCOMES", "Resolution", "resolved"]

#: What a probe may answer.
OUTCOMES = ("succeeded", "failed", "unknown")


class Resolution(TypedDict):
    """What a probe answers: whether the step took effect.

    ``succeeded`` makes ``result`` the result of the step, as if its worker had returned it (left out: None).
    ``failed`` says that it did not take effect, and will not. ``unknown`` leaves the step to a person at once; a probe
    that wants to be asked again later raises an error, and is asked again as its retry policy says.

    >>> charged: Resolution = {"outcome": "succeeded", "result": {"charge_id": "ch_1"}}
    >>> not_charged: Resolution = {"outcome": "failed", "reason": "the provider has no charge with this key"}
    """

    outcome: Literal["succeeded", "failed", "unknown"]
    #: with ``succeeded``: what the step's worker would have returned
    result: NotRequired[Any]
    #: a line for people, kept with the error of the step
    reason: NotRequired[str]


def resolved(event: ResultEvent, probe: str) -> ResultEvent | ErrorEvent:
    """What a probe's answer says of the step, as the outcome of the attempt.

    Args:
        event: the probe's result; its payload is a `Resolution`.
        probe: the probe's name.

    Raises:
        ResolutionError: when the answer is something else.
    """
    answer = _checked(event.payload, event.step or "", probe)
    if answer["outcome"] == "succeeded":
        return event.model_copy(update={"payload": answer.get("result")})
    failed = answer["outcome"] == "failed"
    found = "found that it did not take effect" if failed else "cannot tell whether it took effect"
    reason = f": {answer['reason']}" if answer.get("reason") else ""
    facts = {name: value for name, value in event if name not in ("type", "payload", "digest")}
    return ErrorEvent(
        **facts,
        kind=ErrorKind.NO_EFFECT if failed else ErrorKind.UNKNOWN,
        retryable=False,
        error=ErrorInfo(
            type="NoEffect" if failed else "OutcomeUnknown",
            message=f"step {event.step!r}: its probe {probe!r} {found}{reason}",
            attempt=event.attempt,
        ),
    )


def _checked(answer: Any, step: str, probe: str) -> Resolution:
    if not isinstance(answer, Mapping):
        raise ResolutionError(probe, step, f"a {type(answer).__name__}")
    outcome = answer.get("outcome")
    if outcome not in OUTCOMES:
        # Keys only: values may be secret. An outcome is meant to be one of three words.
        shown = repr(outcome)[:40] if "outcome" in answer else f"only {', '.join(map(str, answer)) or 'nothing'}"
        raise ResolutionError(probe, step, f"outcome {shown}" if "outcome" in answer else f"no outcome, {shown}")
    unknown = [str(key) for key in answer if key not in Resolution.__annotations__]
    if unknown:
        raise ResolutionError(probe, step, f"{', '.join(unknown)} beside the outcome {outcome!r}")
    if "result" in answer and outcome != "succeeded":
        raise ResolutionError(probe, step, f"a result with the outcome {outcome!r}")
    if not isinstance(answer.get("reason", ""), str):
        raise ResolutionError(probe, step, f"a reason that is a {type(answer['reason']).__name__}")
    return cast("Resolution", answer)
