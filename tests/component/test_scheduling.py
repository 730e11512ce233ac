"""Schedules: one run for every tick, over memory and Redis."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.beat import Scheduler
from celery.schedules import crontab

from multiagents import Orchestrator, WorkflowBuilder
from multiagents.exceptions import ConfigurationError, StateStoreError, WorkflowError
from multiagents.names import TICK_TASK
from multiagents.orchestrator import tasks
from multiagents.orchestrator.schedules import CeleryTicks, base

REPORT = WorkflowBuilder("scheduled-report").add_step("write", "write_report").build(register=False)
BILL = WorkflowBuilder("scheduled-bill").add_step("write", "write_report").build(register=False)
#: On this day nothing special happens to any clock.
DAY = datetime(2026, 6, 10, tzinfo=UTC)


class Time:
    """The store's clock, as the test sets it."""

    def __init__(self, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = DAY
        monkeypatch.setattr(orchestrator.store, "now", lambda: self.now)

    def is_at(self, hour: float, day: int = 0) -> None:
        self.now = DAY + timedelta(days=day, hours=hour)


@pytest.fixture
def time(orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> Time:
    orchestrator.app.conf.timezone = "UTC"
    return Time(orchestrator, monkeypatch)


def ids(runs: Any) -> list[str]:
    return [run.transaction_id.removeprefix("nightly:") for run in runs]


# --- one run for a tick ----------------------------------------------------------------------------------------------


def test_a_tick_starts_one_run_that_says_which_tick_it_is_of(orchestrator: Orchestrator, time: Time) -> None:
    schedule = orchestrator.schedule("nightly", REPORT, "30 2 * * *", {"n": 1}, attributes={"team": "a"})
    time.is_at(2.51)

    [run] = schedule.tick()

    assert run.transaction_id == "nightly:2026-06-10T02:30:00.000Z"
    seen = run.describe()
    tick = DAY + timedelta(hours=2.5)
    assert (seen.workflow, seen.input) == ("scheduled-report", {"n": 1})
    assert seen.attributes == {"team": "a", "schedule": "nightly", "tick": tick}
    assert orchestrator.list(attributes={"schedule": "nightly", "tick": (tick, None)}).runs == [run]
    assert schedule.last_tick == tick
    assert schedule.tick() == []


def test_two_beats_that_tick_at_once_start_one_run(orchestrator: Orchestrator, time: Time) -> None:
    schedule = orchestrator.schedule("nightly", REPORT, "30 2 * * *")
    time.is_at(2.51)
    gate = Barrier(10)

    def tick(_: int) -> None:
        gate.wait()
        schedule.tick()

    with ThreadPoolExecutor(10) as threads:
        list(threads.map(tick, range(10)))

    assert ids(orchestrator.list()) == ["2026-06-10T02:30:00.000Z"]
    assert len(orchestrator.get("nightly:2026-06-10T02:30:00.000Z").history()) == 2


def test_a_tick_that_broke_off_after_its_start_is_repeated_without_a_second_run(
    orchestrator: Orchestrator, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = orchestrator.schedule("nightly", REPORT, 3600)
    time.is_at(2.51)
    with monkeypatch.context() as broken:
        broken.setattr(orchestrator.store.schedules, "ticked", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            schedule.tick()

    assert ids(schedule.tick()) == ids(orchestrator.list()) == ["2026-06-10T02:00:00.000Z"]


def test_a_beat_whose_clock_is_a_little_ahead_is_taken_at_its_word(orchestrator: Orchestrator, time: Time) -> None:
    schedule = orchestrator.schedule("nightly", REPORT, "30 2 * * *")
    time.is_at(2.5 - 4 / 3600)
    assert ids(schedule.tick()) == ["2026-06-10T02:30:00.000Z"]

    time.is_at(2.5 - 6 / 3600, day=1)
    assert schedule.tick() == []


def test_the_input_may_depend_on_the_tick(orchestrator: Orchestrator, time: Time) -> None:
    schedule = orchestrator.schedule("nightly", REPORT, 3600, lambda tick: {"day": f"{tick:%F %H}"})
    time.is_at(5.2)

    [run] = schedule.tick()

    assert run.describe().input == {"day": "2026-06-10 05"}


# --- what was missed -------------------------------------------------------------------------------------------------


def test_of_missed_ticks_the_latest_is_started_or_all_that_were_asked_for(
    orchestrator: Orchestrator, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = orchestrator.schedule("nightly", REPORT, 3600)
    every = orchestrator.schedule("every", REPORT, 3600, catch_up=True)
    monkeypatch.setattr(base, "CATCH_UP", 3)
    time.is_at(1)
    assert len(latest.tick()) == len(every.tick()) == 1
    time.is_at(5.5)

    assert ids(latest.tick()) == ["2026-06-10T05:00:00.000Z"]
    assert [run.transaction_id[-13:-11] for run in every.tick()] == ["02", "03", "04"]
    assert [run.transaction_id[-13:-11] for run in every.tick()] == ["05"]
    assert latest.tick() == every.tick() == []


@pytest.mark.parametrize("catch_up", [False, True])
def test_a_paused_schedule_starts_nothing_and_goes_on_with_the_next_tick(
    orchestrator: Orchestrator, time: Time, catch_up: bool
) -> None:
    schedule = orchestrator.schedule("nightly", REPORT, 3600, catch_up=catch_up)
    time.is_at(1)
    schedule.tick()
    schedule.pause(reason="the warehouse moves", actor="ann")
    assert schedule.paused == {"reason": "the warehouse moves", "actor": "ann"}

    time.is_at(2)
    assert schedule.tick() == []
    time.is_at(4.5)
    schedule.resume()
    schedule.resume()
    assert (schedule.paused, schedule.tick()) == (None, [])
    time.is_at(5)

    assert ids(schedule.tick()) == ["2026-06-10T05:00:00.000Z"]


def test_a_backfill_starts_what_is_missing_and_nothing_twice(orchestrator: Orchestrator, time: Time) -> None:
    schedule = orchestrator.schedule("nightly", REPORT, "0 */6 * * *")
    time.is_at(12)
    there = schedule.tick()

    runs = schedule.backfill(DAY, DAY + timedelta(days=1))

    hours = ["00", "06", "12"]  # and not 18, which is to come
    assert ids(runs) == [f"2026-06-10T{hour}:00:00.000Z" for hour in hours]
    assert runs[2:] == there
    assert orchestrator.count() == 3
    with pytest.raises(WorkflowError, match=r"more than 2 ticks from .* nothing was started"):
        schedule.backfill(DAY - timedelta(days=3), DAY, limit=2)
    with pytest.raises(WorkflowError, match="has no time zone"):
        schedule.backfill(DAY.replace(tzinfo=None), DAY)
    assert orchestrator.count() == 3


# --- the ticks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "moment", "expected"),
    [
        (600, DAY, DAY + timedelta(minutes=10)),
        (600, DAY + timedelta(seconds=1), DAY + timedelta(minutes=10)),
        (timedelta(hours=2), DAY - timedelta(seconds=1), DAY),
        ("*/15 * * * *", DAY + timedelta(minutes=14, seconds=59), DAY + timedelta(minutes=15)),
        (crontab(minute=0, hour=4, day_of_week="mon"), DAY, datetime(2026, 6, 15, 4, tzinfo=UTC)),
        ("0 0 29 2 *", DAY, datetime(2028, 2, 29, tzinfo=UTC)),
    ],
)
def test_the_next_tick(when: Any, moment: datetime, expected: datetime) -> None:
    assert CeleryTicks(Celery(set_as_current=False, timezone="UTC"), when).after(moment) == expected


@pytest.mark.parametrize(("month", "day"), [(3, 29), (10, 25)])
def test_the_ticks_of_a_crontab_go_on_when_the_clocks_change(month: int, day: int) -> None:
    app = Celery(set_as_current=False, timezone="Europe/Berlin")
    ticks, zone = CeleryTicks(app, "*/30 * * * *"), ZoneInfo("Europe/Berlin")
    moment, seen = datetime(2026, month, day, 0, tzinfo=zone).astimezone(UTC), []
    until = moment + timedelta(hours=6)

    while moment < until and len(seen) < 50:
        moment = ticks.after(moment)
        seen.append(moment)

    assert seen == sorted(set(seen))
    assert all(tick.astimezone(zone).minute in (0, 30) for tick in seen)
    assert len(seen) >= 9
    # Whoever asks, and from whichever moment, is told the same ticks.
    for minute in range(360):
        asked = until - timedelta(minutes=360 - minute)
        assert ticks.after(asked) == next(tick for tick in seen if tick > asked)


#: Nights in which the clocks go back: the zone, one hour before the first of the two passes, and how long they go back.
NIGHTS = [
    ("Europe/Berlin", datetime(2026, 10, 24, 23, tzinfo=UTC), 60),
    ("US/Pacific", datetime(2026, 11, 1, 7, tzinfo=UTC), 60),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 13, 30, tzinfo=UTC), 30),
]


def ticks_of(zone: str, when: Any, begin: datetime, hours: float) -> list[datetime]:
    ticks = CeleryTicks(Celery(set_as_current=False, timezone=zone), when)
    return list(ticks.between(begin - timedelta(microseconds=1), begin + timedelta(hours=hours, microseconds=-1)))


@pytest.mark.parametrize(("zone", "begin", "back"), NIGHTS)
@pytest.mark.parametrize("every", [1, 5, 15, 30])
def test_where_every_hour_is_meant_the_hour_that_comes_twice_ticks_both_times(
    zone: str, begin: datetime, back: int, every: int
) -> None:
    seen = ticks_of(zone, f"*/{every} * * * *", begin, 4)

    assert [tick - begin for tick in seen] == [timedelta(minutes=at) for at in range(0, 240, every)]


@pytest.mark.parametrize(
    ("when", "ticks"),
    [
        ("0 * * * *", 6),
        ("30 1 * * *", 1),
        ("*/20 1 * * *", 3),
        ("30 1,2 * * *", 2),
        ("0 */2 * * *", 3),
        ("0 * 1 11 *", 6),
        ("0 * 2 11 *", 0),
        ("0 * * * sun", 6),
        ("0 * * * mon", 0),
    ],
)
def test_a_fixed_hour_ticks_once_in_the_night_when_the_clocks_go_back(when: str, ticks: int) -> None:
    assert len(ticks_of("US/Pacific", when, datetime(2026, 11, 1, 7, tzinfo=UTC), 6)) == ticks


@pytest.mark.parametrize(("zone", "begin", "back"), NIGHTS)
@pytest.mark.parametrize("when", ["0 * * * *", "*/15 * * * *", "30 1 * * *", "45 2 * * *", "*/30 1-3 * * *"])
def test_whoever_asks_and_whenever_is_told_the_same_ticks(zone: str, begin: datetime, back: int, when: str) -> None:
    begin -= timedelta(days=1)
    ticks = CeleryTicks(Celery(set_as_current=False, timezone=zone), when)
    seen = ticks_of(zone, when, begin, 60)

    for minutes in range(0, 48 * 60, 7):
        asked = begin + timedelta(minutes=minutes, seconds=1)
        assert ticks.after(asked) == next(tick for tick in seen if tick > asked)


def test_beat_is_told_of_both_passes() -> None:
    ticks = CeleryTicks(Celery(set_as_current=False, timezone="US/Pacific"), "0 * * * *")
    first = datetime(2026, 11, 1, 8, tzinfo=UTC)  # 01:00, for the first time

    ticks.schedule.nowfun = lambda: first + timedelta(minutes=59)
    early = ticks.schedule.is_due(first)
    ticks.schedule.nowfun = lambda: first + timedelta(minutes=60)
    due = ticks.schedule.is_due(first)

    assert (early, due) == ((False, 60), (True, 3600))


@pytest.mark.parametrize(
    ("when", "told"),
    [
        (0.5, "ticks every 0.5 s; expected 1 s or more"),
        ("every day", "ticks at 'every day', which is no crontab .* expected five fields"),
        ([1], r"ticks at \[1\]; expected seconds, a timedelta"),
        (True, "ticks at True; expected seconds"),
    ],
)
def test_what_is_no_clock_is_refused(orchestrator: Orchestrator, when: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        orchestrator.schedule("nightly", REPORT, when)
    assert not orchestrator.schedules


def test_a_name_stands_for_one_schedule(orchestrator: Orchestrator) -> None:
    first = orchestrator.schedule("nightly", REPORT, "30 2 * * *")
    orchestrator.schedule("nightly", REPORT, crontab(minute=30, hour=2))  # the module was imported twice

    for workflow, when in ((BILL, "30 2 * * *"), (REPORT, "30 3 * * *")):
        with pytest.raises(ConfigurationError, match="schedule 'nightly' is there already"):
            orchestrator.schedule("nightly", workflow, when)
    for name in ("", "a:b", "x" * 97):
        with pytest.raises(ConfigurationError, match="cannot be used: expected 1 to 96 characters"):
            orchestrator.schedule(name, REPORT, 60)
    assert orchestrator.schedules["nightly"].run_id(DAY) == first.run_id(DAY)


# --- Celery's side ---------------------------------------------------------------------------------------------------


def test_beat_sends_the_task_with_the_schedules_name(orchestrator: Orchestrator) -> None:
    orchestrator.schedule("nightly", REPORT, "30 2 * * *")
    orchestrator.schedule("often", REPORT, 10)
    scheduler = Scheduler(orchestrator.app, lazy=True)
    scheduler.setup_schedule()

    entries = {entry.args[0]: entry for entry in scheduler.schedule.values() if entry.task == TICK_TASK}

    assert set(entries) == {"nightly", "often"}
    assert entries["nightly"].schedule == crontab(minute=30, hour=2)
    often = entries["often"].schedule
    often.nowfun = lambda: DAY + timedelta(seconds=9.5)
    assert often.is_due(DAY + timedelta(seconds=0.2)) == (False, pytest.approx(0.5))
    often.nowfun = lambda: DAY + timedelta(seconds=12)
    assert often.is_due(DAY + timedelta(seconds=0.2)) == (True, pytest.approx(8))


def test_the_task_ticks_and_waits_for_a_store_that_is_away(
    orchestrator: Orchestrator, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = orchestrator.schedule("nightly", REPORT, 3600)
    time.is_at(3)
    task = orchestrator.app.tasks[tasks.tick.name]

    task.apply(args=["nightly"], throw=True)

    assert ids(orchestrator.list()) == ["2026-06-10T03:00:00.000Z"]
    answers = ["again", "first"]

    def away() -> Any:
        answers.pop()
        raise StateStoreError("it does not answer")

    monkeypatch.setattr(schedule, "tick", away)
    monkeypatch.setattr(tasks, "PAUSE", 0)
    monkeypatch.setattr(task, "max_retries", 1)
    result = task.apply(args=["nightly"])
    assert (type(result.result), answers) == (StateStoreError, [])
    with pytest.raises(ConfigurationError, match=r"no schedule 'nightl' in this process; did you mean \"nightly\""):
        task.apply(args=["nightl"], throw=True)
