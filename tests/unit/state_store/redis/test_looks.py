"""What a process makes of a server whose clock says much more than it expects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multiagents.state_store.redis.looks import IN_DOUBT, Looks

HOUR = 3_600_000


class World:
    """A server and the process that asks it, with what may come between them; all in ms."""

    def __init__(self) -> None:
        self.passed = 0
        #: the server's clock
        self.server = 1_000_000
        self.swept = self.server
        #: how long the next answers take
        self.takes = [0]
        self.looks = Looks(lambda: self.passed)
        #: by how much the clock was set, as the process has said
        self.said: list[int] = []

    def passes(self, ms: int) -> None:
        self.passed += ms
        self.server += ms

    def take_due(self, args: Sequence[Any]) -> Sequence[int]:
        expected, seen, ahead = args
        self.passes(self.takes.pop() if self.takes else 0)
        doubt = expected != "" and seen == "" and min(self.server - expected, self.server - self.swept) > 1_000
        if doubt:
            return [self.server, IN_DOUBT, self.swept]
        if seen == self.swept:
            self.said.append(ahead)
        self.swept = self.server
        return [self.server, -1, 0]

    def look(self) -> None:
        self.looks.ask(self.take_due, [])


def test_a_clock_that_was_set_forward_is_known_by_how_much() -> None:
    world = World()
    world.look()
    world.passes(700)
    world.server += HOUR

    world.look()

    assert world.said == [HOUR]


def test_time_that_has_passed_is_no_clock_that_was_set() -> None:
    world = World()
    world.look()
    world.passes(HOUR)

    world.look()

    assert world.said == []


def test_a_server_that_was_frozen_over_the_question_had_no_clock_that_was_set() -> None:
    world = World()
    world.look()
    world.takes = [HOUR]

    world.look()

    assert world.said == [0]


def test_a_process_whose_own_clock_stood_still_says_nothing_while_others_have_looked() -> None:
    world = World()
    world.look()
    world.server += HOUR
    world.swept = world.server - 500

    world.look()

    assert world.said == []


def test_a_process_says_no_more_than_what_came_since_the_last_look_of_anybody() -> None:
    world = World()
    world.look()
    world.server += HOUR
    world.swept = world.server - 20_000

    world.look()

    assert world.said == [20_000]


def test_who_has_not_looked_before_cannot_tell() -> None:
    world = World()
    world.server += HOUR

    world.look()

    assert world.said == []


def test_a_clock_that_was_set_and_was_told_of_is_not_told_of_again() -> None:
    world = World()
    world.look()
    world.server += HOUR
    world.look()
    world.passes(900)

    world.look()

    assert world.said == [HOUR]
