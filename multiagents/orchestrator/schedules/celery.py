"""Ticks as Celery's schedules have them, and as beat is told of them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, cast

from celery.schedules import crontab, schedstate, schedule

from multiagents.exceptions import ConfigurationError
from multiagents.names import TICK_TASK
from multiagents.orchestrator.schedules.base import Ticks

#: Seconds by which a beat's clock may be ahead of the store's.
EARLY = 5.0
#: What every hour of a day is, and by how much clocks may go back.
HOURS = 24
GOES_BACK = timedelta(hours=4)


class Every(schedule):
    """Due at every multiple of so many seconds since 1970: all beats, and all that ask, agree on the ticks."""

    run_every: timedelta

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """How long it is from now to the tick after the last run."""
        return self.after(self.maybe_make_aware(last_run_at)) - self.maybe_make_aware(self.now())

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Whether that tick has come, and the seconds to the next look."""
        left = self.remaining_estimate(last_run_at).total_seconds()
        if left > 0:
            return schedstate(is_due=False, next=left)
        now = self.maybe_make_aware(self.now())
        return schedstate(is_due=True, next=(self.after(now) - now).total_seconds())

    def after(self, moment: datetime) -> datetime:
        """The first tick after a moment."""
        seconds = self.run_every.total_seconds()
        return datetime.fromtimestamp((math.floor(moment.timestamp() / seconds) + 1) * seconds, UTC)


class WallClock(crontab):
    """A crontab that counts the hours of a night in which the clocks go back as they pass.

    Where every hour is meant, so is the one that comes twice, both times; a fixed hour is meant once (the first time).
    """

    # What crontab keeps of its fields, which has no types of its own.
    minute: set[int]
    hour: set[int]
    day_of_week: set[int]
    day_of_month: set[int]
    month_of_year: set[int]

    @classmethod
    def of(cls, given: crontab, app: Any) -> WallClock:
        """The same as somebody has written it, read in the app's time zone."""
        written = given.__reduce__()[1]
        return cls(*written, nowfun=getattr(given, "nowfun", None), app=app)

    def remaining_estimate(self, last_run_at: datetime, ffwd: Any = None) -> timedelta:  # noqa: ARG002 - Celery's
        """How long it is from now to the tick after the last run."""
        return self.after(self.maybe_make_aware(last_run_at)) - self.maybe_make_aware(self.now()).astimezone(UTC)

    def after(self, moment: datetime) -> datetime:
        """The first tick after a moment."""
        found = self._as_clocks_show(moment)
        near = self._offset(moment - GOES_BACK), self._offset(min(found, moment + GOES_BACK))
        if len(self.hour) < HOURS or near[0] <= near[1]:
            return found
        # The clocks go back hereabouts, and what they show says nothing: minute by minute, as time passes.
        minute = moment.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        while minute < found and not self._shows(minute):
            minute += timedelta(minutes=1)
        return minute

    def _as_clocks_show(self, moment: datetime) -> datetime:
        """The first tick after a moment, as if no clock ever went back."""
        asked = moment
        while True:
            start, step, _ = self.remaining_delta(asked)
            found: datetime = (start + step).astimezone(UTC)
            if found > moment:
                return found
            asked += timedelta(minutes=1)

    def _local(self, moment: datetime) -> datetime:
        return moment.astimezone(cast("tzinfo", self.tz))

    def _offset(self, moment: datetime) -> timedelta:
        return self._local(moment).utcoffset() or timedelta()

    def _shows(self, moment: datetime) -> bool:
        local = self._local(moment)
        return (
            local.minute in self.minute
            and local.day in self.day_of_month
            and local.month in self.month_of_year
            and local.isoweekday() % 7 in self.day_of_week
        )


class CeleryTicks(Ticks):
    """The ticks of a Celery schedule.

    Args:
        app: whose time zone a crontab is read in.
        when: seconds (at least 1), a timedelta, a `celery.schedules.crontab`, or its text (``"30 2 * * *"``).

    Raises:
        ConfigurationError: when it is none of these.
    """

    def __init__(self, app: Any, when: Any) -> None:
        if isinstance(when, str):
            when = _read(when)
        if isinstance(when, int | float) and not isinstance(when, bool):
            when = timedelta(seconds=when)
        if isinstance(when, timedelta):
            if when < timedelta(seconds=1):
                raise ConfigurationError(f"a schedule ticks every {when.total_seconds():g} s; expected 1 s or more")
            when = Every(when)
        if not isinstance(when, crontab | Every):
            raise ConfigurationError(
                f"a schedule ticks at {when!r:.80}; expected seconds, a timedelta, a celery.schedules.crontab, or its "
                f'text such as "30 2 * * *"'
            )
        if isinstance(when, crontab):
            when = WallClock.of(when, app)
        when.app = app
        #: as beat takes it
        self.schedule = when
        self.early = timedelta(seconds=EARLY)
        if isinstance(when, Every):
            self.early = min(self.early, when.run_every / 2)

    def after(self, moment: datetime) -> datetime:
        """The first tick after a moment."""
        found: datetime = self.schedule.after(moment)
        return found

    def register(self, app: Any, name: str) -> None:
        """Have beat send the tick's task."""
        app.add_periodic_task(self.schedule, app.signature(TICK_TASK), args=(name,), name=f"{TICK_TASK}:{name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CeleryTicks) and repr(other.schedule) == repr(self.schedule)

    __hash__ = None  # type: ignore[assignment]  # a crontab has none either


def _read(text: str) -> crontab:
    try:
        return crontab.from_string(text)
    except ValueError as error:
        raise ConfigurationError(
            f"a schedule ticks at {text!r:.80}, which is no crontab ({error}); expected five fields, such as "
            f'"30 2 * * *": minute, hour, day of month, month, day of week'
        ) from None
