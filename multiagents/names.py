"""Ids of runs and of attempts, idempotency keys, and the names of tasks. Redis keys are in `keys`.

A correlation id is ``<transaction>/<step>/<do|undo>/<attempt>``. It names one attempt, is the Celery task id of that
attempt, and is the only thing replies are matched by.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from secrets import token_urlsafe
from typing import NamedTuple

from multiagents.exceptions import DecodeError, WorkflowError

#: A transaction id: what a key, a URL and a shell take without quoting.
TRANSACTION_ID = re.compile(r"[A-Za-z0-9._:@-]{1,128}")
#: A step's name. ``[3]`` and ``#2`` are reserved for the items of a map and the rounds of a loop.
STEP_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,127}")
#: A workflow's name.
WORKFLOW_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,127}")

#: The message header that marks the engine's own messages (and only them).
HEADER = "multiagents"
#: The Celery task that advances a run: the saga orchestrator.
ORCHESTRATOR_TASK = "multiagents.orchestrate"
#: What the name of a Celery task gets for that of the worker that calls it.
TASK_STEP = ".step"
#: The Celery task that runs a step whose worker is named like a Celery task that is none; the header with that name.
CALL_TASK = "multiagents.call"
CALLED = "multiagents_called"
#: The Celery task that beat sends for a tick of a schedule.
TICK_TASK = "multiagents.tick"
#: Where Celery sends what names no queue, unless an app says otherwise.
DEFAULT_QUEUE = "celery"
#: Steps that killed their worker twice go to ``<queue>.quarantine`` where such a queue is consumed.
QUARANTINE_SUFFIX = ".quarantine"


class Direction(StrEnum):
    """Which way an attempt goes: ``do`` runs the step's worker, ``undo`` its compensation."""

    DO = "do"
    UNDO = "undo"


class Correlation(NamedTuple):
    """One attempt of a step, taken apart; ``str()`` of it is the correlation id.

    Ids of runs come back, so the id alone does not say whose attempt it is: ``nonce`` does, which is no part of the id.
    """

    transaction_id: str
    step: str
    direction: Direction
    attempt: int
    #: of the run; empty where that is not known
    nonce: str = ""

    @property
    def identity(self) -> str:
        """The run, as `identity_of` writes it."""
        return identity_of(self.transaction_id, self.nonce)

    @property
    def of_its_run(self) -> str:
        """The id with the run told apart from others that have had its own: who holds a slot."""
        return f"{self.identity}/{self.step}/{self.direction.value}/{self.attempt}"

    def __str__(self) -> str:
        return f"{self.transaction_id}/{self.step}/{self.direction.value}/{self.attempt}"

    @classmethod
    def parse(cls, correlation_id: str) -> Correlation:
        """Take a correlation id apart.

        Raises:
            DecodeError: when it is not ``<transaction>/<step>/<do|undo>/<attempt>``.
        """
        try:
            transaction_id, step, direction, attempt = correlation_id.split("/")
            return cls(transaction_id, step, Direction(direction), int(attempt))
        except ValueError:
            raise DecodeError(
                f"correlation id {correlation_id!r} was not understood: expected "
                f"'<transaction>/<step>/<do|undo>/<attempt>'; send back the id that came with the command"
            ) from None


def check_transaction_id(transaction_id: str) -> str:
    """Return the id unchanged, or raise `WorkflowError` that says which characters are allowed."""
    if not isinstance(transaction_id, str) or not TRANSACTION_ID.fullmatch(transaction_id):
        raise WorkflowError(
            f"transaction id {transaction_id!r} cannot be used: expected 1 to 128 characters of A-Z a-z 0-9 . _ : @ -; "
            f"choose another id or replace the other characters"
        )
    return transaction_id


def new_nonce() -> str:
    """What tells a run from all others that have had its id, or will: 48 random bits."""
    return token_urlsafe(6)


@lru_cache(maxsize=1024)  # asked several times at every step
def identity_of(transaction_id: str, nonce: str) -> str:
    """A run told apart from others with its id: in due entries, in the holders of locks, and to the scripts.

    >>> identity_of("order-1", "5f0cR-2x"), parse_identity("order-1~5f0cR-2x")
    ('order-1~5f0cR-2x', ('order-1', '5f0cR-2x'))
    """
    return f"{transaction_id}~{nonce}" if nonce else transaction_id


def parse_identity(identity: str) -> tuple[str, str]:
    """The inverse of `identity_of`."""
    transaction_id, _, nonce = identity.partition("~")
    return transaction_id, nonce


def idempotency_key(transaction_id: str, step: str, generation: int = 1, origin: str = "") -> str:
    """The key of a step of a run: the same for every attempt and for its undo (rule S25).

    Args:
        transaction_id: the run.
        step: the step.
        generation: 1; one more for each run before it with this id that it replaced, for it is another run.
        origin: of a step that a fork has taken over: the run that did it, as `origin_of` writes it.

    >>> idempotency_key("order-1", "charge"), idempotency_key("order-1", "charge", 2)
    ('order-1/charge', 'order-1~2/charge')
    """
    return f"{origin or origin_of(transaction_id, generation)}/{step}"


def origin_of(transaction_id: str, generation: int) -> str:
    """A run as the idempotency keys of its steps begin.

    >>> origin_of("order-1", 2), parse_origin("order-1~2")
    ('order-1~2', ('order-1', 2))
    """
    return transaction_id if generation == 1 else f"{transaction_id}~{generation}"


def parse_origin(origin: str) -> tuple[str, int]:
    """The inverse of `origin_of`."""
    transaction_id, _, generation = origin.partition("~")
    return transaction_id, int(generation or 1)


def transaction_id_of(workflow: str, idempotency_key: str) -> str:
    """The id of the run that a caller's own key stands for: always the same for the same workflow and key.

    Args:
        workflow: the definition's name.
        idempotency_key: any characters, of any length.

    >>> transaction_id_of("order", "basket 7/ü")
    'order:key:e10b08d7731ef7401ed7fedd4c3edff2'
    """
    told_apart = f"{workflow}\0{idempotency_key}".encode(errors="surrogatepass")
    return f"{workflow[:90]}:key:{sha256(told_apart).hexdigest()[:32]}"


def task_step(task: str) -> str:
    """What the worker is called that calls a Celery task.

    >>> task_step("shop.tasks.charge")
    'shop.tasks.charge.step'
    """
    return f"{task}{TASK_STEP}"


def child_id(transaction_id: str, step: str, generation: int = 1) -> str:
    """The id of the run that a step of a run is.

    >>> child_id("order-1", "payment"), child_id("album-1", "resize[3]")
    ('order-1:payment', 'album-1:resize:3')
    """
    told_apart = "" if generation == 1 else f":g{generation}"
    name = re.sub(r"[^A-Za-z0-9._:@-]", ":", step).rstrip(":")
    full = f"{transaction_id}{told_apart}:{name}"
    if len(full) <= 128:
        return full
    return f"{full[:90]}:{sha256(f'{transaction_id}/{generation}/{step}'.encode()).hexdigest()[:32]}"
