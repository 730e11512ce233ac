"""Where code that a model has written runs: in a process of Monty's, without files and network.

Chance and clock in there are the step's, so that the code comes to the same when it runs again.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dspy.primitives.code_interpreter import CodeExecutionError
from dspy_monty_interpreter import MontyInterpreter

from multiagents.clock import to_ms
from multiagents.worker_sdk.execution import threads

if TYPE_CHECKING:
    from multiagents.agents.calls import Calls

#: Seconds that code may compute without a call of a tool. Code that never ends would keep a core, and where the pool
#: cannot stop it its slot as well, for as long as the worker lives.
LONGEST = 60.0
#: Bytes that code may have in use.
LARGEST = 256 * 1024 * 1024
#: What an error says behind it when a limit was reached: how much it was, which is never the same, and the limit.
_FIGURES = re.compile(r"(limit exceeded): [^;\n]*")
#: Seconds after the step's own time limit that it is ended at the latest: who can stop it sooner, does.
GRACE = 2.0


def sandbox_for(calls: Calls | None) -> Any:
    """What makes the sandbox of one attempt, for DSPy."""
    if calls is None:
        return _Factory()
    step = calls.step
    claim = step.claim
    scheduled = claim.state.step(claim.correlation.step).activity(claim.correlation.direction).scheduled_at
    moment = datetime.fromtimestamp((scheduled or to_ms(claim.now)) / 1000, UTC)
    seed = int.from_bytes(step.idempotency_key.encode()[-6:], "big")
    left = LONGEST if claim.deadline is None else (claim.deadline - claim.now).total_seconds() + GRACE
    return _Factory(min(left, LONGEST), {"datetime": moment, "random_start": {"seed": seed}})


class _Factory:
    """Makes sandboxes; the model is told what there is in one."""

    def __init__(self, seconds: float | None = None, os_policy: Any = None) -> None:
        limits = {"max_turn_duration_secs": LONGEST if seconds is None else seconds, "max_memory": LARGEST}
        self._options = {"resource_limits": limits, "os_policy": os_policy}
        self.execution_instructions = MontyInterpreter.execution_instructions

    def __call__(self) -> MontyInterpreter:
        return (_BesideGreenlets if threads.under_gevent() else _Sandbox)(**self._options)


class _Sandbox(MontyInterpreter):  # type: ignore[misc]  # DSPy is not read by the type checker
    """One whose errors read the same whenever the same code runs: the model is told of them, and so is a replay."""

    def execute(self, code: str, variables: dict[str, Any] | None = None) -> Any:
        try:
            return super().execute(code, variables)
        except CodeExecutionError as error:
            raise CodeExecutionError(_FIGURES.sub(r"\1", str(error))) from error


class _BesideGreenlets(_Sandbox):
    """One that does not hold up the hub, and all that goes on in this process, for as long as code runs."""

    def _ensure_session(self) -> Any:
        return _Session(super()._ensure_session())

    def shutdown(self) -> None:
        # Who was stopped at a limit has left code behind, and its session can be closed only when that has ended.
        threads.start_daemon(super().shutdown, "multiagents-sandbox")


class _Session:
    """A session whose code runs in a thread; tools are called where it was begun."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def feed_run(self, code: str, *, external_lookup: dict[str, Any], **options: Any) -> Any:
        from multiagents.worker_sdk.execution.gevent import Beside

        beside = Beside()
        here = {name: beside.here(function) for name, function in external_lookup.items()}
        return beside.run(lambda: self._session.feed_run(code, external_lookup=here, **options))

    def __exit__(self, *error: object) -> None:
        self._session.__exit__(*error)
