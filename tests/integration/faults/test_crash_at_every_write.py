"""Crash at every write: whoever writes is killed before it, after it, or never hears that it was made (guarantee G5).

`multiagents.failpoints` names every write. Each is hit, forward and going back, by a saga that passes it; then the run
has to end as it would have without the crash, with every outcome counted once and nothing left over.

Three lanes go side by side, one for each fault: a database and two workers each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from multiagents.failpoints import WriteSite
from multiagents.testing.faults import Fault
from tests.support.crash_scene import (
    AFRESH,
    APPROVED,
    ASKED,
    ASKED_BACK,
    BACK,
    BACK_USED_AGAIN,
    BRIEF,
    BRIEF_LARGE,
    BUSY,
    CALLER,
    CANCEL,
    DELETED,
    FAMILY,
    FAMILY_CANCEL,
    FAMILY_REFUSED,
    FAMILY_USED_AGAIN,
    FOREIGN,
    FORKED,
    FORWARD,
    HURRIED,
    KILLED,
    LARGE,
    LEFT_LYING,
    LIMITED,
    LOCKED,
    MAP,
    MAP_BACK,
    MAP_FAMILY,
    MUTE,
    MUTE_BACK,
    NEAR,
    NEW_STREAM,
    PARKED,
    PAUSE,
    PROBED,
    PROBED_BACK,
    PRODUCER,
    REPLACED,
    ROLLED_BACK,
    SCHEDULE_PAUSED,
    SHUTDOWN,
    SIGNAL,
    SLOW,
    SPENT,
    SPENT_BACK,
    STARTED,
    STARTING,
    STOPPED,
    STRANGER,
    TAGGED,
    TICKED,
    UNREADABLE,
    USED_AGAIN,
    Lanes,
    Play,
    Plays,
)

#: Site -> the sagas that pass it, and at which of their writes there the fault happens.
INLINE: dict[WriteSite, Plays] = {
    WriteSite.SETTLE: [
        (FORWARD, (1, 2, 3, 4, 6)),
        (USED_AGAIN, (1, 2, 3)),
        (PROBED, (1, 2, 3)),
        (FAMILY, (1, 3, 4)),
        (MAP, (3, 6)),
        (MAP_FAMILY, (5, 9)),
        (NEAR, (1, 2, 3)),
        (ROLLED_BACK, (4,)),
    ],
    WriteSite.RECORD: [
        (BACK, (1,)),
        (PROBED_BACK, (1,)),
        (FAMILY, (1,)),
        (FAMILY_REFUSED, (1, 2)),
        (ROLLED_BACK, (1,)),
    ],
    WriteSite.RECORD_UNDO: [
        (BACK, (1, 2, 3, 4, 5)),
        (BACK_USED_AGAIN, (1, 2)),
        (PARKED, (1,)),
        (FAMILY, (2, 3)),
        (FAMILY_USED_AGAIN, (1, 2)),
        (MAP_BACK, (1, 3)),
        (MAP_FAMILY, (2, 4, 7)),
        (ROLLED_BACK, (1, 2)),
    ],
    WriteSite.ADVANCE: [(FORWARD, (1,)), (BACK, (1,)), (FAMILY, (1,)), (MAP, (1,)), (MAP_FAMILY, (2,))],
    WriteSite.ADVANCE_UNDO: [(BACK, (1, 2, 5)), (PARKED, (1,)), (FAMILY_CANCEL, (1,)), (MAP_BACK, (1,))],
    WriteSite.LINK: [(BACK, (1, 2)), (BACK_USED_AGAIN, (1,))],
}
QUEUED: dict[WriteSite, Plays] = {
    WriteSite.RECORD: [
        (FORWARD, (1, 2, 3, 6)),
        (USED_AGAIN, (1, 2)),
        (BACK, (5,)),
        (PROBED, (1, 2, 3)),
        (PROBED_BACK, (4,)),
    ],
    WriteSite.RECORD_UNDO: [(BACK, (1, 2, 3, 5)), (PARKED, (1,))],
    WriteSite.ADVANCE: [(FORWARD, (1, 3, 6)), (BACK, (5,)), (PROBED, (1, 2))],
    WriteSite.ADVANCE_UNDO: [(BACK, (1, 2, 3)), (PARKED, (1,))],
    WriteSite.LINK_ORCHESTRATE: [(BACK, (1, 2)), (BACK_USED_AGAIN, (1,))],
}
BOTH: dict[WriteSite, Plays] = {
    WriteSite.START: [(CALLER, (1,)), (REPLACED, (1,)), (FAMILY, (1,)), (MAP_FAMILY, (1, 3))],
    WriteSite.FORK: [(FORKED, (1,))],
    WriteSite.RECEIVE: [(FOREIGN, (1,))],
    WriteSite.LATE: [(MUTE, (1,))],
    WriteSite.GIVE_UP: [(MUTE, (1,))],
    WriteSite.GIVE_UP_UNDO: [(MUTE_BACK, (1,))],
    WriteSite.CANCEL: [(CANCEL, (1,)), (FAMILY_CANCEL, (1, 2))],
    WriteSite.OPERATE: [(PAUSE, (1,)), (STOPPED, (1, 2)), (FAMILY, (1,)), (MAP_FAMILY, (2,))],
    WriteSite.UPDATE_TIMER: [(HURRIED, (1,))],
    WriteSite.SIGNAL: [(SIGNAL, (1,))],
    WriteSite.COMPLETE: [(SIGNAL, (1,))],
    WriteSite.LOCK: [(LOCKED, (1,))],
    WriteSite.UNLOCK: [(LOCKED, (1,))],
    WriteSite.TAKE_SLOT: [(LIMITED, (1, 2))],
    WriteSite.TAKE_SLOT_UNDO: [(LIMITED, (1, 2))],
    WriteSite.FREE_SLOT: [(LIMITED, (1,))],
    WriteSite.FREE_SLOT_UNDO: [(LIMITED, (1,))],
    WriteSite.ATTRIBUTES: [(TAGGED, (1,))],
    WriteSite.CLAIM: [
        (FORWARD, (1, 2)),
        (USED_AGAIN, (1, 2)),
        (BACK, (5,)),
        (PROBED, (2, 3)),
        (FAMILY, (4,)),
        (FAMILY_USED_AGAIN, (2, 4)),
        (FAMILY_REFUSED, (4,)),
        (MAP, (4,)),
    ],
    WriteSite.CLAIM_UNDO: [(BACK, (1, 3, 5)), (FAMILY, (3,)), (MAP_BACK, (2,))],
    WriteSite.RENEW: [(SLOW, (1,))],
    WriteSite.RENEW_UNDO: [(SLOW, (1,))],
    WriteSite.DISPATCH: [(FORWARD, (1,)), (USED_AGAIN, (1,)), (PROBED, (1,)), (LIMITED, (1, 2))],
    WriteSite.DISPATCH_UNDO: [(BACK, (1,)), (LIMITED, (1, 2))],
    WriteSite.TAKE_DUE: [(FORWARD, (1,))],
    WriteSite.DISCARD: [(STARTED, (1,))],
    WriteSite.FORGET: [(BRIEF, (1,))],
    WriteSite.PUT_APART: [(LARGE, (1,))],
    WriteSite.FORGET_APART: [(BRIEF_LARGE, (1,))],
    WriteSite.ARCHIVE: [(FORWARD, (1, 2)), (BACK, (2,))],
    WriteSite.TRIM_HISTORY: [(FORWARD, (1, 2)), (BACK, (2,))],
    WriteSite.DELETE: [(DELETED, (1,))],
    WriteSite.TICK: [(TICKED, (1,))],
    WriteSite.PAUSE_SCHEDULE: [(SCHEDULE_PAUSED, (1,))],
    WriteSite.BURY: [(STRANGER, (1,))],
    WriteSite.PARTITIONS: [(CALLER, (1,))],
    WriteSite.ANNOUNCE: [(STARTING, (1,))],
    WriteSite.TIDY: [(STARTING, (1,))],
    WriteSite.BUS_APPEND: [(PRODUCER, (1,))],
    WriteSite.BUS_GROUP: [(NEW_STREAM, (1,))],
    WriteSite.BUS_READ: [(FOREIGN, (1,))],
    WriteSite.BUS_TAKE_OVER: [(LEFT_LYING, (1,))],
    WriteSite.BUS_ACK: [(FOREIGN, (1,))],
    WriteSite.BUS_BURY: [(UNREADABLE, (1,))],
    WriteSite.BUS_TRIM: [(PRODUCER, (1,))],
    WriteSite.JOURNAL_OPEN: [(ASKED, (1, 2, 3))],
    WriteSite.JOURNAL_OPEN_UNDO: [(ASKED_BACK, (1, 3))],
    WriteSite.JOURNAL_BEGIN: [(ASKED, (2, 1, 3, 4, 5, 6)), (APPROVED, (2, 4, 5))],
    WriteSite.JOURNAL_BEGIN_UNDO: [(ASKED_BACK, (4, 1, 2, 6))],
    WriteSite.JOURNAL_FINISH: [(ASKED, (2, 1, 3, 4, 5, 6)), (APPROVED, (2,))],
    WriteSite.JOURNAL_FINISH_UNDO: [(ASKED_BACK, (4, 1, 2, 6))],
    WriteSite.JOURNAL_REFUSE: [(ASKED, (1,))],
    WriteSite.JOURNAL_REFUSE_UNDO: [(ASKED_BACK, (1,))],
    WriteSite.JOURNAL_RESTART: [(AFRESH, (1,))],
    WriteSite.JOURNAL_DECIDE: [(APPROVED, (1,))],
    WriteSite.BUDGET_RESERVE: [(SPENT, (1, 2, 4))],
    WriteSite.BUDGET_RESERVE_UNDO: [(SPENT_BACK, (2, 3))],
    WriteSite.BUDGET_SETTLE: [(SPENT, (1, 2, 4))],
    WriteSite.BUDGET_SETTLE_UNDO: [(SPENT_BACK, (2, 3))],
    WriteSite.STREAM_APPEND: [(SPENT, (1,))],
    WriteSite.STREAM_APPEND_UNDO: [(SPENT_BACK, (1,))],
}
#: Only a pool of processes has a parent that learns of a child's death, and only it gives back at a warm shutdown what
#: it has not started: the others finish all that they took.
PREFORK: dict[WriteSite, Plays] = {
    WriteSite.EXPIRE: [(KILLED, (1,))],
    WriteSite.HOLD: [(BUSY, (1,))],
    WriteSite.GIVE_BACK: [(SHUTDOWN, (1,))],
}
#: What a caller or a producer writes, and what a worker's main process writes at its start and to the bus: no pool has
#: a part in it, so these are hit on prefork alone.
POOLLESS = frozenset(
    site
    for site in WriteSite
    if site
    in (
        WriteSite.START,
        WriteSite.FORK,
        WriteSite.CANCEL,
        WriteSite.OPERATE,
        WriteSite.UPDATE_TIMER,
        WriteSite.SIGNAL,
        WriteSite.ATTRIBUTES,
        WriteSite.DELETE,
        WriteSite.TICK,
        WriteSite.PAUSE_SCHEDULE,
        WriteSite.PARTITIONS,
        WriteSite.ANNOUNCE,
        WriteSite.TIDY,
        WriteSite.JOURNAL_RESTART,
        WriteSite.JOURNAL_DECIDE,
    )
    or site.value.startswith("bus.")
)
#: Where the broker is not the store's database.
OUTBOX: dict[WriteSite, Plays] = {
    WriteSite.PUBLISH: [(FORWARD, (1, 2)), (BACK, (1, 5)), (CALLER, (1,)), (PROBED, (1,))],
    WriteSite.PUBLISH_AGAIN: [(FORWARD, (1,)), (BACK, (1,))],
    WriteSite.POSTPONE: [(BUSY, (1,))],
}
OUTBOX_QUEUED: dict[WriteSite, Plays] = {WriteSite.ORCHESTRATE: [(FORWARD, (1, 3)), (BACK, (1,))]}


# --- what `make test` has ------------------------------------------------------------------------------------------

THREE = [Fault.KILL_BEFORE, Fault.KILL_AFTER, Fault.FAIL_AFTER]
#: What `make test` has: the writes that every saga passes, once each.
WARM = {
    WriteSite.START: CALLER,
    WriteSite.CLAIM: FORWARD,
    WriteSite.SETTLE: FORWARD,
    WriteSite.RECORD: BACK,
    WriteSite.ADVANCE: FORWARD,
    WriteSite.DISPATCH: FORWARD,
    WriteSite.TAKE_DUE: FORWARD,
    WriteSite.CLAIM_UNDO: BACK,
    WriteSite.RECORD_UNDO: BACK,
    WriteSite.ADVANCE_UNDO: BACK,
    WriteSite.DISPATCH_UNDO: BACK,
    WriteSite.LINK: BACK,
    WriteSite.GIVE_UP: MUTE,
    WriteSite.RECEIVE: FOREIGN,
    WriteSite.CANCEL: CANCEL,
    WriteSite.OPERATE: PAUSE,
    WriteSite.SIGNAL: SIGNAL,
    WriteSite.COMPLETE: SIGNAL,
    WriteSite.LOCK: LOCKED,
}

#: Of the writes by which parent and child tell each other: what passes them, and which one of them it is there.
WARM_FAMILIES: dict[WriteSite, tuple[Play, tuple[int, ...]]] = {
    WriteSite.START: (MAP_FAMILY, (2,)),
    WriteSite.RECORD: (FAMILY_REFUSED, (2,)),
    WriteSite.OPERATE: (FAMILY, (1,)),
    WriteSite.CANCEL: (FAMILY_CANCEL, (2,)),
}


#: Of the writes of agents: what passes them, and which one of them it is there.
WARM_AGENTS: dict[WriteSite, tuple[Play, tuple[int, ...]]] = {
    WriteSite.JOURNAL_OPEN: (ASKED, (1,)),
    WriteSite.JOURNAL_BEGIN: (ASKED, (2,)),
    WriteSite.JOURNAL_FINISH: (ASKED, (2,)),
    WriteSite.JOURNAL_REFUSE: (ASKED, (1,)),
    WriteSite.JOURNAL_FINISH_UNDO: (ASKED_BACK, (2,)),
    WriteSite.JOURNAL_DECIDE: (APPROVED, (1,)),
    WriteSite.JOURNAL_RESTART: (AFRESH, (1,)),
    WriteSite.BUDGET_RESERVE: (SPENT, (2,)),
    WriteSite.BUDGET_SETTLE: (SPENT, (2,)),
    WriteSite.STREAM_APPEND: (SPENT, (1,)),
}


@pytest.fixture(scope="module")
def warm(new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    with Lanes(new_redis_url, tmp_path_factory.mktemp("crash"), THREE, pool="prefork", mode="inline") as lanes:
        yield lanes


@pytest.mark.parametrize("site", WARM)
def test_G5_a_crash_at_a_write_changes_nothing_about_how_the_run_ends(warm: Lanes, site: WriteSite) -> None:
    warm.crash(site, [(WARM[site], (1,))])


@pytest.mark.parametrize("site", WARM_FAMILIES)
def test_S11_a_crash_between_parent_and_child_changes_nothing_about_how_both_end(warm: Lanes, site: WriteSite) -> None:
    warm.crash(site, [WARM_FAMILIES[site]])


@pytest.mark.parametrize("site", WARM_AGENTS)
def test_S35_a_crash_at_a_write_of_an_agent_repeats_no_call_that_was_answered(warm: Lanes, site: WriteSite) -> None:
    warm.crash(site, [WARM_AGENTS[site]])


# --- the whole matrix ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """One way to deploy: a pool, a mode, and whether messages go through another broker than the store's database."""

    pool: str
    mode: str
    outbox: bool = False

    @property
    def faults(self) -> list[Fault]:
        return list(Fault) if self.pool == "prefork" else THREE

    @property
    def sites(self) -> dict[WriteSite, Plays]:
        if self.outbox:
            return OUTBOX | (OUTBOX_QUEUED if self.mode == "queued" else {})
        sites = BOTH | (QUEUED if self.mode == "queued" else INLINE)
        if self.pool == "prefork":
            return sites | PREFORK
        # What differs between the writes of one site does so in every pool alike. On solo, where a worker does one
        # thing at a time, two steps may well not be in each other's way.
        sent_again = (WriteSite.DISPATCH, WriteSite.DISPATCH_UNDO) if self.pool == "solo" else ()
        return {
            site: [(play, nths[:1]) for play, nths in plays if play is not LIMITED or site not in sent_again]
            for site, plays in sites.items()
            if site not in POOLLESS
        }

    def __str__(self) -> str:
        return f"{self.pool}-{self.mode}{'-outbox' if self.outbox else ''}"


