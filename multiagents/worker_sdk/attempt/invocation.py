"""Run one attempt of a step: claim it, call the worker, hand on what came of it.

1. Nothing is called without a claim: a message that came twice, or too late, is refused by the store.
2. Every outcome is handed on, also one that cannot be recorded as it is (rule S27), and only then does the attempt end.
3. Whatever the worker itself raises is its outcome, `MemoryError` and ``sys.exit()`` among it, and what Celery is told
   of it ends no process.
4. What was put in from outside (a worker that shuts down, a killed greenlet, Ctrl-C) is none: the attempt is given up
   at once, and what was put in goes on its way.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from multiagents.clock import to_ms
from multiagents.events import ErrorEvent, ErrorInfo, ErrorKind, ResultEvent
from multiagents.exceptions import (
    ConfigurationError,
    DecodeError,
    OutcomeUnknownError,
    StateConflictError,
    StateStoreError,
    TerminalError,
    WorkerError,
)
from multiagents.interruption import causes_of, child_is_ending, is_interrupted
from multiagents.names import Correlation, Direction
from multiagents.state_store import pause_ms
from multiagents.state_store.records import ClaimRefused
from multiagents.worker_sdk.attempt import rate_limits
from multiagents.worker_sdk.attempt.asked import GivenBack, RetryAsked, TaskFailed
from multiagents.worker_sdk.attempt.failure import as_told_to_celery, classify, describe, is_its_word, is_time_out
from multiagents.worker_sdk.attempt.give_back import give_back
from multiagents.worker_sdk.attempt.in_hand import Tokens
from multiagents.worker_sdk.attempt.leases import Lease, Leases
from multiagents.worker_sdk.attempt.runtime import WorkerRuntime
from multiagents.worker_sdk.attempt.step_context import StepContext, running
from multiagents.worker_sdk.execution import event_loop, threads, timeouts
from multiagents.worker_sdk.registry import Worker, workers
from multiagents.workflow.decider import resolved

if TYPE_CHECKING:
    from multiagents.retry import RetryPolicy
    from multiagents.state_store import StateStore
    from multiagents.state_store.records import Claim, Settled

logger = logging.getLogger(__name__)

#: What a message of the engine carries as keyword arguments.
MESSAGE_KEYS = frozenset({"transaction_id", "step", "direction", "attempt", "definition", "nonce"})

#: Seconds for which one task goes on with local steps; then the next is sent, so that others have their turn, too.
LOCAL_FOR = 5.0
_DIRECTIONS = {direction.value: direction for direction in Direction}


class Invocation:
    """Run attempts in this process, with what was handed down to it."""

    def __init__(self, runtime: WorkerRuntime) -> None:
        self._runtime = runtime
        self._home = threads.ident()
        self._stores: dict[int, StateStore] = {}
        self._leases = Leases(self._store_here, runtime.settings.lease)
        self._tokens = Tokens()

    def run(self, worker: Worker, kwargs: Mapping[str, Any], *, hostname: str, pool: str) -> Any:
        """Run one attempt and hand on what came of it.

        Args:
            worker: what to call.
            kwargs: the message's ids: ``transaction_id, step, direction, attempt, definition, nonce``.
            hostname: the Celery node that runs it.
            pool: how functions are stopped here, as `timeouts.pool_of_caller` says.

        Local steps that follow are run, too, one after the other, for a few seconds; what they come to is theirs alone.

        Returns:
            what is to be linked to this task.

        Raises:
            ClaimRefused: when the attempt is not to be run, or not yet; nothing was called.
            StateStoreError: when the store did not answer the claim; nothing was called.
            DecodeError: when what is stored of the run cannot be read; nothing was called, and that was handed on.
            TaskFailed: as the next, where Celery has already told of it.
            Exception: what the worker raised, after it was handed on.
        """
        claim = self._claim(worker, _correlation(kwargs), kwargs["definition"], hostname)
        settled, failure = self._run_claimed(worker, claim, hostname, pool, may_go_on=True)
        until = time.monotonic() + LOCAL_FOR
        while (local := settled.local) is not None:
            name = local.definition.steps[local.correlation.step].worker
            try:
                may_go_on = time.monotonic() < until
                settled, _ = self._run_claimed(workers[name], local, hostname, pool, may_go_on=may_go_on)
            except ClaimRefused as refused:  # it was given back, because a limit is reached
                logger.info("%s", refused)
                break
        if failure is None:
            return settled.links
        try:
            raise failure
        finally:
            del failure  # else its traceback and this frame keep each other

    def _claim(self, worker: Worker, correlation: Correlation, definition_hash: str, hostname: str) -> Claim:
        store, timeout = self._runtime.store, worker.step_timeout
        owner = self._tokens.next()
        try:
            return store.claim(
                correlation,
                definition_hash,
                owner=owner,
                worker=hostname,
                timeout=self._at_most(worker, (self._runtime.settings.step_timeout if timeout is None else timeout))
                or None,
                heartbeat_timeout=worker.heartbeat_timeout,
                task=worker.name,
            )
        except (ClaimRefused, StateStoreError, ConfigurationError):
            raise
        except BaseException as error:
            if is_interrupted(error):
                raise
            # It would be the same at the next attempt, and for ever: what is stored cannot be read (rule S27).
            self._runtime.unclaimable(_unreadable(correlation, error, at=store.now(), hostname=hostname), owner)
            if (told := as_told_to_celery(worker.name, error)) is error:
                raise
            raise told from error

    def _run_claimed(
        self, worker: Worker, claim: Claim, hostname: str, pool: str, *, may_go_on: bool
    ) -> tuple[Settled, Exception | None]:
        seconds = 0.0 if claim.deadline is None else max((claim.deadline - claim.now).total_seconds(), 0.001)
        seconds = self._at_most(worker, seconds)
        lease = self._leases.add(claim.correlation, claim.owner, cancelled=claim.cancelled, seconds=seconds)
        try:
            event, failure = self._outcome(worker, claim, lease, seconds, hostname, pool)
            try:
                settled = self._runtime.settle(event, claim, may_go_on=may_go_on)
            except (StateStoreError, StateConflictError, ConfigurationError):
                raise
            except BaseException as error:
                if is_interrupted(error):
                    raise
                settled, failure = self._unwritten(worker, claim, event, error, hostname)
        except ClaimRefused:  # it was given back
            _free(lease)
            raise
        finally:
            self._leases.remove(lease)
        if lease.slot is not None or lease.calls:
            _free(lease)
        return settled, failure

    def _at_most(self, worker: Worker, seconds: float) -> float:
        """A time limit, 0 for none, where Celery has been told one, too: the shorter holds."""
        return min(filter(None, (seconds, worker.time_limit, self._runtime.time_limit)), default=0.0)

    def _outcome(
        self, worker: Worker, claim: Claim, lease: Lease, seconds: float, hostname: str, pool: str
    ) -> tuple[ResultEvent | ErrorEvent, Exception | None]:
        runtime = self._runtime
        step = StepContext(claim, lease, self._store_here, runtime.settings, runtime.came_late, limited=runtime.limited)
        token = running.set(step)
        try:
            if claim.deadline is not None and claim.deadline <= claim.now:
                raise self._too_late(worker, claim)  # noqa: TRY301 - an outcome like those of the call below
            if self._runtime.limited and (limit := rate_limits.limit_in_force(worker, claim)) is not None:
                lease.slot = rate_limits.take(self._runtime.store, limit, claim)
            signature = worker.signature
            positional, keywords = signature.arguments(claim.context)
            try:
                returned = _call(worker, positional, keywords, seconds, pool)
            finally:
                if step.said is not None:
                    step.said.write()  # Before the outcome, behind which nobody holds the attempt.
            payload = signature.result(returned, self._runtime.settings.max_payload_bytes)
            event = ResultEvent.about(
                claim.correlation,
                payload,
                at=self._runtime.store.now(),
                worker=hostname,
                started_at=claim.now,
                attributes=step.attributes,
                lesson=step.lesson,
                usage=step.usage,
            )
            return (resolved(event, worker.name) if claim.probing else event), None
        except ClaimRefused:
            raise  # It has been given back, because a limit is reached.
        except GivenBack as given:
            return self._given_back(worker, claim, given, hostname)
        except RetryAsked as asked:
            failed = self._failed(worker, claim, asked.error, hostname, step)
            may_come = failed.retryable and asked.seconds is not None
            asks = {"retryable": may_come, "retry_in": asked.seconds if may_come else None}
            return failed.model_copy(update=asks), asked
        except BaseException as raised:
            error = raised.error if isinstance(raised, TaskFailed) else raised
            if not (is_its_word(error) or is_time_out(error)) and is_interrupted(error):
                self._stopped(claim, error, hostname)
                raise
            failure = raised if isinstance(raised, TaskFailed) else as_told_to_celery(worker.name, error)
            if type(error) is SystemExit:
                failure = WorkerError(
                    f'worker "{worker.name}" called sys.exit({error.code!r}); that would end the worker process: '
                    f"return or raise an error instead"
                )
                failure.__cause__ = error
                error = failure
            return self._failed(worker, claim, error, hostname, step), failure
        finally:
            running.reset(token)

    def _too_late(self, worker: Worker, claim: Claim) -> Exception:
        snapshot = self._runtime.store.load(claim.correlation.transaction_id)
        found = snapshot.attempt(claim.correlation)
        if found is None or not snapshot.is_begun(found):
            return timeouts.TooLateError(worker.name)
        return OutcomeUnknownError("it was given back half-way, and its step's time was over before it came again")

    def _failed(
        self, worker: Worker, claim: Claim, error: BaseException, hostname: str, step: StepContext | None
    ) -> ErrorEvent:
        kind, retryable = classify(error, _policy_in_force(worker, claim))
        return ErrorEvent.about(
            claim.correlation,
            describe(error, claim.correlation.attempt),
            at=self._runtime.store.now(),
            kind=kind,
            retryable=retryable,
            retry_policy=worker.retry_policy,
            worker=hostname,
            started_at=claim.now,
            attributes=None if step is None else step.attributes,
            lesson=None if step is None else step.lesson,
            usage=None if step is None else step.usage,
        )

    def _given_back(
        self, worker: Worker, claim: Claim, given: GivenBack, hostname: str
    ) -> tuple[ErrorEvent, Exception]:
        """Give the attempt back, for it was none; in a run that goes back it has failed."""
        now, activity = self._runtime.store.now(), claim.state.step(claim.correlation.step)
        scheduled = activity.activity(claim.correlation.direction).scheduled_at or to_ms(now)
        delay = pause_ms(to_ms(now) - scheduled) if given.seconds is None else round(given.seconds * 1000)
        try:
            give_back(self._runtime.store, claim, delay, str(given), target=given.target, begun=given.begun)
        except (TerminalError, OutcomeUnknownError) as error:
            return self._failed(worker, claim, error, hostname, None), error
        raise ClaimRefused(claim.correlation, f"{given}; it comes again in {delay / 1000:g} s") from given

    def _unwritten(
        self, worker: Worker, claim: Claim, event: ResultEvent | ErrorEvent, error: BaseException, hostname: str
    ) -> tuple[Settled, Exception]:
        """What came of an attempt cannot be written as it is: that is its outcome, and nobody knows more (rule S27)."""
        told = describe(error, claim.correlation.attempt)
        what = "returned a result" if isinstance(event, ResultEvent) else "raised an error"
        message = f'worker "{worker.name}" ran, and {what} that could not be recorded: {told.type}: {told.message}'
        ended = ErrorEvent.about(
            claim.correlation,
            told.model_copy(update={"message": message}),
            at=self._runtime.store.now(),
            kind=ErrorKind.UNKNOWN,
            retryable=False,
            worker=hostname,
            started_at=claim.now,
        )
        return self._runtime.settle(ended, claim, may_go_on=False), as_told_to_celery(worker.name, error)

    def _stopped(self, claim: Claim, error: BaseException, hostname: str) -> None:
        """Give up an attempt that was broken off, so that it need not wait for its lease to run out."""
        if child_is_ending():
            return  # Its parent knows why, and says so.
        killed = any(type(cause).__name__ == "GreenletExit" for cause in causes_of(error))
        why = "it was terminated while it ran" if killed else f"its worker {hostname} was told to stop while it ran"
        lost = ErrorEvent.about(
            claim.correlation,
            ErrorInfo(
                type="TaskRevokedError" if killed else "WorkerLost",
                message=f"step {claim.correlation.step!r}: {why}",
                attempt=claim.correlation.attempt,
            ),
            at=self._runtime.store.now(),
            kind=ErrorKind.TIMEOUT if killed else ErrorKind.LOST,
            worker=hostname,
            started_at=claim.now,
        )
        try:
            self._runtime.settle(lost, claim, may_go_on=False)
        except Exception:
            logger.warning("%s is left to the sweep", claim.correlation, exc_info=True)

    def _store_here(self) -> StateStore:
        """The store that the calling thread may use."""
        here = threads.ident()
        if here == self._home or not threads.under_gevent():
            return self._runtime.store
        store = self._stores.get(here)
        if store is None:
            store = self._stores[here] = self._runtime.new_store()
        return store


def call_outside_run(worker: Worker, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a worker outside a run, as a Celery task like any other.

    A typed worker that is given one mapping takes its arguments from it, as it does in a run.
    """
    signature = worker.signature
    positional: list[Any] = list(args)
    if not signature.takes_context and len(args) == 1 and not kwargs and isinstance(args[0], Mapping):
        positional, kwargs = signature.arguments(args[0])
    returned = worker.fn(*positional, **kwargs)
    if inspect.isawaitable(returned):
        returned = event_loop.run(returned, worker=worker.name)
    return signature.dumped(returned)


