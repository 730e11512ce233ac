"""The calls that one attempt of an agent makes, and what the run's journal knows of them (rule S35).

Of each call the journal is told before it is made and when it is answered. What an attempt before this one was answered
is handed out again; nothing is paid for it, and nothing counted.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from multiagents.agents.call_steps import outcome_of, undo_of
from multiagents.events import ResultEvent
from multiagents.exceptions import (
    NeedsAttentionError,
    OutcomeUnknownError,
    StateRefusedError,
    StateStoreError,
    TerminalError,
    WorkerError,
)
from multiagents.plain_json import canonical
from multiagents.state_store.records import (
    BUILT_IN,
    Begun,
    Call,
    CallVerdict,
    Request,
    Usage,
    approval_target,
    timed_out,
)
from multiagents.worker_sdk.attempt.asked import GivenBack

if TYPE_CHECKING:
    from multiagents.agents.agent import Agent
    from multiagents.agents.tools import ToolOptions
    from multiagents.state_store.journal import Journal
    from multiagents.worker_sdk.attempt import StepContext


logger = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Seconds between two looks whether a person has decided, at least and at most.
SOONEST, LATEST = 10.0, 3600.0


class Leave(BaseException):
    """Takes an error out of an agent, through code that catches every `Exception` and shows it to the model."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(str(error))


