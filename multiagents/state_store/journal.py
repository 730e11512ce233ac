"""The part of the port that keeps the calls inside a step: what an agent asks models and tools, and what they answer.

An attempt that was lost is made again from its beginning. What it has asked and been answered is here, so the next one
gets the same answers, and goes on where the last one stopped (rule S35, decision 0037). What it keeps to:

1. The first call with a hash gets the first answer with it, the second the second (the *occurrence*), whatever the
   order in which calls are made at once. Where the journal has none left, the call is new.
2. A call is written down as begun before it is made. Who asks again with the number of a call gets the same answer.
3. Only who holds the attempt writes. What another one is answered is kept as evidence, never used.
4. What made an attempt fail is *refused*: kept and counted, not replayed.
5. Each request is kept as its difference to one before it, so a conversation takes the space that it has once.
6. The call of a tool that has something to undo it (`Call.undo`) becomes a step of the run in the write that begins it
   (rule S36), and what it comes to is the step's in the write that says so. Both raise the version of the run, so that
   nobody decides upon the run without them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from multiagents.names import Correlation, Direction
from multiagents.state_store.records import Begun, Call, CallOutcome, CallRecord, Decided, Opened, StepUsage, Usage


class Journal(ABC):
    """The calls inside steps. Every method is safe to call again, and safe to call from any thread.

    It is a run's own: it goes with it, and another run of the same id has none of it.
    """

    @abstractmethod
    def open(self, correlation: Correlation, owner: str, pins: Mapping[str, str]) -> Opened:
        """Begin with the calls of an attempt. One round trip.

        Args:
            correlation: the attempt.
            owner: the token that holds it.
            pins: what must not change while answers are replayed, by name: versions, a seed, a time. The first attempt
                of a journal fixes them, and the others are given what it has fixed.
        """

    @abstractmethod
    def begin(self, correlation: Correlation, owner: str, call: Call) -> Begun:
        """Ask whether to make a call, and write down that it begins. One round trip; two where its answer lies apart.

        Args:
            correlation: the attempt.
            owner: the token that holds it.
            call: the call.
        """

    @abstractmethod
    def finish(
        self,
        correlation: Correlation,
        owner: str,
        slot: str,
        answer: Any,
        usage: Usage | None = None,
        *,
        failed: bool = False,
        outcome: CallOutcome | None = None,
    ) -> bool:
        """Write down what a call was answered. One round trip.

        Args:
            correlation: the attempt.
            owner: the token that holds it.
            slot: the call, by `Begun.slot`.
            answer: plain JSON.
            usage: what it has used.
            failed: the answer is an error.
            outcome: of a call that is a step of the run (`Begun.state`): what it has come to, written with it.

        Returns:
            whether the attempt is still ours; if not, the answer is kept as evidence, and nobody is given it.
        """

    @abstractmethod
    def refuse(self, correlation: Correlation, owner: str, slots: Sequence[str], why: str) -> bool:
        """Say of calls that what they were answered made the attempt fail, or that they were not answered.

        Whoever asks the same is to ask anew.

        Args:
            correlation: the attempt.
            owner: the token that holds it.
            slots: the calls, by `Begun.slot`.
            why: in words.

        Returns:
            whether the attempt is still ours; if not, nothing is changed.
        """

    @abstractmethod
    def withhold(self, correlation: Correlation, owner: str, slot: str) -> bool:
        """Say of a call that was begun that it is not made for now: a limit or a budget does not let it.

        Whoever asks the same begins it, as if it were new: it was not paid, and is not counted until then.

        Args:
            correlation: the attempt.
            owner: the token that holds it.
            slot: the call, by `Begun.slot`.

        Returns:
            whether the attempt is still ours; if not, nothing is changed.
        """

    @abstractmethod
    def restart(self, identity: str, step: str, direction: Direction = Direction.DO) -> bool:
        """Have the next attempt of a step begin with an empty journal: what is there stays to be seen, and counted.

        Args:
            identity: the run, as `multiagents.names.identity_of` writes it.
            step: the step.
            direction: whether it is being done or undone.

        Returns:
            whether it will; not while a worker holds the step, nor if there is no such run.
        """

    @abstractmethod
    def decide(
        self, identity: str, step: str, slot: str, decision: Any, direction: Direction = Direction.DO
    ) -> Decided | None:
        """Write down what a person has decided of a call that waits for that; the first decision counts.

        Args:
            identity: the run, as `multiagents.names.identity_of` writes it.
            step: the step.
            slot: the call, by `Begun.slot`.
            decision: plain JSON, which is the call's answer.
            direction: whether the step is being done or undone.

        Returns:
            the decision that counts; None if there is no such call, or nobody waits for it: the step has begun afresh.
        """

    @abstractmethod
    def calls(self, transaction_id: str, step: str | None = None, *, last: int | None = None) -> list[CallRecord]:
        """The calls of a run, in the order in which they were begun, as they may be shown.

        Args:
            transaction_id: the run.
            step: of this step alone; None: of all.
            last: so many of the last; None: all. Each has all that was asked, so those of long conversations are large.

        Raises:
            DecodeError: when one of them cannot be read here.
        """

    @abstractmethod
    def usage(self, transaction_id: str, steps: Sequence[str]) -> dict[str, StepUsage]:
        """Step -> what its calls have used, doing and undoing it; of those that have made any. One round trip.

        Args:
            transaction_id: the run.
            steps: which.
        """
