"""One run, as its users hold it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, Literal, Self
from uuid import uuid4

from multiagents.clock import Duration, in_seconds
from multiagents.events import ErrorInfo, Event
from multiagents.exceptions import WorkflowError, WorkflowFailedError
from multiagents.names import Direction, check_transaction_id
from multiagents.orchestrator.api.aside import aside
from multiagents.orchestrator.api.delete import delete
from multiagents.orchestrator.api.feedback import feedback, supplied
from multiagents.orchestrator.api.following import Following
from multiagents.orchestrator.api.search import set_attributes
from multiagents.orchestrator.api.streaming import entries_of, known_of
from multiagents.orchestrator.api.views import WorkflowState, context_of, workflow_state
from multiagents.orchestrator.api.waiting import waiting_for, with_arguments
from multiagents.orchestrator.api.watching import events_of, place
from multiagents.orchestrator.dispatch.celery import assert_may_wait
from multiagents.orchestrator.engine import SignalOutcome
from multiagents.orchestrator.runtime import Runtime
from multiagents.plain_json import plain
from multiagents.state_store.base import still_running
from multiagents.state_store.records import CallRecord, StreamEntry
from multiagents.workflow.decider import Fact, settleable
from multiagents.workflow.definition import StepKind
from multiagents.workflow.state import Cause, RunStatus


class Run:
    """A handle on a run; making one asks nothing of the store.

    What is told to a run is durable when the method returns; ``reason`` and ``actor`` are for the history.

    Args:
        runtime: what all runs have in common.
        transaction_id: the run's id.
        nonce: which of those that have had the id an operator means; another one takes nothing in (rule S32). None is
            the one that has it.

    Attributes:
        transaction_id: the run's id.
    """

    def __init__(self, runtime: Runtime, transaction_id: str, nonce: str | None = None) -> None:
        self._runtime = runtime
        self.transaction_id = transaction_id
        self._nonce = nonce

    # --- looking at it -----------------------------------------------------------------------------------------------

    @property
    def status(self) -> RunStatus:
        """Where the run stands now.

        Raises:
            WorkflowNotFoundError: when there is no such run.
        """
        return self._runtime.store.status(self.transaction_id)

    def describe(self) -> WorkflowState:
        """The run as it stands: its status, data and steps.

        Raises:
            WorkflowNotFoundError: when there is no such run.
        """
        store = self._runtime.store
        snapshot = store.load(self.transaction_id)
        waiting = with_arguments(store, self.transaction_id, waiting_for(snapshot, self._runtime.dispatcher))
        usage = store.journal.usage(self.transaction_id, list(snapshot.definition.steps))
        return workflow_state(snapshot, store.payloads(self.transaction_id), waiting, usage)

    def history(self) -> list[Event]:
        """Every event of the run, oldest first."""
        return self._runtime.store.history(self.transaction_id)

    def calls(self, step: str | None = None) -> list[CallRecord]:
        """What the run's agents have asked their models and tools, and what they were answered, as it may be shown.

        Args:
            step: of this step alone.

        Returns:
            the calls in the order in which they were begun, with those that are not used any more.

        Raises:
            DecodeError: when one of them cannot be read here.
        """
        return self._runtime.store.journal.calls(self.transaction_id, step)

    def watch(self, after: str | int | None = None, *, poll: float = 0.2) -> Following[Event]:
        """Follow the run's events to the end; while nothing happens, it takes no connection.

        What it gives is for ``for`` and for ``async for``. Its ``offset`` is how far it has come: who comes back, in
        this process or another, gives it as ``after=``, and gets each event once.

        What the heartbeats of a step say (``current_step().heartbeat(detail)``) comes in between, looked at once a
        second while a worker has it: a `StatusEvent` of the step, with the status ``heartbeat`` and the detail as its
        payload. The history does not keep it.

        Args:
            after: how many events are known, from the first; None: none.
            poll: seconds between two looks while nothing happens; if many are watched in one process, they come later.

        Raises:
            WorkflowError: when ``after`` is no place in its history.
        """
        store = self._runtime.store
        return Following(lambda offset: events_of(store, self.transaction_id, place(offset), poll), str(place(after)))

    def stream(self, step: str | None = None, after: str | None = None) -> Following[StreamEntry]:
        """Follow what the run's steps say while they run, to its end: items of workers, tokens of agents.

        What it gives is for ``for`` and for ``async for``; while nothing happens, it takes no connection. Each entry
        has an ``offset``; who comes back, in this process or another, gives the last as ``after=``, and gets each entry
        once. Where entries are not kept any more (``multiagents_stream_length``), one of kind ``gap`` says so.

        An entry of kind ``attempt`` says that a step begins again: what it has said before that is void.

        Args:
            step: of this step alone, with its items where it is a map, and its rounds where it is a loop.
            after: the offset of the last entry that is known; None: from the beginning.

        Raises:
            WorkflowError: when ``after`` is no offset. What follows comes while it is followed:
            WorkflowNotFoundError: there is no such run, or no more.
            UnknownStepError: it has no such step.

        >>> for entry in run.stream():  # doctest: +SKIP
        ...     print(entry.step, entry.data)
        """
        known_of(after)  # else the caller would learn only later that it is none
        store = self._runtime.store
        return Following(lambda offset: entries_of(store, self.transaction_id, step, known_of(offset)), after)

    def result(self, timeout: Duration | None = None) -> dict[str, Any]:
        """Wait for the end and return the final context.

        Args:
            timeout: seconds to wait at most, or a timedelta; None waits as long as it takes.

        Raises:
            WorkflowFailedError: when the run ended otherwise than as completed; it names the steps whose effects are
                live all the same.
            TimeoutError: when it has not ended in time; it goes on.
            RuntimeError: when called inside a worker's task, as Celery's ``get()`` does: it would hold up a worker.
        """
        assert_may_wait()
        return self._outcome(self._runtime.store.wait_for_end(self.transaction_id, in_seconds(timeout)))

    def _outcome(self, status: RunStatus) -> dict[str, Any]:
        """What the run has come to, now that it is over."""
        if status is not RunStatus.COMPLETED:
            seen = self.describe()
            raise WorkflowFailedError(
                self.transaction_id,
                seen.status.value,
                seen.error,
                {name: step.status.value for name, step in seen.steps.items()},
                seen.live,
                seen.failed_step,
            )
        store = self._runtime.store
        return context_of(store.load(self.transaction_id), store.payloads(self.transaction_id))

    async def wait(self, timeout: Duration | None = None) -> dict[str, Any]:  # noqa: ASYNC109 - as `result` has it
        """Do as `result`, without holding up the event loop; while it waits, it takes no thread and no connection.

        Nor does it wait for a thread of the loop's executor, which may be full of other work.
        """
        assert_may_wait()
        limit: float | None = in_seconds(timeout)
        if limit is not None and limit <= 0:  # one look, and no waiting
            return await aside(partial(self.result, limit))
        ending = self._runtime.store.ending(self.transaction_id)
        try:
            async with asyncio.timeout(limit):
                status = await asyncio.wrap_future(ending)
        except TimeoutError:
            raise still_running(self.transaction_id, ending.seen, limit) from None
        finally:
            ending.cancel()
        return await aside(partial(self._outcome, status))

    # --- telling it what to do ---------------------------------------------------------------------------------------

    def cancel(self, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """Stop the run, undo what it did, and end it as cancelled (rule S20).

        Durable when this returns, and safe to repeat. What is in flight settles first; during compensation it is
        recorded and changes nothing; after the end it does nothing.

        A run that is ``paused``, because nobody knows whether a step with ``on_unknown="park"`` took effect, is told by
        it to undo that step, too: look at the other side first. A cancel that came before the pause says nothing of it.

        Args:
            reason: why, for the history.
            actor: who, for the history.

        Returns:
            the status the run has now, mostly ``compensating``.

        Raises:
            WorkflowNotFoundError: when there is no such run.
        """
        return self._runtime.engine.interventions.cancel(self.transaction_id, reason=reason, actor=actor)

    def signal(
        self,
        name: str,
        data: Any = None,
        *,
        key: str | None = None,
        reason: str | None = None,
        actor: str | None = None,
    ) -> SignalOutcome:
        """Give the run a signal that a step of it waits for, will wait for, or has waited for.

        Durable when this returns. A step that waits takes it at once; otherwise it is kept for the first that will.

        Args:
            name: the signal's name, as ``add_wait`` or ``add_approval`` has it.
            data: what the waiting step's result is to be; anything that can be written as JSON. To an approval it says
                ``{"approved": True}`` or ``{"approved": False}``, with whatever else.
            key: names this very signal among those of its name: given twice with one key, it counts once. None makes
                one up.
            reason: why, for the history.
            actor: who, for the history.

        Returns:
            ``received``; ``kept`` for a step that will wait; ``late``: the run goes back or is over, or no step waits
            for it any more; ``already_decided``: the approval was given or refused before; ``repeated``: this name and
            key were there. What is late or already decided is in the history, with its data and why, and changes
            nothing.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            UnknownSignalError: when no step of its workflow waits for such a signal.
            WorkflowError: when the data does not fit the step's schema, cannot be written as JSON, or says neither yes
                nor no to an approval; the run waits on. Also when other data was given under this key before.

        >>> run.signal("approval", {"approved": True}, actor="ann")  # doctest: +SKIP
        <SignalOutcome.RECEIVED: 'received'>
        """
        return self._runtime.engine.interventions.signal(
            self.transaction_id, name, data, key=key or uuid4().hex, reason=reason, actor=actor
        )

    def pause(
        self, *, timers: Literal["run", "stop"] = "run", reason: str | None = None, actor: str | None = None
    ) -> RunStatus:
        """Hold the run, going forward or back: nothing new is sent out until `resume`; pausing twice does no harm.

        What is in flight comes to its end, and is recorded. A cancel lifts the hold.

        Args:
            timers: ``"run"``: they go on, what they would send waits, and a wait or the run may come to its limit.
                ``"stop"``: sleeps, limits of waits, pauses before retries and the run's deadline stand still, and have
                as long left when it is resumed as they had. A run that is held already may have them stopped from now.
            reason: why, for the history.
            actor: who, for the history.

        Returns:
            the status the run has then: ``paused``.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when it is over, or there are no such ``timers``.

        >>> run.pause(timers="stop", reason="the warehouse moves", actor="ann")  # doctest: +SKIP
        <RunStatus.PAUSED: 'paused'>
        """
        if timers not in ("run", "stop"):
            raise WorkflowError(f'pause was given timers={timers!r:.80}; expected "run" or "stop"')
        payload = {"timers": timers} if timers == "stop" else None
        return self._operate(Fact.PAUSE_REQUESTED, payload=payload, reason=reason, actor=actor)

    def resume(self, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """Let a paused run go on where it was paused; a run that goes on already is left as it is.

        Returns:
            the status the run has then.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when nobody has paused it: it is over, or waits for somebody to settle a step.
        """
        return self._operate(Fact.RESUME_REQUESTED, reason=reason, actor=actor)

    def terminate(self, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """End the run as it stands, and undo nothing (rule S20); ``describe().effects`` says what is live then.

        What still runs is told to stop; what it returns is recorded, and changes nothing.

        Returns:
            the status: ``terminated``.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when it is over already.
        """
        return self._operate(RunStatus.TERMINATED, reason=reason, actor=actor)

    def compensate(self, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """Undo a run that was completed, within its retention (rule S24); it ends as ``compensated``.

        Returns:
            the status the run has then, mostly ``compensating``.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when it is not completed; `cancel` undoes one that goes on.
        """
        message = reason or "the completed run was taken back on request"
        error = ErrorInfo(type="CompensationRequested", message=message)
        payload = {"cause": Cause.REQUEST.value}
        return self._operate(RunStatus.COMPENSATING, payload=payload, error=error, reason=reason, actor=actor)

    def approve(
        self,
        what: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        reason: str | None = None,
        actor: str | None = None,
    ) -> SignalOutcome:
        """Approve a call of a tool that waits for it, or an approval step.

        Args:
            what: the call's id, as ``waiting_for`` and ``orchestrator.waiting()`` have it, or the name of an approval
                step.
            arguments: what the tool is called with in place of what the model has asked for; the model is told.
            reason: why, for the history.
            actor: who, for the history.

        Returns:
            ``received``, or ``already_decided``; of an approval step, what `signal` returns.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when nothing of that name waits for approval, or arguments are given to an approval step.

        >>> for wait in orchestrator.waiting():
        ...     wait.run.approve(wait.waiting.id, actor="ann")    # doctest: +SKIP
        """
        return self._decide_upon(what, approved=True, arguments=arguments, reason=reason, actor=actor)

    def reject(self, what: str, *, reason: str | None = None, actor: str | None = None) -> SignalOutcome:
        """Refuse a call of a tool that waits for approval, or an approval step.

        The model is told (``refused by ann: too expensive``), and goes on.

        Args:
            what: the call's id, or the name of an approval step.
            reason: why, for the model and the history.
            actor: who, for the model and the history.

        Returns:
            ``received``, or ``already_decided``; of an approval step, what `signal` returns.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when nothing of that name waits for approval.
        """
        return self._decide_upon(what, approved=False, arguments=None, reason=reason, actor=actor)

    def _decide_upon(
        self, what: str, *, approved: bool, arguments: Mapping[str, Any] | None, reason: str | None, actor: str | None
    ) -> SignalOutcome:
        if "/" in what:
            return self._runtime.engine.interventions.decide_call(
                self.transaction_id, what, approved=approved, arguments=arguments, reason=reason, actor=actor
            )
        step = self._runtime.store.load(self.transaction_id).definition.step(what)
        if step.kind is not StepKind.APPROVAL or step.signal is None:
            raise WorkflowError(
                f"run {self.transaction_id!r}: step {what!r} is no approval; expected the name of an approval step, or "
                f"the id of a call, such as 'book/7'; nothing was changed"
            )
        if arguments is not None:
            raise WorkflowError(f"an approval step takes no arguments=, and {what!r} is one; nothing was changed")
        return self.signal(step.signal, {"approved": approved}, reason=reason, actor=actor)

    def retry(
        self,
        step: str | None = None,
        *,
        fresh: bool = False,
        reason: str | None = None,
        actor: str | None = None,
    ) -> RunStatus:
        """Try again what waits for a person: a step whose outcome is unknown, or an undo that was given up.

        The attempts count anew; the dead letter of an undo goes. A step whose probe could not tell is done again; in a
        run that goes back, its probe is asked again.

        Args:
            step: the step; None is all that wait.
            fresh: an agent asks everything anew, though it was answered before; this takes a step.
            reason: why, for the history.
            actor: who, for the history.

        Returns:
            the status the run has then.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when nothing of it waits for a person, or not this step; and when the run goes back, where
                only undos and probes are tried again.
        """
        if fresh:
            if step is None:
                raise WorkflowError(
                    f"retry(fresh=True) of run {self.transaction_id!r} takes a step: retry(step, fresh=True)"
                )
            snapshot = self._runtime.store.load(self.transaction_id)
            direction = Direction.UNDO if snapshot.state.step(step).undo.attempt else Direction.DO
            self._runtime.store.journal.restart(snapshot.state.identity, step, direction)
        return self._operate(Fact.RETRY_REQUESTED, step=step, reason=reason, actor=actor)

    def skip(self, step: str, reason: str, *, actor: str | None = None) -> RunStatus:
        """Go on without a step, or without its undo.

        Of a step whose outcome is unknown it says that it took no effect; of an undo that was given up, that the effect
        may stay (the run then ends as ``compensated_partially``).

        Args:
            step: the step.
            reason: why, for the history.
            actor: who, for the history.

        Returns:
            the status the run has then.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when the step does not wait for a person, or no reason is given.
        """
        self._assert_reason("skip", step, reason)
        return self._operate(Fact.SKIP_REQUESTED, step=step, reason=reason, actor=actor)

    def supply(
        self, step: str, result: Any = None, *, reason: str | None = None, actor: str | None = None
    ) -> RunStatus:
        """Say that a step whose outcome is unknown has succeeded, and with what; or that its undo was done by hand.

        Args:
            step: the step.
            result: what it is to have returned; for an undo it is not used.
            reason: why, for the history.
            actor: who, for the history.

        Returns:
            the status the run has then.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when the step does not wait for a person, or the result cannot be written as JSON.
        """
        what = f"run {self.transaction_id!r} was given no result for step {step!r}: what was supplied"
        result = plain(result, what, max_bytes=self._runtime.settings.max_payload_bytes)
        snapshot = self._runtime.store.load(self.transaction_id)
        waiting = dict(settleable(snapshot.definition, snapshot.state))
        direction = waiting.get(step, Direction.DO)
        lesson = None
        if direction is Direction.DO:
            lesson = supplied(self._runtime.store, self._runtime.settings, snapshot.state.identity, step, result)
        payload = {"result": result, "direction": direction.value}
        return self._operate(
            Fact.RESULT_SUPPLIED, step=step, payload=payload, reason=reason, actor=actor, lesson=lesson
        )

    def abandon(self, step: str | None = None, reason: str | None = None, *, actor: str | None = None) -> RunStatus:
        """Give an undo that failed, or is in doubt, up for good: its effect stays, and nobody comes back to it.

        The dead letter goes, and the reason is in the history. The run stays ``compensation_failed``, and
        ``describe()`` says that the step is ``abandoned`` and what is known of its effect. Where the effect is as it
        should be, `skip` it: that settles the undo, and the run ends as ``compensated_partially``.

        Args:
            step: the step; None is every undo that was given up.
            reason: why; it has to be given.
            actor: who, for the history.

        Returns:
            the status the run has then.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when no undo of it waits for a person, or not this one, or no reason is given.

        >>> run.abandon("charge", "the bank is gone; written off", actor="ann")  # doctest: +SKIP
        <RunStatus.COMPENSATION_FAILED: 'compensation_failed'>
        """
        self._assert_reason("abandon", step or "its undos", reason)
        return self._operate(Fact.ABANDON_REQUESTED, step=step, reason=reason, actor=actor)

    def update_timer(
        self,
        step: str,
        seconds: Duration | None = None,
        at: datetime | None = None,
        *,
        reason: str | None = None,
        actor: str | None = None,
    ) -> datetime:
        """Move what a step waits for: a sleep, the limit of a wait or of an external step, the pause before a retry.

        Give ``seconds`` or ``at``. Durable when this returns; the new time is in the history. While the run is paused
        with its timers stopped, it is what is left when it is resumed.

        Args:
            step: the step.
            seconds: from now on, as a number or a timedelta; 0 is now.
            at: a time with its time zone; one that has passed is now.
            reason: why, for the history.
            actor: who, for the history.

        Returns:
            when it is due now, by the store's clock.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            UnknownStepError: when its workflow has no such step.
            WorkflowError: when the step has no timer (any more), or the time cannot be used; nothing was changed.

        >>> run.update_timer("approval", 3600, reason="she is on a train", actor="ann")  # doctest: +SKIP
        datetime.datetime(2026, 1, 31, 13, 0, tzinfo=datetime.timezone.utc)
        """
        return self._runtime.engine.interventions.update_timer(
            self.transaction_id, step, seconds, at, reason=reason, actor=actor
        )

    def update_deadline(
        self,
        seconds: Duration | None = None,
        at: datetime | None = None,
        *,
        reason: str | None = None,
        actor: str | None = None,
    ) -> datetime:
        """Move the run's deadline, or give it one: a run that is not over by then is undone.

        Give ``seconds`` or ``at``, as for `update_timer`.

        Args:
            seconds: from now on, as a number or a timedelta; 0 is now.
            at: a time with its time zone; one that has passed is now.
            reason: why, for the history.
            actor: who, for the history.

        Returns:
            when the run is to be over now, by the store's clock.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowError: when the run goes back or is over, or the time cannot be used; nothing was changed.

        >>> run.update_deadline(24 * 3600, reason="the carrier is late")  # doctest: +SKIP
        datetime.datetime(2026, 2, 1, 12, 0, tzinfo=datetime.timezone.utc)
        """
        return self._runtime.engine.interventions.update_deadline(
            self.transaction_id, seconds, at, reason=reason, actor=actor
        )

    def fork(
        self,
        from_step: str,
        input: dict[str, Any] | None = None,
        *,
        transaction_id: str | None = None,
        reason: str | None = None,
        actor: str | None = None,
    ) -> Self:
        """Start a new run of the same definition that begins at a step of this one, which is over (rule S22).

        It takes over, as done, every step that is neither ``from_step`` nor comes after it, and that was skipped, or
        had succeeded and is not undone: results, inputs and context are copied, and the effect is live in the fork,
        which undoes it if it goes back. What was undone, and all that comes after that, is done again. The first fact
        of its history names the run, the step, and which effects it takes as live.

        Steps that it does have idempotency keys of their own; what it took over it undoes under the key that it was
        done with. Search attributes are copied; signals that no step has taken are not.

        Args:
            from_step: where it begins.
            input: merged over the original input.
            transaction_id: the fork's id; made up if left out. Forking again with the same id, step and input gives the
                fork that exists.
            reason: why, for the fork's history.
            actor: who, for the fork's history.

        Returns:
            the fork; it is durable, and its first steps are on their way.

        Raises:
            WorkflowNotFoundError: when there is no such run.
            WorkflowNotEndedError: when it is not over; `cancel` or `terminate` it first.
            UnknownStepError: when its workflow has no such step.
            WorkflowAlreadyExistsError: when there is another run with this id.
            WorkflowError: when a fork cannot begin there (it is an item of a map, or in a branch that was not taken, or
                nobody knows whether an effect before it is live), or the input cannot be used.

        >>> fork = run.fork("charge", {"card": "visa"}, reason="the first card was stolen")  # doctest: +SKIP
        >>> fork.result()  # doctest: +SKIP
        """
        identity = uuid4().hex if transaction_id is None else check_transaction_id(transaction_id)
        engine = self._runtime.engine
        engine.fork(self.transaction_id, from_step, input, identity, reason=reason, actor=actor)
        return type(self)(self._runtime, identity)

    # --- learning from it --------------------------------------------------------------------------------------------

    def feedback(
        self,
        score: float,
        note: str | None = None,
        step: str | None = None,
        *,
        actor: str | None = None,
    ) -> list[str]:
        """Say how well the run's agents have done, for whoever learns from it (`AgentTask.get_optimization_data`).

        It may be over, and gone, as long as what its agents have done is kept. What is said last of a step counts.

        Args:
            score: from 0 (of no use) to 1 (as it should be); True and False are 1 and 0.
            note: why, in words; optimizers that read show it to a model.
            step: the step that is meant; None is all that agents have done.
            actor: who says so.

        Returns:
            the steps that it was noted of.

        Raises:
            WorkflowNotFoundError: when there is no such run, and nothing of it to learn from.
            WorkflowError: when the score is none, or no agent has done that step.

        >>> run.feedback(0.2, "too long", step="answer", actor="ann")  # doctest: +SKIP
        ['answer']
        """
        return feedback(
            self._runtime.store, self.transaction_id, self._nonce, score=score, note=note, step=step, actor=actor
        )

    # --- keeping it --------------------------------------------------------------------------------------------------

    def set_attributes(
        self, attributes: Mapping[str, Any], *, reason: str | None = None, actor: str | None = None
    ) -> None:
        """Set what the run is found by; durable when this returns, and safe to repeat. It may be over.

        Args:
            attributes: name -> str (at most 256 characters, found as it is), int, float or datetime with a time zone
                (found by range), or None to remove it. At most 32 for a run.
            reason: why, for the history.
            actor: who, for the history.

        Raises:
            WorkflowError: when a name or a value cannot be used, or there are too many.
            WorkflowNotFoundError: when there is no such run.

        >>> run.set_attributes({"customer": "c-1", "amount": 12.5, "basket": None})  # doctest: +SKIP
        """
        set_attributes(self._runtime.store, self.transaction_id, attributes, reason=reason, actor=actor)

    def archive(self, *, keep: int = 1) -> int:
        """Move the oldest events of the run out of Redis, to ``multiagents_history_archive``.

        `history` and `watch` go on giving all of them, for as long as the run is kept. What is archived stays archived.

        Args:
            keep: how many of the newest events stay, at least 1.

        Returns:
            how many were moved.

        Raises:
            ConfigurationError: when there is no archive.
            WorkflowNotFoundError: when there is no such run.
            StateStoreError: when the archive or the store did not answer; what was not moved is where it was.
        """
        return self._runtime.store.archive(self.transaction_id, keep)

    def delete(self, *, reason: str | None = None, actor: str | None = None) -> None:
        """Erase the run, which is over, with its data, its history and its dead letters; it cannot be had back.

        What remains is who did it, when and why: `Orchestrator.deleted`. Its id and its key are free again, and the
        steps of a run that takes them have the same idempotency keys, as nothing remembers this one; a start with
        ``on_conflict="replace_ended"`` gives new ones. Its events on the bus stay until the stream is trimmed. The runs
        that are its steps are erased before it; one that was detached is not. What its agents have left to learn from
        goes with it; of a run that is gone already, that is what there is to erase.

        Args:
            reason: why, for the list of what was deleted.
            actor: who, for that list.

        Raises:
            WorkflowNotFoundError: when there is no such run, or no more, and nothing that it has left to learn from.
            WorkflowNotEndedError: when it, or a child of it, is not over.

        >>> run.delete(reason="the customer asked for it", actor="ann")  # doctest: +SKIP
        """
        delete(self._runtime.store, self.transaction_id, reason=reason, actor=actor)

    def __repr__(self) -> str:
        return f"<Run {self.transaction_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other.transaction_id == self.transaction_id

    def __hash__(self) -> int:
        return hash(self.transaction_id)

    def _assert_reason(self, verb: str, what: str, reason: str | None) -> None:
        if not reason:
            raise WorkflowError(
                f"run {self.transaction_id!r} did not {verb} {what}: no reason was given; give reason=, for what is "
                f"not undone is asked about later"
            )

    def _operate(self, verb: str, **facts: Any) -> RunStatus:
        return self._runtime.engine.interventions.operate(self.transaction_id, verb, nonce=self._nonce, **facts)
