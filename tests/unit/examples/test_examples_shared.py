"""What the examples share: their world of effects, their pictures, and that a check that does not hold is told."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from examples._support.pictures import Bar, bars_of, effects_table, table, timeline
from examples._support.scene import BROKER, Scene, SceneError, run
from examples._support.world import (
    FOLDER,
    AlreadyUndoneError,
    Check,
    NoAnswerError,
    RefusedError,
    Service,
    UnavailableError,
    World,
)
from multiagents.events import CommandEvent, ErrorInfo, StatusEvent

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


HOTEL = Service("hotel")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return World()


def answers(world: World, call: str = "hotel") -> list[tuple[str, str]]:
    return [(entry["key"], entry["answer"]) for entry in world.journal("T-1", call)]


# -- the world ---------------------------------------------------------------------------------------------------------


def test_a_repeated_call_takes_effect_once_and_gets_the_same_reference(world: World) -> None:
    first, second = (HOTEL.do("T-1/hotel", "T-1", 890, room="sea") for _ in range(2))

    assert first == second
    assert answers(world) == [("T-1/hotel", "done"), ("T-1/hotel", "repeated")]
    assert [(effect.amount, effect.detail) for effect in world.effects("T-1")] == [(890, {"room": "sea"})]


def test_an_undo_has_a_key_of_its_own_and_takes_effect_once(world: World) -> None:
    HOTEL.do("T-1/hotel", "T-1")

    undone = [HOTEL.undo("T-1/hotel", "T-1") for _ in range(2)]

    assert undone == [True, False]
    assert [effect.status for effect in world.effects("T-1")] == ["undone"]
    assert answers(world, "undo hotel") == [("T-1/hotel/undo", "done"), ("T-1/hotel/undo", "repeated")]


def test_a_call_that_comes_after_its_undo_is_refused(world: World) -> None:
    assert HOTEL.undo("T-1/hotel", "T-1") is False

    with pytest.raises(AlreadyUndoneError, match="hotel T-1/hotel came after it was undone"):
        HOTEL.do("T-1/hotel", "T-1")

    assert [effect.status for effect in world.effects("T-1")] == ["void"]
    assert answers(world) == [("T-1/hotel", "refused: AlreadyUndoneError")]


def test_a_call_while_the_other_side_is_down_has_no_effect_and_is_in_the_journal(world: World) -> None:
    world.fail("hotel", "T-1", UnavailableError("503"))

    with pytest.raises(UnavailableError, match="503"):
        HOTEL.do("T-1/hotel", "T-1")

    assert world.effects() == []
    assert answers(world) == [("T-1/hotel", "refused: UnavailableError")]
    world.mend("hotel", "T-1")
    assert HOTEL.do("T-1/hotel", "T-1").startswith("hotel-")


def test_a_call_without_an_answer_has_taken_effect(world: World) -> None:
    world.fail("hotel", "T-1", NoAnswerError("too late"))

    with pytest.raises(NoAnswerError, match="too late"):
        HOTEL.do("T-1/hotel", "T-1")

    assert [effect.status for effect in world.effects("T-1")] == ["live"]


def test_calls_fail_after_and_for_as_often_as_they_are_told_to_and_about_nothing_else(world: World) -> None:
    world.fail("hotel", "T-1", RefusedError("no"), after=1, times=2)

    def book(key: str, subject: str = "T-1") -> bool:
        try:
            return bool(HOTEL.do(key, subject))
        except RefusedError:
            return False

    assert [book(f"T-1/hotel#{n}") for n in range(5)] == [True, False, False, True, True]
    assert book("T-2/hotel", "T-2")


def test_effects_are_told_apart_by_what_they_are_about(world: World) -> None:
    for subject in ("T-1", "T-1/room", "T-10"):
        HOTEL.do(f"{subject}/hotel", subject)

    assert [effect.subject for effect in world.effects()] == ["T-1", "T-1/room", "T-10"]
    assert [effect.subject for effect in world.effects("T-1")] == ["T-1", "T-1/room"]


def test_a_key_that_took_effect_twice_is_noticed(world: World) -> None:
    for _ in range(2):
        HOTEL.do("T-1/hotel", "T-1")
    assert world.check_keys().holds

    with world.transaction() as db:
        db.execute("UPDATE journal SET answer = 'done'")

    assert world.check_keys() == Check("no key took effect twice", holds=False, figures="T-1/hotel")


# -- pictures ----------------------------------------------------------------------------------------------------------


def command(step: str, worker: str = "") -> CommandEvent:
    key = f"r/{step}/do/1"
    return CommandEvent(transaction_id="r", correlation_id=key, step=step, attempt=1, worker=worker, timestamp=NOON)


def said(status: str, after: int, step: str | None = None, **facts: Any) -> StatusEvent:
    return StatusEvent(transaction_id="r", status=status, step=step, timestamp=NOON + timedelta(seconds=after), **facts)


def ends(history: list[Any]) -> list[tuple[str, str, str, int | None]]:
    """Of each bar its direction, its outcome, who decided, and the second of its end."""
    return [
        (bar.direction, bar.outcome, bar.by, None if bar.end is None else round((bar.end - NOON).total_seconds()))
        for bar in bars_of(history)
    ]


@pytest.mark.parametrize(("refusal", "outcome"), [(None, "succeeded"), ("ApprovalRejected", "failed")])
def test_a_wait_ends_with_its_signal_and_names_who_gave_it(refusal: str | None, outcome: str) -> None:
    error = ErrorInfo(type=refusal, message="no") if refusal else None
    history = [
        command("decision"),
        said("signalled", 3, actor="eve", payload={"key": "other"}),
        said("signalled", 4, actor="ann", reason="no wine", payload={"key": "k"}),
        said("received", 5, "decision", payload={"key": "k"}, error=error),
    ]

    assert ends(history) == [("wait", outcome, "ann: no wine", 5)]


def test_what_a_person_says_of_a_step_is_a_mark_of_its_own() -> None:
    history = [said("result_supplied", 2, "report", actor="ben"), said("retry_requested", 3, "report")]

    assert ends(history) == [
        ("told", "succeeded", "result supplied by ben", 2),
        ("told", "succeeded", "tried again by somebody", 3),
    ]


def test_what_a_run_that_goes_back_does_not_wait_for_has_an_end() -> None:
    history = [
        *(command("month"), command("ship", "ship_order"), command("pack", "pack_order")),
        *(said("recalled", 1, "month"), said("recalled", 2, "pack"), said("abandoned", 3, "ship")),
    ]

    assert ends(history) == [("wait", "unknown", "", 1), ("do", "unknown", "", 3)]


def test_the_timeline_names_who_decided_first_and_counts_errors_that_are_alike() -> None:
    tries = [Bar("report", "do", n, NOON, NOON, "failed", error="Down: 503") for n in (1, 2)]
    told = Bar("report", "told", 0, NOON, NOON, "succeeded", by="result supplied by ben")

    picture = timeline("M-4", "completed", ["report"], [*tries, told], 120).plain

    assert picture.splitlines()[1].endswith("result supplied by ben, 2 x Down: 503")


def test_the_table_of_effects_says_what_is_live_undone_and_never_was(world: World) -> None:
    for key in ("T-1/hotel", "T-1/hotel#2"):
        HOTEL.do(key, "T-1")
    HOTEL.undo("T-1/hotel", "T-1")
    console = Console(file=StringIO(), width=100)

    console.print(effects_table({name: world.effects(name) for name in ("T-1", "T-2")}, ["hotel", "car"]))

    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split() for line in lines[2:]] == [
        ["T-1", "✓", "live", "↶", "undone", "never"],
        ["T-2", "never", "never"],
    ]


def test_columns_of_numbers_stand_to_the_right() -> None:
    drawn = table("Accounts", ["", "cents"], [("ann", "5,000.00"), ("bob", "0.10")])

    assert [column.justify for column in drawn.columns] == ["left", "right"]


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A broker from outside, so that no example starts one; and the signal handler as it was."""
    monkeypatch.setenv(BROKER, "redis://127.0.0.1:1/0")
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("earned", "code", "words"), [(3, 0, "up: 2 checks"), (2, 1, "up: money adds up (2 of 3)\n")])
def test_an_example_ends_well_only_when_all_that_it_checked_holds(
    capsys: pytest.CaptureFixture[str], earned: int, code: int, words: str
) -> None:
    def story(scene: Scene) -> None:
        scene.check("stock adds up", holds=True)
        scene.check("money adds up", earned == 3, f"{earned} of 3")

    assert run("trip_booking", story, arguments=[]) == code
    assert words in capsys.readouterr().out


@pytest.mark.usefixtures("elsewhere")
def test_an_example_that_cannot_go_on_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    def story(_: Scene) -> None:
        raise SceneError("T-1 is running, and its end did not come")

    assert run("trip_booking", story, arguments=[]) == 1
    assert "The example failed: T-1 is running, and its end did not come" in capsys.readouterr().out


@pytest.mark.usefixtures("elsewhere")
def test_what_does_not_come_in_time_is_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("trip_booking", lambda scene: scene.tick("no trip came"), arguments=["--deadline", "0"]) == 1
    assert "time is up, and no trip came" in capsys.readouterr().out


@pytest.mark.usefixtures("elsewhere")
def test_ids_on_somebody_elses_broker_are_new_each_time() -> None:
    seen: list[str] = []

    for _ in range(2):
        run("trip_booking", lambda scene: seen.append(scene.id("B-1/orders.csv")), arguments=[])

    assert len(set(seen)) == 2
    assert all(re.fullmatch(r"B-1-[0-9a-f]{6}/orders.csv", each) for each in seen)
