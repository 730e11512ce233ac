"""The orchestrator: what starts, finds and lists runs."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from multiagents.exceptions import ConfigurationError
from multiagents.keys import Keys
from multiagents.names import check_transaction_id
from multiagents.orchestrator.api.bulk import BulkResult, bulk
from multiagents.orchestrator.api.dead_letters import DeadLetter, dead_letters
from multiagents.orchestrator.api.delete import Tombstone, tombstones
from multiagents.orchestrator.api.open_waits import OpenWait, open_waits
from multiagents.orchestrator.api.run import Run
from multiagents.orchestrator.api.schedule import Input, Schedule, Schedules
from multiagents.orchestrator.api.search import Filter, Statuses
from multiagents.orchestrator.api.start import start
from multiagents.orchestrator.dispatch.celery import CeleryDispatcher
from multiagents.orchestrator.engine import Engine, OnConflict
from multiagents.orchestrator.runtime import Runtime
from multiagents.orchestrator.schedules import CeleryTicks
from multiagents.settings import Settings
from multiagents.state_store import StateStore
from multiagents.state_store.records import Balance, Per, account_of
from multiagents.workflow.definition import Definition


@dataclass(frozen=True)
class RunPage:
    """A page of runs, newest first; iterating over it gives them.

    Attributes:
        runs: the runs.
        cursor: give it to `Orchestrator.list` for the next page; None on the last.
    """

    runs: list[Run] = field(default_factory=list)
    cursor: str | None = None

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, index: int) -> Run:
        return self.runs[index]


class Orchestrator:
    """Start and find the runs of workflows.

    Made by ``init_app(app)``, which is also how it becomes ``app.multiagents``. Nothing is connected, and no setting is
    read, before it is first used.

    Args:
        app: the Celery app.
        settings: settings that win over the app's configuration and the environment, with or without ``multiagents_``.
    """

    #: Called with every new orchestrator: how the workers' side learns of it without either knowing the other.
    created: ClassVar[list[Callable[[Orchestrator], None]]] = []

    def __init__(self, app: Any, settings: Any = None) -> None:
        self.app = app
        self.runtime = Runtime(app, settings)
        #: what `schedule` made, by name
        self.schedules = Schedules()
        app.multiagents = self
        for hook in self.created:
            hook(self)

    @property
    def settings(self) -> Settings:
        """The settings in force; they are read when first needed."""
        return self.runtime.settings

    @property
    def keys(self) -> Keys:
        """The names of the keys in Redis."""
        return self.runtime.keys

    @property
    def store(self) -> StateStore:
        """Where runs live."""
        return self.runtime.store

    @property
    def dispatcher(self) -> CeleryDispatcher:
        """How attempts go out."""
        return self.runtime.dispatcher

    @property
    def engine(self) -> Engine:
        """What advances runs."""
        return self.runtime.engine

    # --- runs --------------------------------------------------------------------------------------------------------

    def start(
        self,
        workflow: Definition | str,
        input: dict[str, Any] | None = None,
        transaction_id: str | None = None,
        *,
        idempotency_key: str | None = None,
        on_conflict: OnConflict | str = OnConflict.RETURN_SAME,
        attributes: Mapping[str, Any] | None = None,
    ) -> Run:
        """Start a run; when this returns, it is durable and its first steps are on their way.

        Args:
            workflow: a definition, or the name of one that is registered in this process.
            input: the first context: a dict of what can be written as JSON.
            transaction_id: the run's id; made up if left out. Starting again with the same workflow and input gives the
                run that exists, so a caller may repeat a start whose answer it did not get.
            idempotency_key: in place of an id: the caller's own key, of any characters and length. The id is made of
                the workflow's name and the key, so the same key gives the same run as long as it is kept: until its
                retention is over, or it is deleted. After that the key starts a new run.
            on_conflict: what to do when the run exists: ``"return_same"`` gives it if workflow and input are the same,
                ``"return"`` whatever they were, ``"fail"`` never. ``"replace_ended"`` starts a new run in place of one
                that has ended, ``"replace_failed"`` in place of one that did not end as completed; otherwise both do as
                ``"return_same"``. Of a replaced run nothing is left but its dead letters; the steps of the new one have
                idempotency keys of their own. A start with ``"fail"`` that is repeated finds its own run and fails.
            attributes: what the run is found by (`Run.set_attributes`); a run that exists keeps its own.

        Raises:
            WorkflowAlreadyExistsError: when there is a run with this id that ``on_conflict`` does not give.
            WorkflowNotFoundError: when no workflow of this name is registered here.
            WorkflowError: when the id, the key, the policy, the input or an attribute cannot be used.
            StateStoreError: when the store does not answer. The run may or may not have started: start it again with
                the same id.

        >>> run = orchestrator.start("order", {"order_id": "A-1"}, transaction_id="order-A-1")  # doctest: +SKIP
        >>> run = orchestrator.start("order", {"order_id": "A-1"}, idempotency_key="basket 7/ü")  # doctest: +SKIP
        """
        return start(
            self.runtime,
            workflow,
            input,
            transaction_id,
            idempotency_key=idempotency_key,
            on_conflict=on_conflict,
            attributes=attributes,
        )

    def get(self, transaction_id: str) -> Run:
        """A handle on a run.

        Raises:
            WorkflowNotFoundError: when there is no such run.
        """
        run = Run(self.runtime, check_transaction_id(transaction_id))
        _ = run.status
        return run

    def list(
        self,
        workflow: Definition | str | None = None,
        status: Statuses = None,
        since: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
        *,
        attributes: Mapping[str, Any] | None = None,
        version: str | None = None,
        live: bool = False,
    ) -> RunPage:
        """A page of runs, newest first.

        With attributes, a version or ``live``, a page may be shorter than ``limit``, and even empty, and not the last:
        one call looks at no more than a thousand runs of a partition, or at ``limit`` runs for a version or ``live``.
        Go on until ``cursor`` is None.

        Args:
            workflow: of this definition only.
            status: in this status, or one of these, only.
            since: started at this time or later only.
            limit: how many at most.
            cursor: where the page before ended (`RunPage.cursor`).
            attributes: with all of these only: a str, number or datetime to be equal to, or two numbers or datetimes to
                lie between, both included, of which one may be None. If all are ranges, runs come in the order of the
                first one's values, largest first.
            version: of this version of the workflow only.
            live: those only that are over without having completed, and have left effects that nobody undid
                (``describe().live``).

        Raises:
            WorkflowError: when there is no such status, or an attribute or the cursor was not understood.

        >>> page = orchestrator.list("order", attributes={"customer": "c-1", "amount": (10, 20)})  # doctest: +SKIP
        """
        asked = Filter.of(workflow, status, since, attributes, version=version, live=live)
        page = asked.page(self.runtime.store, limit, cursor)
        return RunPage([Run(self.runtime, identity) for identity in page.transaction_ids], page.cursor)

    def count(
        self,
        workflow: Definition | str | None = None,
        status: Statuses = None,
        *,
        attributes: Mapping[str, Any] | None = None,
    ) -> int:
        """How many runs there are, of a workflow, in a status and with attributes if given.

        One attribute alone costs one look; together with others, or with a workflow or status, all runs that have the
        rarest text, or lie in the first range, are looked at, a thousand at a time.
        """
        return Filter.of(workflow, status, attributes=attributes).count(self.runtime.store)

    def bulk(
        self,
        verb: str,
        workflow: Definition | str | None = None,
        status: Statuses = None,
        since: datetime | None = None,
        *,
        attributes: Mapping[str, Any] | None = None,
        dry_run: bool = False,
        limit: int = 1_000,
        cursor: str | None = None,
        reason: str | None = None,
        actor: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> BulkResult:
        """Do a verb of `Run` to many runs: ``"cancel"``, ``"delete"`` or another one that takes a reason and an actor.

        The filter is that of `list`; of the runs that it finds, those are left alone in whose status the verb does
        nothing. Each run is done by itself, one after the other; what goes wrong with one is told, and the others are
        done. When the store does not answer, the call ends, and its cursor goes on from the page it was at.

        Args:
            verb: the method's name.
            workflow: of this definition only.
            status: in this status, or one of these, only.
            since: started at this time or later only.
            attributes: with all of these only.
            dry_run: do nothing, and tell for which runs it would be done.
            limit: how many runs at most; the result's cursor goes on.
            cursor: where the call before ended.
            reason: why, for the history of each.
            actor: who, for the history of each.
            arguments: what else the verb takes.

        Raises:
            WorkflowError: when there is no such verb, no filter, or one that was not understood.

        >>> seen = orchestrator.bulk("cancel", attributes={"customer": "c-1"}, dry_run=True)  # doctest: +SKIP
        >>> seen.counts  # doctest: +SKIP
        {'would_cancel': 12}
        """
        given = {"reason": reason, "actor": actor, **(arguments or {})}
        asked = Filter.of(workflow, status, since, attributes)
        return bulk(self.runtime, verb, asked, dry_run=dry_run, limit=limit, cursor=cursor, arguments=given)

    def schedule(
        self,
        name: str,
        workflow: Definition | str,
        when: Any,
        input: Input = None,
        *,
        attributes: Mapping[str, Any] | None = None,
        catch_up: bool = False,
    ) -> Schedule:
        """Have a workflow started by the clock: Celery beat ticks, and every tick has one run, from however many beats.

        Call it where beat and the workers import it, as with tasks. The run's id is the schedule's name and the tick's
        time; it is found by the attributes ``schedule`` and ``tick``, too. With redbeat give a crontab: it knows
        intervals from its own start only, so that the run of a tick comes late.

        Args:
            name: the schedule's; at most 96 characters of A-Z a-z 0-9 _ . @ -.
            workflow: what is started.
            when: seconds, a timedelta, a ``celery.schedules.crontab`` or its text. Seconds are counted from 1970, a
                crontab is read in the app's ``timezone``. In the night when the clocks there go back, one for every
                hour ticks in both passes of the hour that comes twice, and one for a fixed hour once.
            input: of each run; or what makes it of the tick's time, the same each time it is asked.
            attributes: what the runs are found by besides.
            catch_up: start what was missed while no beat or worker ran, too; without it only the latest tick of those.

        Raises:
            ConfigurationError: when ``when`` or the name cannot be used, or another schedule has the name.

        >>> nightly = orchestrator.schedule("nightly", "report", "30 2 * * *")  # doctest: +SKIP
        >>> nightly.pause(reason="the warehouse moves", actor="ann")  # doctest: +SKIP
        """
        ticks = CeleryTicks(self.app, when)
        made = Schedule(self.runtime, name, workflow, ticks, input, attributes, catch_up=catch_up)
        self.schedules.add(made)
        ticks.register(self.app, name)
        return made

    def waiting(
        self,
        workflow: Definition | str | None = None,
        signal: str | None = None,
        since: datetime | None = None,
        *,
        limit: int = 1_000,
    ) -> builtins.list[OpenWait]:
        """All that waits for somebody: for a signal, an approval, or an operator; in children, too.

        Every run that is not over is looked at, one after the other, until so many were found.

        Args:
            workflow: in runs of this definition, and in the runs that are their steps, only.
            signal: for the signal of this name only.
            since: begun to wait at this time or later only; what an operator is waited for since is not known.
            limit: how many at most.

        Returns:
            those that have waited longest first; of each the ``run``, the ``step``, the ``kind``, ``since``, and
            ``waiting`` in words.

        >>> for each in orchestrator.waiting("order", signal="approval"):  # doctest: +SKIP
        ...     each.run.signal("approval", {"approved": True}, actor="ann")
        """
        return open_waits(self.runtime, workflow, signal, since, limit)

    def budget(self, key: str, per: str = "day", at: datetime | None = None) -> Balance:
        """How it stands with the budget of a key: what is spent of it, and set aside for calls under way.

        Args:
            key: what has it, its fields filled in: ``"tenant:acme"``.
            per: ``day`` or ``month``; what a run has spent is in its ``describe()``.
            at: a time in the day or the month, which is kept for as long as runs are (``multiagents_retention``); None:
                now.

        Raises:
            ConfigurationError: when it is for something else than a day or a month.

        >>> orchestrator.budget("tenant:acme", per="month").spent.usd  # doctest: +SKIP
        12.5
        """
        if per not in (Per.DAY, Per.MONTH):
            raise ConfigurationError(
                f"a budget is looked at by its day or its month, got per={per!r:.80}; what a run has spent is in "
                f"run.describe().steps[...].usage"
            )
        store = self.runtime.store
        return store.budgets.balance(account_of(key, Per(per), at or store.now()))

    def dead_letters(
        self, workflow: str | None = None, step: str | None = None, transaction_id: str | None = None
    ) -> dict[str, DeadLetter]:
        """What could not be delivered or undone: correlation id -> why, and the data that it takes to act on it.

        What ``multiagents_redact`` names is not shown; the letters themselves have it (`Visibility.dead_letters`).

        Args:
            workflow: about runs of this workflow only.
            step: about this step only.
            transaction_id: about this run only.

        >>> for letter in orchestrator.dead_letters("order", "charge").values():  # doctest: +SKIP
        ...     letter.retry(reason="the bank is back", actor="ann")
        """
        return dead_letters(self.runtime, workflow, step, transaction_id)

    def deleted(self, limit: int = 100, before: datetime | None = None) -> builtins.list[Tombstone]:
        """What is kept of runs that were deleted, newest first; the last 10,000 of a partition.

        Args:
            limit: how many at most.
            before: deleted before this time only: `Tombstone.deleted_at` of the last one gives those that follow.
        """
        return tombstones(self.runtime.store, limit, before)

    def __repr__(self) -> str:
        return f"<Orchestrator of Celery app {self.app.main!r}>"
