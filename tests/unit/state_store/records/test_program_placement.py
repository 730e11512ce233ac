"""Which program an agent asks with, and how promotions and their ways back change it."""

from __future__ import annotations

import pytest

from multiagents.state_store.records import Placement

TWO = Placement().promoted(1).promoted(2)


def test_a_promotion_keeps_what_was_there_before() -> None:
    assert TWO == Placement(current=2, former=(0, 1))


def test_what_is_promoted_again_comes_from_where_it_was() -> None:
    assert TWO.promoted(1) == Placement(current=1, former=(0, 2))
    assert TWO.promoted(2) == TWO


def test_a_canary_that_is_promoted_whole_is_current() -> None:
    assert TWO.promoted(3, 0.1).promoted(3) == Placement(current=3, former=(0, 1, 2))


@pytest.mark.parametrize(
    ("placed", "back"),
    [
        (TWO.promoted(3, 0.1), TWO),
        (TWO, Placement(current=1, former=(0,))),
        (Placement(current=1, former=(0,)), Placement()),
        (Placement(), Placement()),
    ],
)
def test_the_way_back_leads_to_what_was_before(placed: Placement, back: Placement) -> None:
    assert placed.back() == back


@pytest.mark.parametrize(
    ("version", "left"),
    [
        (3, TWO),
        (2, Placement(current=1, canary=3, share=0.1, former=(0,))),
        (1, Placement(current=2, canary=3, share=0.1, former=(0,))),
        (7, TWO.promoted(3, 0.1)),
        (0, TWO.promoted(3, 0.1)),
    ],
)
def test_one_program_is_taken_out_wherever_it_is(version: int, left: Placement) -> None:
    placed = TWO.promoted(3, 0.1)

    assert placed.without(version) == left
    assert placed.without(version).without(version) == left


def test_a_share_of_the_steps_asks_with_the_canary_and_each_step_always_with_the_same() -> None:
    placed = TWO.promoted(3, 0.1)
    steps = [f"order-{number}/ask" for number in range(2_000)]

    chosen = [placed.chosen(step) for step in steps]

    assert set(chosen) == {2, 3}
    assert 140 < chosen.count(3) < 260
    assert chosen == [placed.chosen(step) for step in steps]


def test_more_of_a_share_keeps_those_that_had_it() -> None:
    steps = [f"order-{number}/ask" for number in range(500)]
    few = {step for step in steps if TWO.promoted(3, 0.1).chosen(step) == 3}
    many = {step for step in steps if TWO.promoted(3, 0.5).chosen(step) == 3}

    assert few < many
