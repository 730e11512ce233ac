"""What the examples share: their world of effects, their pictures, and that a check that does not hold is told."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from examples.books import Line, effects_table, keys_twice
from examples.scene import Scene, run
from examples.stage import BROKER, StageError
from examples.timeline import Bar, bars_of, timeline
from examples.world import AlreadyUndoneError, UnavailableError, World, add
from multiagents.events import CommandEvent, ErrorInfo, StatusEvent

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world.db")


def book(world: World, key: str = "T-1/hotel", subject: str = "T-1", *, down: bool = False) -> dict[str, Any]:
    with world.doing("hotel", key, subject, 890) as (db, known):
        if down:
            raise UnavailableError("503")
        return known or add(db, "hotel", key, subject, 890, {"code": key})


def answers(world: World, subject: str = "T-1") -> list[tuple[str, str, str]]:
    return [(entry["call"], entry["key"], entry["answer"]) for entry in world.journal_of(subject)]


# -- the world ---------------------------------------------------------------------------------------------------------


def test_an_undo_has_a_key_of_its_own_and_takes_effect_once(world: World) -> None:
    book(world)

    undone = [world.undo("cancel", "T-1/hotel", "T-1", "hotel") for _ in range(2)]

    assert undone == [True, False]
    assert [effect.status for effect in world.effects("T-1")] == ["undone"]
    assert answers(world)[1:] == [
        ("cancel", "T-1/hotel/undo", "done"),
        ("cancel", "T-1/hotel/undo", "repeated"),
    ]


def test_a_call_that_comes_after_its_undo_is_refused(world: World) -> None:
    assert world.undo("cancel", "T-1/hotel", "T-1", "hotel") is False

    with pytest.raises(AlreadyUndoneError, match="hotel T-1/hotel came after it was undone"):
        book(world)

    assert [effect.status for effect in world.effects("T-1")] == ["void"]
    assert answers(world)[-1] == ("hotel", "T-1/hotel", "refused: AlreadyUndoneError")


def test_a_call_while_the_other_side_is_down_has_no_effect_and_is_in_the_journal(world: World) -> None:
    with pytest.raises(UnavailableError):
        book(world, down=True)

    assert world.effects() == []
    assert answers(world) == [("hotel", "T-1/hotel", "refused: UnavailableError")]


def test_effects_are_told_apart_by_what_they_are_about(world: World) -> None:
    book(world)
    book(world, "T-2/hotel", "T-2")

    assert [effect.key for effect in world.effects()] == ["T-1/hotel", "T-2/hotel"]
    assert [effect.detail for effect in world.effects("T-2")] == [{"code": "T-2/hotel"}]


def test_a_fact_is_as_it_was_last_set(world: World) -> None:
    assert world.fact("register", "up") == "up"

    world.set_fact("register", "down")
    world.set_fact("register", "slow")

    assert World(world.path).fact("register", "up") == "slow"


def test_a_key_that_took_effect_twice_is_noticed(world: World) -> None:
    book(world)
    book(world)
    assert keys_twice(world).holds

    with world.transaction() as db:
        db.execute("UPDATE journal SET answer = 'done'")

    assert keys_twice(world) == Line("no key took effect twice", holds=False, detail="T-1/hotel")


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
    book(world)
    book(world, "T-1/hotel#2")
    world.undo("cancel", "T-1/hotel", "T-1", "hotel")
    console = Console(file=StringIO(), width=100)

    console.print(effects_table("World", world.effects(), ["hotel", "car"], ["T-1", "T-2"]))

    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split() for line in lines[2:]] == [
        ["T-1", "✓", "live", "↶", "undone", "never"],
        ["T-2", "never", "never"],
    ]


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A broker from outside, so that no example starts one; and the signal handler as it was."""
    monkeypatch.setenv(BROKER, "redis://127.0.0.1:1/0")
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("elsewhere")
def test_an_example_ends_well_only_when_all_that_it_checked_holds(capsys: pytest.CaptureFixture[str]) -> None:
    right, wrong = Line("stock adds up", holds=True, detail="3"), Line("money adds up", holds=False, detail="2")

    assert run("trip_booking", lambda _: [right], arguments=[]) == 0
    assert "All of it added up." in capsys.readouterr().out
    assert run("trip_booking", lambda _: [right, wrong], arguments=[]) == 1
    assert "This did not add up: money adds up\n" in capsys.readouterr().out


@pytest.mark.usefixtures("elsewhere")
def test_an_example_that_cannot_go_on_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    def play(_: Scene) -> list[Line]:
        raise StageError("T-1 is running, and its end did not come")

    assert run("trip_booking", play, arguments=[]) == 1
    assert "The example failed: T-1 is running, and its end did not come" in capsys.readouterr().out


@pytest.mark.usefixtures("elsewhere")
def test_ids_on_somebody_elses_broker_are_new_each_time() -> None:
    seen: list[str] = []

    def play(scene: Scene) -> list[Line]:
        seen.append(scene.id("T-1"))
        return []

    for _ in range(2):
        run("trip_booking", play, arguments=[])

    assert len(set(seen)) == 2
    assert Scene(Console(), None).id("T-1") == "T-1"
