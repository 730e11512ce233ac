"""The call of a tool that is to be undone, as the step of the run that it is (rule S36)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from multiagents.clock import from_ms
from multiagents.events import ErrorEvent, ErrorInfo, ErrorKind, ResultEvent
from multiagents.exceptions import TerminalError
from multiagents.state_store.records import Begun, CallOutcome, CallUndo, CallVerdict
from multiagents.workflow.decider import call_after
from multiagents.workflow.definition import call_name

if TYPE_CHECKING:
    from multiagents.agents.tools import ToolOptions
    from multiagents.names import Correlation
    from multiagents.worker_sdk.attempt import StepContext

__all__ = ["key_of", "outcome_of", "undo_of"]


def undo_of(step: StepContext, options: ToolOptions, arguments: Any) -> CallUndo | None:
    """What undoes a call of a tool; None where nothing does, as of what is called in an undo.

    Raises:
        TerminalError: when its name is that of another step.
    """
    if options.compensation is None or step.direction != "do":
        return None
    name = f"{step.step}.{options.name}"
    if name in step.claim.definition.steps:
        raise TerminalError(
            f'a call of tool "{options.name}" would be step {name}[0] of the run, to be undone, and the workflow has a '
            f'step "{name}"; rename one'
        )
    return CallUndo(options.compensation, arguments)


def key_of(step: StepContext, options: ToolOptions, begun: Begun) -> str:
    """The idempotency key of a call: that of the step that it is, or would be if it were to be undone."""
    own = step.idempotency_key
    if not begun.nth:  # begun by an earlier release
        return f"{own}/{begun.slot}"
    # In an undo the step has the same key: calls of its agent must not have those of the step's.
    return call_name(own if step.direction == "do" else f"{own}/undo", options.name, begun.nth - 1)


def outcome_of(
    step: StepContext, options: ToolOptions, begun: Begun, answer: Mapping[str, Any], *, in_doubt: bool
) -> CallOutcome | None:
    """What a call has come to, as that of any step; None of a call that is none.

    Args:
        step: the attempt that has made it.
        options: the tool.
        begun: the call.
        answer: ``result``, or ``error`` in words.
        in_doubt: it may have taken effect, whatever the answer is.
    """
    if begun.state is None:
        return None
    call = step.claim.correlation._replace(step=call_name(step.step, options.name, begun.nth - 1), attempt=1)
    # What an earlier attempt had begun may have taken effect, if this one has not (rule S1b).
    doubt = in_doubt or begun.verdict is CallVerdict.AGAIN
    began = begun.state.do.scheduled_at
    times = {"at": step.store_here().now(), "started_at": None if began is None else from_ms(began)}
    event = _ended(call, answer, doubt=doubt, **times)
    return CallOutcome(event, call_after(step.claim.definition, begun.state, event))


def _ended(call: Correlation, answer: Mapping[str, Any], *, doubt: bool, **times: Any) -> ResultEvent | ErrorEvent:
    if "error" not in answer:
        return ResultEvent.about(call, answer["result"], **times)
    name, _, message = str(answer["error"]).partition(": ")
    kind = ErrorKind.UNKNOWN if doubt else ErrorKind.FAILED
    return ErrorEvent.about(call, ErrorInfo(type=name, message=message or name), kind=kind, retryable=False, **times)
