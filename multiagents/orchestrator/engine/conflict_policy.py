"""What a start does when there is a run with its id already."""

from __future__ import annotations

from enum import StrEnum

from multiagents.exceptions import WorkflowAlreadyExistsError, WorkflowError, did_you_mean
from multiagents.names import check_transaction_id, transaction_id_of
from multiagents.state_store.records import Started
from multiagents.workflow.state import RunStatus

_ENDED = frozenset(status for status in RunStatus if status.is_end)


class OnConflict(StrEnum):
    """What a start does when there is a run with its id already.

    A run that has ended is there until its retention is over. What replaces one goes its way in the same script: there
    is never both of them, nor neither.
    """

    #: the existing run, if workflow and input are the same, else an error
    RETURN_SAME = "return_same"
    #: the existing run, whatever it was started with
    RETURN = "return"
    #: always an error
    FAIL = "fail"
    #: a new run in place of one that has ended; one that goes on is treated as by ``return_same``
    REPLACE_ENDED = "replace_ended"
    #: a new run in place of one that ended otherwise than as completed; else as by ``return_same``
    REPLACE_FAILED = "replace_failed"

    @property
    def gives_existing(self) -> bool:
        """Whether a start that is sent twice gives the same run without being known as the same call."""
        return self in (OnConflict.RETURN_SAME, OnConflict.RETURN)

    @property
    def replaces(self) -> frozenset[RunStatus]:
        """The statuses in which a run is replaced."""
        if self is OnConflict.REPLACE_ENDED:
            return _ENDED
        return _ENDED - {RunStatus.COMPLETED} if self is OnConflict.REPLACE_FAILED else frozenset()

    @classmethod
    def of(cls, name: str) -> OnConflict:
        """The policy of this name.

        Raises:
            WorkflowError: when there is none.

        >>> OnConflict.of("fial")
        Traceback (most recent call last):
        multiagents.exceptions.WorkflowError: there is no on_conflict='fial'; did you mean "fail"? (expected one of ...
        """
        try:
            return cls(name)
        except ValueError:
            raise WorkflowError(
                f"there is no on_conflict={name!r}{did_you_mean(str(name), list(cls))} (expected one of "
                f"{', '.join(cls)})"
            ) from None

    def check(self, started: Started, transaction_id: str, workflow: str, input_digest: str) -> None:
        """See that a caller gets no run that it did not ask for.

        Raises:
            WorkflowAlreadyExistsError: when the policy refuses the one that exists.
        """
        if started.created or self is OnConflict.RETURN:
            return
        if self is OnConflict.FAIL:
            raise WorkflowAlreadyExistsError(transaction_id, None)
        if started.workflow != workflow:
            raise WorkflowAlreadyExistsError(transaction_id, f'workflow ("{started.workflow}")')
        if started.input_digest != input_digest:
            raise WorkflowAlreadyExistsError(transaction_id, "input")


def identity_of(workflow: str, transaction_id: str | None, idempotency_key: str | None) -> str | None:
    """The id that a start asks for, or None when it leaves that to us.

    Raises:
        WorkflowError: when both are given, or one cannot be used.
    """
    if idempotency_key is None:
        return None if transaction_id is None else check_transaction_id(transaction_id)
    if transaction_id is not None:
        raise WorkflowError(
            f'workflow "{workflow}" was started with transaction_id={transaction_id!r} and '
            f"idempotency_key={idempotency_key!r:.80}; the id follows from the key: give one of them"
        )
    if not isinstance(idempotency_key, str) or not idempotency_key:
        raise WorkflowError(
            f'workflow "{workflow}" was started with idempotency_key={idempotency_key!r}; expected a str that is not '
            f"empty: what tells this run from all others, such as an order's number"
        )
    return transaction_id_of(workflow, idempotency_key)
