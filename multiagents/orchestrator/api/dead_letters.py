"""Dead letters as people hold them: what could not be undone, and what may be done about it (rule S17)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiagents.exceptions import WorkflowError, WorkflowNotFoundError
from multiagents.names import Direction
from multiagents.orchestrator.api.run import Run
from multiagents.orchestrator.runtime import Runtime
from multiagents.state_store.records import LetterKey
from multiagents.workflow.state import RunStatus


class DeadLetter(dict[str, Any]):
    """What could not be undone, or delivered: a dict of what is known of it, with verbs.

    The verbs are for undos that failed for good, or are in doubt; they are those of the run, for the letter's step, and
    take the letter away. A letter that is no undo is an event that no run could take in, something on the event bus
    that nobody can read or handle, or a run that nobody can read: `discard` takes it away. Nobody has to: it goes when
    it has lain there for ``multiagents_dead_letter_retention``.

    A letter is about one run. If another has its id by now, the verbs change nothing of that one, and say so (S32).

    Attributes:
        key: what it is known by: the run, told apart from others with its id, and what of it, such as
            ``order-1~5f0cR-2x/charge/undo/1``.
        transaction_id: the run; of what lay on the bus and names none, the same as the key.
        step: the step; None where it is about none.
        is_undo: whether it is about an undo, so that a person can settle it.
    """

    def __init__(self, runtime: Runtime, key: str, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self._runtime = runtime
        self.key = key
        about = LetterKey.parse(key)
        attempt = about.attempt
        # Of an event, what it says itself: its correlation id may be what is wrong with it.
        event = content.get("event")
        said = event.get("transaction_id") if isinstance(event, Mapping) else None
        self.transaction_id = said or about.transaction_id
        self.step = None if attempt is None else attempt.step
        self.is_undo = attempt is not None and attempt.direction is Direction.UNDO and "compensation" in content
        self._nonce: str | None = about.nonce or content.get("nonce")

    @property
    def why(self) -> str:
        """What happened, in words."""
        return str(self.get("why", ""))

    @property
    def workflow(self) -> str | None:
        """The workflow's name, where it is known."""
        return self.get("workflow")

    @property
    def run(self) -> Run:
        """The run it is about; if another one has its id by now, that one takes nothing in that a person settles."""
        return Run(self._runtime, self.transaction_id, self._nonce)

    @property
    def child(self) -> Run | None:
        """The run whose own undo has failed, where the step is one: what is settled there settles this letter, too."""
        child = self.get("child")
        return None if child is None else Run(self._runtime, child)

    def retry(self, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """Have the undo tried again: `Run.retry`."""
        return self.run.retry(self._undo(), reason=reason, actor=actor)

    def skip(self, reason: str, *, actor: str | None = None) -> RunStatus:
        """Say that the effect may stay: `Run.skip`."""
        return self.run.skip(self._undo(), reason, actor=actor)

    def supply(self, result: Any = None, *, reason: str | None = None, actor: str | None = None) -> RunStatus:
        """Say that it was undone by hand: `Run.supply`."""
        return self.run.supply(self._undo(), result, reason=reason, actor=actor)

    def abandon(self, reason: str, *, actor: str | None = None) -> RunStatus:
        """Give it up for good: `Run.abandon`."""
        return self.run.abandon(self._undo(), reason, actor=actor)

    def discard(self) -> None:
        """Take away a letter that asks for nothing more. Nothing else changes.

        Raises:
            WorkflowError: when it is about an undo of a run that is there: `retry`, `skip`, `supply` or `abandon` it.
        """
        if self.is_undo and self._is_of_a_run():
            raise WorkflowError(
                f"dead letter {self.key!r} is about an undo that is to be settled: {self.why}; retry(), skip(), "
                f"supply() or abandon() it, which takes the letter away"
            )
        self._runtime.store.unbury(self.key)

    def _is_of_a_run(self) -> bool:
        """Whether the run is there, and not another one that has its id by now (rule S32)."""
        try:
            return not self._is_of_another()
        except WorkflowNotFoundError:
            return False

    def _is_of_another(self) -> bool:
        return self._nonce not in (None, self._runtime.store.load(self.transaction_id).state.nonce)

    def _undo(self) -> str:
        if not self.is_undo or self.step is None:
            raise WorkflowError(
                f"dead letter {self.key!r} is about no undo, so there is nothing to settle: {self.why}; expected one "
                f"with is_undo"
            )
        if self._is_of_another():
            raise WorkflowError(
                f"dead letter {self.key!r} is about a run that another one has replaced under its id; nothing was "
                f"done: settle by hand what it says, then discard() it"
            )
        return self.step


def dead_letters(
    runtime: Runtime, workflow: str | None, step: str | None, transaction_id: str | None
) -> dict[str, DeadLetter]:
    """The dead letters that are asked for, by key, redacted as they are to be shown."""
    redact = runtime.payload_policy.redact
    found = {
        key: DeadLetter(runtime, key, letter if redact is None else redact(letter))
        for key, letter in runtime.store.visibility.dead_letters().items()
    }
    return {
        key: letter
        for key, letter in found.items()
        if workflow in (None, letter.workflow)
        and step in (None, letter.step)
        and transaction_id in (None, letter.transaction_id)
    }
