"""The port behind which runs are kept; `records` has the values that go through it.

What the store promises:

1. A `Commit` is applied whole or not at all: facts, state, timers and the next messages together (guarantee G1). It is
   fenced: by the attempt it answers, by the epoch of the run (which rises when what workers have in hand of it is
   overtaken), or by the run's version (which every commit raises).
2. Every call may be sent twice. The second finds the fence gone and changes nothing.
3. The store's clock is the only clock: leases and timers are set by it and compared with it.
4. Ids of runs come back, and a run is its id and its *nonce* (rule S32). Whatever is told of a run that is not there
   any more is refused, also when another one has its id by now; and so are the entries that it has left.
5. Every attempt in flight has a *record*: dispatched, waiting for its time, or claimed under a lease. Whoever holds no
   record has no say. Every record has an entry in ``due`` or, while its message waits in a broker list, in ``sent``; so
   no run is ever without somebody who looks after it (guarantee G4).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from multiagents.events import Event
from multiagents.exceptions import ConfigurationError, MultiAgentsError, StateStoreError
from multiagents.names import Correlation
from multiagents.state_store.budgets import Budgets
from multiagents.state_store.examples import Examples
from multiagents.state_store.isolation import Isolation
from multiagents.state_store.journal import Journal
from multiagents.state_store.payloads import PayloadPolicy, Payloads
from multiagents.state_store.programs import Programs
from multiagents.state_store.records import (
    Announced,
    Claim,
    Commit,
    Committed,
    Dispatch,
    Due,
    Ending,
    Renewal,
    Snapshot,
    Started,
    Verdict,
)
from multiagents.state_store.schedules import Schedules
from multiagents.state_store.streams import Streams
from multiagents.state_store.visibility import Visibility
from multiagents.workflow.decider import all_results
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunState, RunStatus

#: How many tombstones of deleted runs a partition keeps.
MAX_DELETED = 10_000
#: Of how many ids of runs that are gone a partition remembers how many runs have had them: some 10 MB.
MAX_GENERATIONS = 100_000
#: What is logged, with the store and the seconds.
CLOCK_WAS_SET = "the clock of %s was set %s by %.1f s; what was to happen after a while is moved by as much"

#: How many dead letters of a partition go at once when their time is over.
TIDIED_AT_ONCE = 1_000

logger = logging.getLogger(__name__)


@contextmanager
def unread(transaction_id: str) -> Iterator[None]:
    """Leave out a run that cannot be read, where many are looked at, and warn of it (rule S34)."""
    try:
        yield
    except (StateStoreError, ConfigurationError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever is stored there
        logger.warning("run %s is left out, for it cannot be read: %s: %s", transaction_id, type(error).__name__, error)


class StateStore(ABC):
    """Where runs live. Every method is safe to call again, and safe to call from any thread.

    What is no part of a run's own life are objects of their own, which an implementation makes.
    """

    #: in what form data is stored
    policy: PayloadPolicy
    #: locks on business keys, and limits by key
    isolation: Isolation
    #: the calls inside steps, to models and tools
    journal: Journal
    #: what agents have done, to learn from
    examples: Examples
    #: what steps say while they run
    streams: Streams
    #: what may be spent under keys, and what was
    budgets: Budgets
    #: runs found and counted, and what is shown of all of them
    visibility: Visibility
    #: how far schedules have come
    schedules: Schedules
    #: what agents have learned
    programs: Programs

    @abstractmethod
    def start(
        self,
        definition: Definition,
        state: RunState,
        commit: Commit,
        input: Any,
        digest: str,
        *,
        call: str = "",
        replaces: Collection[RunStatus] = (),
    ) -> Started:
        """Create a run with its first commit, unless it exists.

        Args:
            definition: kept as a snapshot by its content hash (rule S26).
            state: the run after the commit.
            commit: its first facts and dispatches.
            input: the run's input, a JSON object.
            digest: hash of the input, to tell a repeated start from a different one.
            call: a token of this very call: sent twice, it gets the same answer. Without it, the second is told that
                the run exists.
            replaces: statuses in which a run that exists goes, with all that belongs to it, in favour of the new one.
        """

    @abstractmethod
    def definition(self, content_hash: str, transaction_id: str) -> Definition:
        """A definition that runs in the partition of this one follow, or have followed.

        Raises:
            WorkflowNotFoundError: when none of them did.
        """

    @abstractmethod
    def claim(
        self,
        correlation: Correlation,
        definition_hash: str,
        *,
        owner: str,
        worker: str,
        timeout: float | None,
        heartbeat_timeout: float | None = None,
        task: str = "",
    ) -> Claim:
        """Take an attempt under a lease, and get all that running and deciding it needs. One round trip.

        A re-sent claim with the same owner gets the same answer.

        Args:
            correlation: the attempt.
            definition_hash: which definition its run follows, as the message says.
            owner: a token of this very execution.
            worker: who runs it (a Celery node name).
            timeout: seconds from now to the time limit, where the step does not say; None is none.
            heartbeat_timeout: seconds between two heartbeats, where the step does not say; None asks for none.
            task: the worker's name; what a step says of its limits is not for its probe.

        Raises:
            ClaimRefused: when it is not to be run.
            WorkflowNotFoundError: when nobody knows the definition: the message came from another database.
        """

    @abstractmethod
    def renew(self, correlation: Correlation, owner: str, *, beat: bool = False, detail: Any = None) -> Renewal:
        """Extend a lease; with ``beat`` it counts as the worker's own heartbeat."""

    @abstractmethod
    def commit(self, commit: Commit) -> Committed:
        """Apply a transition, or refuse it whole."""

    @abstractmethod
    def dispatch(self, identity: str, dispatch: Dispatch, expected: str, *, begun: bool = False) -> bool:
        """Send an attempt out (again), if its record is still the expected one; no fact comes of it.

        Args:
            identity: the run, as `multiagents.names.identity_of` writes it.
            dispatch: how it goes out.
            expected: its record.
            begun: a worker has had it, and it may have taken effect: `Snapshot.is_begun` says so from now on.
        """

    @abstractmethod
    def postpone(self, entry: str, transaction_id: str, delay_ms: int) -> None:
        """Look at a due entry again later."""

    @abstractmethod
    def discard(self, entry: str, transaction_id: str) -> None:
        """Remove a due entry that asks for nothing any more."""

    @abstractmethod
    def expire(self, correlation: Correlation, why: str = "") -> bool:
        """Make the lease of an attempt due now: its worker is known to be dead.

        Args:
            correlation: the attempt.
            why: how it came to its end, to be told with the loss: ``was killed by signal 9 (SIGKILL)``.

        Returns:
            whether anybody held it.
        """

    @abstractmethod
    def hold(self, attempts: Sequence[Correlation]) -> None:
        """Say that messages have been taken and not begun with, so that they do not count as lost for another lease.

        Args:
            attempts: theirs; of one that was claimed, or sent again later, nothing changes.
        """

    @abstractmethod
    def take_due(self, *, limit: int = 100, waker: str = "", starts: str = "") -> tuple[list[Due], float]:
        """Lease what is due, over all partitions.

        Args:
            limit: how many entries of a partition, at most.
            waker: the name of who asks, if he would wake whenever something is due: one at a time is told when that is.
            starts: what the names of broker lists end with in which starts of runs wait behind everything else; one
                that has waited for some seconds goes on in the list of that name without it.

        Returns:
            the entries, and the seconds until the next one is due; an hour if that is far, or somebody else's to know.
        """

    @abstractmethod
    def waiting(self, named: str, *, limit: int = 100) -> dict[str, list[Due]]:
        """Attempts whose message waits in a broker list, by list, of the lists whose name has ``named`` in it.

        Args:
            named: part of the names.
            limit: how many of a list, and partition, at most: those that have waited longest.
        """

    @abstractmethod
    def broker_lists(self) -> list[str]:
        """The broker lists that commits have pushed messages to."""

    @abstractmethod
    def load(self, transaction_id: str) -> Snapshot:
        """The whole state of a run.

        Raises:
            WorkflowNotFoundError: when there is no such run.
        """

    @abstractmethod
    def load_many(self, transaction_ids: Sequence[str]) -> dict[str, Snapshot]:
        """Those of these runs that there are, as `load` gives each: for who looks at many, in one round trip for 100.

        One that cannot be read is left out, and warned of: it must not keep the others from being seen.
        """

    @abstractmethod
    def payloads(self, transaction_id: str) -> Payloads:
        """The data of a run."""

    def results(self, transaction_id: str) -> dict[str, Any]:
        """Step -> result, of exactly those steps that have one, be it ``{}`` or None."""
        seen = self.load(transaction_id)
        return all_results(seen.definition, seen.state, self.payloads(transaction_id).results)

    @abstractmethod
    def history(self, transaction_id: str, after: int = 0) -> list[Event]:
        """The events of a run, oldest first, from the n-th on."""

    @abstractmethod
    def details(self, transaction_id: str, steps: Sequence[str]) -> dict[str, Any]:
        """Step -> what its last heartbeat said, as it may be shown; of those that have said something."""

    @abstractmethod
    def archive(self, transaction_id: str, keep: int = 1) -> int:
        """Move the oldest events of a run to the archive; `history` goes on giving all of them.

        Args:
            transaction_id: the run.
            keep: how many of the newest stay, at least 1.

        Returns:
            how many were moved, by whoever moved them.

        Raises:
            ConfigurationError: when there is no archive.
            PayloadStoreError: when the archive did not take them; they stay.
            WorkflowNotFoundError: when there is no such run.
        """

    @abstractmethod
    def status(self, transaction_id: str) -> RunStatus:
        """The status of a run alone, at the price of one field.

        Raises:
            WorkflowNotFoundError: when there is no such run.
        """

    @abstractmethod
    def ending(
        self, transaction_id: str, after: int | None = None, *, entry: str | None = None, poll: float = 1.0
    ) -> Ending:
        """Begin to wait for the end of a run. Neither blocks nor asks anything, and holds no thread and no connection.

        Args:
            transaction_id: the run.
            after: wait no longer than until its version is another one than this.
            entry: wait no longer than until its stream has more than this entry (`StreamPage.offset`).
            poll: seconds between two looks, where the store has to look; if it has to at many runs, they come later.

        Returns:
            a future whose result is the status at the end, or the error `status` would raise; who waits no more cancels
            it.
        """

    def wait_for_end(self, transaction_id: str, timeout: float | None) -> RunStatus:
        """Block until the run is over.

        Raises:
            TimeoutError: when it is not, after ``timeout`` seconds.
            WorkflowNotFoundError: when there is no such run.
        """
        status = self.status(transaction_id)
        if status.is_end:
            return status
        ending = self.ending(transaction_id)
        try:
            return ending.result(timeout)
        except TimeoutError:
            raise still_running(transaction_id, ending.seen or status, timeout) from None
        finally:
            ending.cancel()

    @abstractmethod
    def forget(self, identity: str, seen_ms: int | None = None) -> bool:
        """Remove a run that is over, with everything that belongs to it.

        Of its id it is kept how many runs have had it, as after `delete` and where a run is replaced: the next one is
        another, and its steps have idempotency keys of their own. The last `MAX_GENERATIONS` of a partition are kept.

        Args:
            identity: the run; another one that has its id by now stays.
            seen_ms: refuse if its due entry has changed since (`Due.seen_ms`): another run may have taken its id.

        Returns:
            whether it is gone.
        """

    @abstractmethod
    def delete(self, identity: str, *, status: RunStatus, tombstone: str, dead_letters: Sequence[str] = ()) -> Verdict:
        """Erase a run with everything that belongs to it, and keep a tombstone.

        Args:
            identity: the run; another one that has its id by now stays.
            status: refuse if it is in another (`Verdict.CONFLICT`).
            tombstone: what is kept in its place; no two are alike. The last `MAX_DELETED` of a partition are kept.
            dead_letters: the dead letters that go with it, by their keys.
        """

    @abstractmethod
    def bury(self, transaction_id: str, key: str, letter: Mapping[str, Any]) -> None:
        """Keep what could not be delivered or undone, with its payload."""

    @abstractmethod
    def dead_letter(self, transaction_id: str, key: str) -> dict[str, Any] | None:
        """What was buried under a key, as it was; None if nothing was."""

    @abstractmethod
    def unbury(self, key: str) -> None:
        """Take away what was buried under a key, if it is there."""

    @abstractmethod
    def tidy(self, letters_ms: int) -> list[str]:
        """Drop what belongs to no run and is not needed any more.

        That is the numbering of broker lists in which nothing waits, and dead letters that nobody has settled for long
        enough, at most `TIDIED_AT_ONCE` of a partition.

        Args:
            letters_ms: how long a dead letter is kept.

        Returns:
            the keys of the dead letters that went.
        """

    @abstractmethod
    def announce(self, entries: Mapping[str, Mapping[str, Any]], gone: Collection[str] = ()) -> None:
        """Write down, for all processes, what a worker process has to say of itself, and when it has said so.

        Args:
            entries: name -> what is said, as `multiagents.state_store.records.announced` has it.
            gone: names of entries that go.
        """

    @abstractmethod
    def announced(self) -> Announced:
        """What was announced and still counts."""

    @abstractmethod
    def now(self) -> datetime:
        """The store's clock."""

    def reach(self) -> None:  # noqa: B027 - what is in this process is always within reach
        """Ask the server for a sign of life.

        Raises:
            StateStoreError: when it gives none.
        """

    @abstractmethod
    def check(self) -> list[str]:
        """What is wrong with the server's version and settings, in words; it raises when it cannot be used at all."""

    def _shorten(self, transaction_id: str) -> None:
        """Move older events of a run whose history has become too long; if that fails, the next commit tries again."""
        try:
            self.archive(transaction_id, keep=self.policy.history_limit or 1)
        except MultiAgentsError as error:
            logger.warning("older events of run %s stay where they are: %s", transaction_id, error)

    def for_sweep(self) -> StateStore:
        """The same store, with a client that gives up at once: the sweep asks again at its next tick."""
        return self

    def close(self) -> None:  # noqa: B027 - a store without connections has none
        """Give connections back."""


def still_running(transaction_id: str, status: RunStatus | None, timeout: float | None) -> TimeoutError:
    """What whoever waited long enough for a run's end is told; without a status, nobody has looked yet."""
    return TimeoutError(
        f"run {transaction_id!r} is still {status or 'going on'} after {timeout} s; it goes on: ask again with "
        f"result(), or see describe()"
    )