SETUPS = [Setup(pool, mode) for pool in ("prefork", "threads", "gevent", "solo") for mode in ("inline", "queued")]
SETUPS += [Setup("prefork", mode, outbox=True) for mode in ("inline", "queued")]


@pytest.fixture(scope="module")
def lanes_of(
    new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Setup], Lanes]]:
    """The lanes of a setup; they stay open until those of another one are asked for.

    A fixture with the setup as its parameter would be made anew for each test.
    """
    last: dict[Setup, Lanes] = {}

    def lanes_of(setup: Setup) -> Lanes:
        if setup not in last:
            opened.close()
            last.clear()
            folder = tmp_path_factory.mktemp(f"crash-{setup}")
            made = Lanes(new_redis_url, folder, setup.faults, pool=setup.pool, mode=setup.mode, outbox=setup.outbox)
            last[setup] = opened.enter_context(made)
        return last[setup]

    with ExitStack() as opened:
        yield lanes_of


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("setup", "plays", "site"),
    [pytest.param(setup, plays, site, id=f"{setup}-{site}") for setup in SETUPS for site, plays in setup.sites.items()],
)
def test_G5_a_crash_at_any_write_on_any_pool_and_in_any_mode_changes_nothing(
    lanes_of: Callable[[Setup], Lanes], setup: Setup, plays: Plays, site: WriteSite
) -> None:
    lanes_of(setup).crash(site, plays)


def test_every_write_of_the_engine_is_hit_by_some_saga() -> None:
    hit = {site for setup in SETUPS for site in setup.sites}

    # What is learned is no saga's; the contract of stores sends it twice (test_state_store_examples.py, _programs.py).
    # Who withholds a call waits for a budget.
    # What moves a start in another broker waits for a busy queue (tests/component/test_starved_starts.py).
    apart = ("EXAMPLES_", "JOURNAL_WITHHOLD", "PROGRAM_")
    others = {site for site in WriteSite if site.name.startswith(apart)} | {WriteSite.RAISE_START}
    assert hit == set(WriteSite) - others
