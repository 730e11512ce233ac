"""Decisions over whole runs race with whatever else is committed; who loses decides anew."""

from __future__ import annotations

import time

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