def _free(lease: Lease) -> None:
    """Give back what an attempt that is over has under limits, and calls of it that were broken off."""
    for slot in (lease.slot, *(lease.calls or ())):
        if slot is not None:
            slot.free()


def _call(worker: Worker, positional: list[Any], keywords: dict[str, Any], seconds: float, pool: str) -> Any:
    if worker.is_async:
        return event_loop.run(worker.fn(*positional, **keywords), seconds=seconds, worker=worker.name)
    function = partial(worker.fn, *positional, **keywords)
    returned = timeouts.call(function, worker=worker.name, seconds=seconds, pool=pool)
    if type(returned) is not dict and inspect.isawaitable(returned):
        # An async function in the clothes of an ordinary one: decorated, or a lambda.
        return event_loop.run(returned, seconds=seconds, worker=worker.name)
    return returned


def _correlation(kwargs: Mapping[str, Any]) -> Correlation:
    try:
        return Correlation(
            kwargs["transaction_id"],
            kwargs["step"],
            _DIRECTIONS[kwargs["direction"]],
            int(kwargs["attempt"]),
            kwargs["nonce"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DecodeError(
            f"a message of a step was not understood ({type(error).__name__}: {error}): expected the keywords "
            f"{', '.join(sorted(MESSAGE_KEYS))}, got {dict(kwargs)!r}; something else sent it, or a newer release"
        ) from None


def _unreadable(correlation: Correlation, error: BaseException, *, at: datetime, hostname: str) -> ErrorEvent:
    told = describe(error, correlation.attempt)
    message = f"step {correlation.step!r} was not run, because what is stored of it cannot be read: {told.message}"
    shown = told.model_copy(update={"message": message})
    return ErrorEvent.about(correlation, shown, at=at, retryable=False, worker=hostname)


def _policy_in_force(worker: Worker, claim: Claim) -> RetryPolicy | None:
    if claim.probing:
        return worker.retry_policy
    step = claim.definition.own(claim.correlation.step)
    own = step.undo_retry if claim.correlation.direction is Direction.UNDO else step.retry
    return own or worker.retry_policy
