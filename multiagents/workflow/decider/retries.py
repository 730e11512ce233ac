"""What an attempt that did not succeed makes of its activity, and whether another one follows.

The rules:

1. A failed attempt is retried as its worker asks, else as its policy says, a lost one as often as the run allows (rule
   S1a); an outcome that the worker itself calls unknown is not. In a run that goes back no step is tried again, but
   undos and probes are.
2. The doubt of an attempt stays, whatever later ones say (rule S1b), until a probe has looked (rule S3).
3. The original error stays the cause: what an undo or a probe came to is attached to it (rule S19).
"""

from __future__ import annotations

from multiagents.clock import to_ms
from multiagents.events import ErrorEvent, ErrorInfo, ErrorKind
from multiagents.names import Direction
from multiagents.retry import UNDO_RETRY, RetryPolicy
from multiagents.workflow.definition import Definition, StepDefinition
from multiagents.workflow.state import ACTIVITY, Activity, RunState, RunStatus, Trigger

__all__ = ["attach", "failed"]

#: The statuses in which a step is tried again.
_TRYING = (RunStatus.RUNNING, RunStatus.PAUSED)


def failed(definition: Definition, state: RunState, activity: Activity, event: ErrorEvent) -> Activity:
    """The activity after an attempt that did not succeed, with the delay of the next one if there is to be one."""
    step = definition.steps[event.step or ""]
    # What does not stand behind the save-point that the run goes back to goes on.
    beside = bool(state.back_to) and step.name not in definition.behind(state.back_to)
    lost = event.kind is ErrorKind.LOST
    in_doubt = activity.in_doubt or event.kind not in (ErrorKind.FAILED, ErrorKind.NO_EFFECT)
    losses = activity.losses + lost
    failures = activity.failures + (not lost)
    undo = event.direction is Direction.UNDO
    retry_in: float | None = None
    error: ErrorInfo | None = event.error
    if activity.probing:
        in_doubt = event.kind is not ErrorKind.NO_EFFECT  # it has looked: the doubt about earlier attempts is over
    going_on = (*_TRYING, RunStatus.COMPENSATING) if activity.probing else _TRYING
    if not undo and state.status not in going_on and not beside:
        pass  # The run goes back: nothing is done again.
    elif lost:
        retry_in = 0.0 if losses < state.max_lost else None
    elif event.retryable and event.kind not in (ErrorKind.UNKNOWN, ErrorKind.NO_EFFECT):
        retry_in = event.retry_in
        if retry_in is None:
            retry_in = _policy(step, event, activity, undo=undo).delay(failures, seed=event.correlation_id)
    if retry_in is not None and not undo and not activity.probing and _closes_before(step, activity, event, retry_in):
        retry_in = None
    if activity.probing:
        # What brought the doubt stays the error of the step; what its probe came to is attached to it at its end.
        error = activity.error if retry_in is not None else attach(activity.error, event.error, f"probe of {step.name}")
    trigger = Trigger.DOUBT if in_doubt else Trigger.FAILURE
    if trigger is Trigger.FAILURE and activity.in_flight and step.on_failure == "continue" and not undo:
        trigger = Trigger.PASSED_OVER
    return activity._replace(
        status=ACTIVITY[activity.status, trigger],
        failures=failures,
        losses=losses,
        in_doubt=in_doubt,
        retry_in=retry_in,
        started_at=None if event.started_at is None else to_ms(event.started_at),
        finished_at=to_ms(event.at),
        worker=event.worker,
        error=error,
    )


def _closes_before(step: StepDefinition, activity: Activity, event: ErrorEvent, retry_in: float) -> bool:
    """Whether the time that all attempts may take together is over before the next one could begin."""
    if not step.schedule_to_close or activity.scheduled_at is None:
        return False
    return event.at.timestamp() + retry_in >= activity.scheduled_at / 1000 + step.schedule_to_close


def _policy(step: StepDefinition, event: ErrorEvent, activity: Activity, *, undo: bool) -> RetryPolicy:
    """The step's, else the worker's, else the default; a probe has its worker's."""
    if undo:
        return step.undo_retry or event.retry_policy or UNDO_RETRY
    if activity.probing:
        return event.retry_policy or RetryPolicy()
    return step.retry or event.retry_policy or RetryPolicy()


def attach(original: ErrorInfo | None, error: ErrorInfo, of: str) -> ErrorInfo:
    """Rule S19: the error of an undo, or of a probe, is attached to the original, and never replaces it."""
    attached = error.model_copy(update={"message": f"{of}: {error.message}"})
    if original is None:
        return attached
    return original.model_copy(update={"causes": (*original.causes, attached)})