class Calls:
    """The calls of one attempt; from any of its threads.

    Attributes:
        span: the attempt's, as `multiagents.agents.opentelemetry` has it.
        under_way: how many models are being asked just now.
        left: what the attempt is to end with, once that is known: code that a model has written may have swallowed the
            `Leave` that carried it, so every further call raises it again.
        acted: something has run that may have had an effect: a tool, or code of the user's own.
        edited: a person has changed what a tool is called with.
        program: the version of the program that asks.
    """

    def __init__(self, step: StepContext, agent: Agent) -> None:
        self._step = step
        self._agent = agent
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        #: the last request, by its slot and its text: the next is kept as what differs
        self._last = ("", "")
        self._answers: dict[str, str] = {}
        self.acted = agent.signature is None
        self.left: BaseException | None = None
        self.under_way = 0
        self.span: Any = None
        self.edited = False
        self.program = BUILT_IN

    @property
    def step(self) -> StepContext:
        """The attempt."""
        return self._step

    @property
    def tells(self) -> bool:
        """Whether what it does is told while it is done."""
        return self._agent.stream

    def tell(self, begun: Begun, status: Mapping[str, Any]) -> None:
        """Say what is being done in a call, to whoever reads the run's stream."""
        if self.tells:
            self._step.streaming.status(status, begun.slot)

    @property
    def _journal(self) -> Journal:
        return self._step.store_here().journal

    def open(self, pins: Mapping[str, str], program: int = BUILT_IN) -> int:
        """Begin, with what the step's first attempt was made with: another one of that writes other questions.

        Args:
            pins: what this attempt is made with, by name: versions, the adapter.
            program: what is asked with if this is the first attempt.

        Returns:
            the program that the first attempt was made with.

        Raises:
            Leave: when it is not the same, and a person is to be asked before that costs anything.
        """
        claim = self._step.claim
        chosen = {"program": str(program)} if program != BUILT_IN else {}
        opened = self._sure(lambda: self._journal.open(claim.correlation, claim.owner, {**pins, **chosen}))
        pinned = opened.pins
        others = [name for name, value in pins.items() if pinned.get(name, value) != value]
        self.check_same([f"{name} was {pinned[name]}, and is {pins[name]} here" for name in others])
        return int(pinned.get("program", BUILT_IN))

    def check_same(self, others: Sequence[str]) -> None:
        """Say in what this attempt is another one than the first, which may cost its questions anew.

        Raises:
            Leave: when a person is to be asked before that.
        """
        if not others:
            return
        said = f"step {self._step.step!r} was begun with something else: {'; '.join(others)}; what it asks may differ"
        if self._parks:
            raise self.leave(
                NeedsAttentionError(f"{said}; run.retry({self._step.step!r}) where it is the same, or with fresh=True")
            )
        logger.warning("%s, and then costs anew", said)

    def tell_usage(self) -> None:
        """Have the event of the attempt's end say what the calls of its step have used by then."""
        step = self._step
        if isinstance(self.left, GivenBack):
            return  # There is no such event.
        try:
            used = self._journal.usage(step.transaction_id, [step.step]).get(step.step)
        except StateStoreError as error:
            logger.warning("what %s has used is not told: %s", step.correlation_id, error)
        else:
            step.usage = None if used is None else used.to_dict()

    def leave(self, error: BaseException) -> Leave:
        """What to raise to end the attempt with an error, now or at the next call."""
        if self.left is None:
            self.left = error
        if isinstance(error, GivenBack):
            error.begun = self.acted
        return Leave(self.left)

    def begin_lm(self, key: Mapping[str, Any], text: str, model: str) -> Begun:
        """Say that a model is about to be asked.

        Args:
            key: what makes the request the one it is.
            text: the request, as it is kept for people.
            model: the model.

        Raises:
            Leave: when it is not to be asked.
        """
        with self._lock:
            request = Request.after(*self._last, text)
        begun = self._begin(Call("lm", _hash(key), next(self._numbers), model, request, strict=self._parks))
        with self._lock:
            self._last = begun.slot, text
        return begun

    def begin_tool(self, options: ToolOptions, arguments: Any) -> Begun:
        """Say that a tool is about to be called.

        Raises:
            Leave: when it is not to be called.
        """
        name, idempotent = options.name, options.idempotent
        about = {"again": idempotent is not False, "idempotent": idempotent is True, "most": options.max_calls}
        try:
            undo = undo_of(self._step, options, arguments)
        except TerminalError as error:
            raise self.leave(error) from None
        begun = self._begin(self._call_of("tool", name, arguments, undo=undo, **about))
        self.acted |= begun.verdict in (CallVerdict.LIVE, CallVerdict.AGAIN, CallVerdict.REPLAY)
        if begun.verdict is CallVerdict.DOUBT:
            raise self.leave(
                OutcomeUnknownError(
                    f'tool "{name}" was begun by an earlier attempt, and nobody knows whether it was done; it is not '
                    f"idempotent, so it is not called again"
                )
            )
        return begun

    def decision(self, options: ToolOptions, arguments: Any) -> Mapping[str, Any]:
        """What a person has decided of a call of a tool, before it is made.

        The decision is bound to tool, arguments and occurrence; it is recorded once, and read by every attempt.

        Raises:
            Leave: while nobody has decided: the attempt comes again, and no worker waits for it.
        """
        name = options.name
        begun = self._begin(self._call_of("approval", name, arguments, again=False))
        if begun.verdict is CallVerdict.REPLAY:
            self.edited = self.edited or begun.answer.get("arguments") is not None
            return begun.answer  # type: ignore[no-any-return]
        waited, limit = begun.waited_ms / 1000, options.approval_timeout
        if limit is not None and waited >= limit:
            correlation = self._step.claim.correlation
            late = timed_out(limit)
            decided = self._sure(
                lambda: self._journal.decide(
                    correlation.identity, correlation.step, begun.slot, late, correlation.direction
                )
            )
            if decided is not None:
                return decided.decision  # type: ignore[no-any-return]
        # The decision has it come at once; should nobody tell it, it looks for itself, ever more rarely.
        seconds = min(max(waited, SOONEST), LATEST if limit is None else max(limit - waited, 0.1))
        raise self.leave(
            GivenBack(f'tool "{name}" waits for approval', seconds, target=approval_target(name, begun.slot))
        )

    def begin_listing(self, server: str) -> Begun:
        """Say that a server is about to be asked which tools it has.

        Raises:
            Leave: when it is not to be asked.
        """
        return self._begin(self._call_of("listing", server, {}, idempotent=True))

    def finish(self, begun: Begun, answer: Any, usage: Usage | None = None, *, failed: bool = False) -> None:
        """Say what a call has come to.

        Raises:
            Leave: when the attempt is not this worker's any more.
        """
        if not self._told(begun, answer, usage, failed=failed):
            raise self.leave(self._lost())

    def finish_tool(self, options: ToolOptions, begun: Begun, answer: Mapping[str, Any], *, in_doubt: bool) -> None:
        """Say what the call of a tool has come to; it may be a step of the run.

        Args:
            options: the tool.
            begun: the call.
            answer: ``result``, or ``error`` in words.
            in_doubt: it may have taken effect, whatever the answer is.

        Raises:
            Leave: when the attempt is not this worker's any more.
        """
        failed, outcome = "error" in answer, outcome_of(self._step, options, begun, answer, in_doubt=in_doubt)
        if self._told(begun, dict(answer), failed=failed, outcome=outcome):
            return
        if outcome is not None and isinstance(outcome.event, ResultEvent):
            self._tell_late(outcome.event)
        raise self.leave(self._lost())

    def _told(self, begun: Begun, answer: Any, usage: Usage | None = None, **more: Any) -> bool:
        """Have it written down; whether the attempt is still this worker's."""
        claim, slot = self._step.claim, begun.slot
        return self._sure(lambda: self._journal.finish(claim.correlation, claim.owner, slot, answer, usage, **more))

    def _tell_late(self, event: ResultEvent) -> None:
        """The tool has answered when the attempt was over: its effect may have come after its undo (rule S5)."""
        try:
            self._step.came_late(event)
        except Exception:
            logger.warning("%s has succeeded late, and that was not recorded", event.correlation_id, exc_info=True)

    def heard(self, begun: Begun, said: str) -> None:
        """Remember which call has brought what a model said."""
        self._answers[said] = begun.slot

    @contextmanager
    def making(self) -> Iterator[None]:
        """A model is being asked: what the attempt would leave behind meanwhile, it would have paid for nothing."""
        with self._lock:
            self.under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self.under_way -= 1

    def withhold(self, begun: Begun) -> None:
        """Say that a call that was begun is not made for now; the next attempt begins it."""
        claim = self._step.claim
        self._sure(lambda: self._journal.withhold(claim.correlation, claim.owner, begun.slot))

    def refuse(self, begun: Begun, why: str) -> None:
        """Have what a call was answered never be handed out again."""
        self._refuse(begun.slot, why)

    def refuse_answer(self, said: str | None, why: str) -> None:
        """The same, by what the model said; None is the last it said."""
        slot = self._answers.get(said or "") or next(reversed(self._answers.values()), None)
        if slot is not None:
            self._refuse(slot, why)

    @property
    def _parks(self) -> bool:
        return self._agent.on_divergence == "park"

    def _refuse(self, slot: str, why: str) -> None:
        claim = self._step.claim
        self._sure(lambda: self._journal.refuse(claim.correlation, claim.owner, [slot], why))

    def _call_of(self, kind: str, tool: str, arguments: Any, **about: Any) -> Call:
        """What is asked of a tool, or of a person who decides upon it."""
        text = canonical(arguments)
        key = _hash({kind: tool, "arguments": text})
        return Call(kind, key, next(self._numbers), tool, Request(text=text), strict=self._parks, **about)

    def _begin(self, call: Call) -> Begun:
        if self.left is not None:
            raise Leave(self.left)
        claim = self._step.claim
        begun = self._sure(lambda: self._journal.begin(claim.correlation, claim.owner, call))
        match begun.verdict:
            case CallVerdict.LOST:
                raise self.leave(self._lost())
            case CallVerdict.STOPPED:
                raise self.leave(self._stopped(begun, call.number))
            case CallVerdict.FULL if begun.bound != call.most:
                raise self.leave(
                    TerminalError(
                        f"step {self._step.step!r} has made {begun.bound} calls, and no more are kept of a step; let "
                        f"the agent do less, with max_iters=, or make it several steps"
                    )
                )
            case CallVerdict.DIVERGED:
                raise self.leave(
                    NeedsAttentionError(
                        f"diverged at call {call.number}: this attempt asks {call.name} something that those before it "
                        f"did not, and answers of theirs lie there; look at run.calls({self._step.step!r}), then "
                        f"run.retry({self._step.step!r}, fresh=True)"
                    )
                )
        return begun

    def _sure(self, asked: Callable[[], _T]) -> _T:
        """Ask the journal. That it does not answer, or says what cannot be read, is nothing that a model is told.

        Raises:
            Leave: then. An attempt whose journal is away for a while was none, and comes again.
        """
        try:
            return asked()
        except StateRefusedError as error:
            raise self.leave(error) from error
        except StateStoreError as error:
            raise self.leave(GivenBack(f"the journal of its calls does not answer: {error}")) from error
        except Exception as error:
            raise self.leave(error) from error

    def _stopped(self, begun: Begun, number: int) -> Exception:
        if begun.paused and not begun.cancelled:
            return GivenBack(f"the run is paused before call {number}")
        message = f"stopped before call {number}: the run is cancelled"
        return OutcomeUnknownError(message) if self.acted else TerminalError(message)

    def _lost(self) -> Exception:
        return WorkerError(f"attempt {self._step.correlation_id} is not this worker's any more; it makes no more calls")


def leaving(error: BaseException, calls: Calls | None) -> Leave:
    """What to raise to end an agent with an error, be it an attempt of a run or a plain call."""
    return Leave(error) if calls is None else calls.leave(error)


def _hash(key: Mapping[str, Any]) -> str:
    return sha256(canonical(key).encode()).hexdigest()[:32]
