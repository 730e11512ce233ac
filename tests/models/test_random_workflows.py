"""Any workflow that can be written, against a model that knows only what was written.

Trees of steps, forks, choices, loops, maps, child runs, sleeps, waits, approvals and a pivot are made up, built with
the public builder and run in this process by the real engine, store and workers, while people cancel, pause and resume
the run, decide, and settle what waits for a person; in some of them every message, result and error comes twice, and in
some the id is used again, and all that was said of the first run is said again. `random_workflows` makes them up and
knows what is to be seen; `soak.py` runs a hundred thousand of them (``make soak``).

A case that has failed once is kept in ``once_failed.txt``, and runs first, here and there.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from multiagents import Orchestrator
from tests.models.random_workflows.case import Case
from tests.models.random_workflows.comparison import compare
from tests.models.random_workflows.stage import engine
from tests.models.soak import Failure, as_test, once_failed, read

#: Of a hundred attempts, during how many somebody cancels, pauses or resumes, where that is what is tested.
BUSY = 40


@pytest.fixture(scope="module")
def orchestrator() -> Iterator[Orchestrator]:
    with engine() as made:
        yield made


def test_what_has_failed_once_does_what_its_model_says(orchestrator: Orchestrator) -> None:
    cases = once_failed()

    for _, case in cases:
        compare(orchestrator, case)
    assert cases, "the file with the cases that have failed once is empty"


def test_the_workflow_of_a_seed_does_what_its_model_says(orchestrator: Orchestrator, seed: int | None) -> None:
    """The seeds that the soak prints: pytest tests/models/test_random_workflows.py -k of_a_seed --seed 123"""
    for number in range(20) if seed is None else [seed]:
        compare(orchestrator, Case.of(number))


def test_what_the_soak_prints_of_a_failure_is_a_test_that_runs(orchestrator: Orchestrator) -> None:
    for number in range(20):
        case = Case.of(number, busy=BUSY)
        known = {"Orchestrator": Orchestrator, "compare": compare}

        exec(as_test(Failure("7", case, "report")).partition("# The case")[2].partition("\n")[2], known)

        known["test_seed_7"](orchestrator)
        assert read(repr(case)) == read(str(case)) == case


@settings(max_examples=300)
@given(chance=st.randoms())
def test_a_random_workflow_does_what_its_model_says_S6_S8_S9_S10_S11_S12_S25(
    orchestrator: Orchestrator, chance: Random
) -> None:
    compare(orchestrator, Case.of(chance))


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(5))
def test_a_thousand_random_workflows_do_what_their_model_says_S6_S8_S9_S10_S11_S12_S25(
    orchestrator: Orchestrator, part: int
) -> None:
    @seed(part)
    @settings(max_examples=1_000, suppress_health_check=[HealthCheck.too_slow])
    @given(chance=st.randoms())
    def check(chance: Random) -> None:
        compare(orchestrator, Case.of(chance))

    check()


def test_S18_S20_a_cancel_at_any_moment_and_again_ends_the_run_as_it_should(orchestrator: Orchestrator) -> None:
    for number in range(40):
        compare(orchestrator, Case.of(number, busy=BUSY))


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", [1_000, 2_000, 3_000])
def test_S18_S20_a_thousand_runs_that_are_cancelled_paused_and_resumed_at_any_moment_end_as_they_should(
    orchestrator: Orchestrator, first: int
) -> None:
    for number in range(first, first + 1_000):
        compare(orchestrator, Case.of(number, busy=BUSY))
