"""What DSPy and providers raise, in words of ours: errors that say what to do, and survive a process border."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspy import lm15
from dspy.utils import exceptions as dspy_errors

from multiagents.exceptions import (
    ContextOverflowError,
    LMAnswerError,
    LMNotConfiguredError,
    LMUnavailableError,
    MultiAgentsError,
    NoAnswerError,
)

if TYPE_CHECKING:
    from multiagents.agents.calls import Calls

#: Characters of a foreign message that are told.
_SHOWN = 500

#: Transport errors, which may be gone the next time.
PASSING = (lm15.RateLimitError, lm15.TimeoutError, lm15.ServerError, lm15.TransportError, lm15.LockTimeoutError)


def in_our_words(error: Exception, worker: str, calls: Calls | None) -> Exception:
    """An error of DSPy's as one of ours; any other as it is.

    What is wrong with a model's answer closes that answer in the journal, so that it is asked for anew.
    """
    if isinstance(error, MultiAgentsError):
        return error
    told = f'worker "{worker}": '
    if isinstance(error, dspy_errors.AdapterParseError):
        if calls is not None:
            calls.refuse_answer(error.lm_response, type(error).__name__)
        if not (error.lm_response or "").strip():
            return NoAnswerError(f"{told}the model's answer is empty")
        wanted = ", ".join(error.signature.output_fields)
        found = ", ".join(error.parsed_result or ()) or "none of them"
        return LMAnswerError(
            f"{told}the model's answer does not have the form that was asked for: expected the fields {wanted}, found "
            f"{found}; see run.calls()"
        )
    if isinstance(error, dspy_errors.ContextWindowExceededError):
        return ContextOverflowError(f"{told}the question is longer than the model can read: {_short(error)}")
    if isinstance(error, dspy_errors.LMConfigurationError | dspy_errors.LMAuthError):
        return LMNotConfiguredError(f"{told}the model cannot be asked: {_short(error)}")
    if isinstance(error, dspy_errors.LMError):
        return LMUnavailableError(f"{told}the model was not answered: {type(error).__name__}: {_short(error)}")
    return error


def without_words(error: Exception) -> Exception | None:
    """An error as the cause of another one, which is logged and kept; None for one that quotes an answer."""
    return None if isinstance(error, dspy_errors.AdapterParseError) else error


def not_configured(error: lm15.NotConfiguredError, worker: str, model: str) -> LMNotConfiguredError:
    """There is no key for a model: which variables would have one."""
    names = " or ".join(getattr(error, "env_keys", ()) or ())
    where = f"set {names} in the environment of the workers" if names else _short(error)
    return LMNotConfiguredError(
        f'worker "{worker}": there is no key for the model {model}, and nothing was asked; {where}, or give '
        f"dspy.LM(..., api_key=...) to dspy.configure()"
    )


def unavailable(error: Exception, worker: str, model: str, tries: int) -> LMUnavailableError:
    """A model's provider does not answer."""
    return LMUnavailableError(
        f'worker "{worker}": the model {model} was asked {tries} time{"s" if tries > 1 else ""} and does not answer: '
        f"{type(error).__name__}: {_short(error)}; lm_retry= says how often it is asked, and a list as model= what is "
        f"asked in its place"
    )


def _short(error: BaseException) -> str:
    text = str(getattr(error, "message", None) or error).partition("\n\n")[0]
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
