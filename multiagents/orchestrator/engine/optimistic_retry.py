"""Decisions over whole runs race with whatever else is committed; who loses decides anew."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from multiagents.events import CommandEvent, Event
from multiagents.orchestrator.engine.commit_plan import changed_header
from multiagents.state_store.records import Snapshot
from multiagents.workflow.state.run_state import RunState, RunStatus

#: How often a decision is made anew because others committed meanwhile, before it is left to the sweep.
MAX_RACES = 100
#: How often that is done without a pause, and the longest pause after that, in seconds.
RACES_AT_ONCE = 3
LONGEST_PAUSE = 0.2


def let_others_first(race: int) -> None:
    """Pause before a decision that was lost to others some times: while hundreds land there is nothing to win.

    Args:
        race: how often it was lost.
    """
    if race > RACES_AT_ONCE:
        time.sleep(min(LONGEST_PAUSE, 0.005 * 2 ** (race - RACES_AT_ONCE)))


def fence(snapshot: Snapshot, after: RunState, facts: Sequence[Event], *, paged: bool) -> dict[str, Any]:
    """What a decision over a whole run is refused for: that anything was committed since the run was loaded.

    A page that does nothing but send out first attempts is right whatever else was committed, as long as the run has
    not turned and nobody else has sent these out. So it need not wait until the thousands before it are done.

    Args:
        snapshot: the run as it was decided upon.
        after: the same after the facts.
        facts: the decision.
        paged: more is due than fits into the commit.
    """
    asked = [event.step for event in facts if isinstance(event, CommandEvent) and event.attempt == 1 and event.step]
    before = snapshot.state
    plain = len(asked) == len(facts) and before.status is RunStatus.RUNNING and not changed_header(before, after)
    if paged and plain and not any(step in before.steps for step in asked):
        return {"epoch": snapshot.epoch, "fresh": asked}
    return {"version": snapshot.version}
