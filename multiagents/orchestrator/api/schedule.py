"""Runs that are started by the clock.

Celery beat sends a tick; what starts a run is `Orchestrator.start` with an id made of the schedule's name and the
tick's time. So it does not matter how often a tick comes, how late, from how many beats or after which crash: a tick
has one run, as long as that run is kept. How far a schedule has come is in the store, so a tick whose message is late
is made up for by the next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from multiagents.clock import from_ms, to_ms
from multiagents.exceptions import ConfigurationError, WorkflowError, did_you_mean
from multiagents.orchestrator.api.run import Run
from multiagents.orchestrator.api.start import start
from multiagents.orchestrator.engine import OnConflict
from multiagents.orchestrator.runtime import Runtime
from multiagents.orchestrator.schedules import Ticks
from multiagents.plain_json import check_words, dumps, plain
from multiagents.workflow.definition import Definition, definitions

#: A schedule's name: with the tick's time behind it, it is a transaction id.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,95}")

Input = Mapping[str, Any] | Callable[[datetime], Mapping[str, Any]] | None


class Schedule:
    """A workflow that is started by the clock. Made by `Orchestrator.schedule`.

    Attributes:
        name: the schedule's.
        workflow: what is started, or its name.
    """

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        workflow: Definition | str,
        ticks: Ticks,
        input: Input,
        attributes: Mapping[str, Any] | None,
        *,
        catch_up: bool,
    ) -> None:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigurationError(
                f"schedule name {name!r:.120} cannot be used: expected 1 to 96 characters of A-Z a-z 0-9 _ . @ -; "
                f"choose another name"
            )
        self._runtime = runtime
        self.name = name
        self.workflow = workflow if isinstance(workflow, str) else definitions.meant(workflow, "schedule()")
        self.ticks = ticks
        self._input: Input = input
        if isinstance(input, Mapping):
            self._input = plain(input, f"the input of schedule {name!r}", error=ConfigurationError)
        self._attributes = dict(attributes or {})
        self._catch_up = catch_up

    def tick(self) -> list[Run]:
        """Start what is due now and was not started yet; what beat's task does. Safe to repeat, from anywhere.

        Returns:
            the runs of the ticks that were due; none while the schedule is paused.
        """
        store = self._runtime.store
        last_ms, paused = store.schedules.state(self.name)
        last, until = None if last_ms is None else from_ms(last_ms), store.now() + self.ticks.early
        if last is not None and last > until:
            last = None  # The clock has been set back. What is ticked again has its run.
        due = self.ticks.due(last, until, catch_up=self._catch_up and paused is None)
        runs = [] if paused is not None else [self._start(moment) for moment in due]
        if due:
            # After the starts: who dies in between starts the same runs again, and finds them.
            store.schedules.ticked(self.name, to_ms(due[-1]))
        return runs

    def backfill(self, since: datetime, until: datetime, *, limit: int = 1_000) -> list[Run]:
        """Start the runs of the ticks in a stretch of time, also of those that passed while the schedule was paused.

        A tick that has its run already gets that one.

        Args:
            since: the first moment.
            until: the last moment; not in the future.
            limit: how many ticks at most.

        Raises:
            WorkflowError: when there are more ticks, and nothing was started; or when a time cannot be used.

        >>> runs = schedule.backfill(now - timedelta(days=7), now)  # doctest: +SKIP
        """
        if since.tzinfo is None or until.tzinfo is None:
            raise WorkflowError(f"backfill from {since} until {until} has no time zone; expected times with one")
        until = min(until, self._runtime.store.now())
        moments: list[datetime] = []
        for moment in self.ticks.between(since - timedelta(microseconds=1), until):
            if len(moments) == limit:
                raise WorkflowError(
                    f"schedule {self.name!r} has more than {limit} ticks from {since} until {until}; nothing was "
                    f"started: give a shorter stretch, or a higher limit="
                )
            moments.append(moment)
        return [self._start(moment) for moment in moments]

    def pause(self, *, reason: str | None = None, actor: str | None = None) -> None:
        """Start nothing until it is resumed, whoever ticks. Ticks that pass meanwhile are left to `backfill`.

        Args:
            reason: why, for whoever asks.
            actor: who.
        """
        check_words(reason=reason, actor=actor)
        self._runtime.store.schedules.pause(self.name, dumps({"reason": reason, "actor": actor}))

    def resume(self) -> None:
        """Go on with the next tick."""
        store = self._runtime.store
        if store.schedules.state(self.name)[1] is not None:
            # The ticks that passed meanwhile are over, also if no beat came by to say so.
            passed = self.ticks.latest(store.now())
            if passed is not None:
                store.schedules.ticked(self.name, to_ms(passed))
            store.schedules.pause(self.name, None)

    @property
    def paused(self) -> Mapping[str, Any] | None:
        """Why it is paused and by whom (``reason``, ``actor``); None when it is not."""
        found = self._runtime.store.schedules.state(self.name)[1]
        return None if found is None else json.loads(found)

    @property
    def last_tick(self) -> datetime | None:
        """The last tick that was dealt with; None before the first."""
        last_ms = self._runtime.store.schedules.state(self.name)[0]
        return None if last_ms is None else from_ms(last_ms)

    def run_id(self, tick: datetime) -> str:
        """The id of a tick's run."""
        return f"{self.name}:{tick.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"

    def is_same(self, other: Schedule) -> bool:
        """Whether another one says the same: a module may be imported twice."""
        return (str(self.workflow), self.ticks, self._attributes, self._catch_up) == (
            str(other.workflow),
            other.ticks,
            other._attributes,
            other._catch_up,
        )

    def _start(self, tick: datetime) -> Run:
        given = self._input(tick) if callable(self._input) else self._input
        return start(
            self._runtime,
            self.workflow,
            None if given is None else dict(given),
            self.run_id(tick),
            on_conflict=OnConflict.RETURN,
            attributes={**self._attributes, "schedule": self.name, "tick": tick},
        )

    def __repr__(self) -> str:
        return f"<Schedule {self.name!r}>"


class Schedules(dict[str, Schedule]):
    """The schedules of this process, by name."""

    def add(self, schedule: Schedule) -> None:
        """Take a schedule in.

        Raises:
            ConfigurationError: when there is another one of this name.
        """
        known = self.get(schedule.name)
        if known is not None and not known.is_same(schedule):
            raise ConfigurationError(
                f"schedule {schedule.name!r} is there already, for workflow {known.workflow} and at other times or "
                f"with other options; a schedule is found by its name: rename one of them"
            )
        self[schedule.name] = schedule

    def named(self, name: str) -> Schedule:
        """The schedule of this name.

        Raises:
            ConfigurationError: when this process has none.
        """
        try:
            return self[name]
        except KeyError:
            raise ConfigurationError(
                f"there is no schedule {name!r} in this process{did_you_mean(name, self)} (schedules: "
                f"{', '.join(sorted(self)) or 'none'}); import the module that calls orchestrator.schedule(...)"
            ) from None
