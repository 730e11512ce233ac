"""The sample of the long matrix: a third of it, another one with each seed, with something of every kind."""

from __future__ import annotations

import random

import pytest

from tests.support import ROOT
from tests.support.sampling import sample

pytest_plugins = ("pytester",)

#: As the rules on their pools: functions with a few cases each, and some with one.
MATRIX = [f"test_rules.py::test_{name}[{pool}]" for name in range(300) for pool in "abcdefg"]
MATRIX += [f"test_scale.py::test_{name}" for name in range(10)]


def functions(node_ids: set[str] | list[str]) -> set[str]:
    return {node_id.partition("[")[0] for node_id in node_ids}


def test_the_same_seed_chooses_the_same_tests_whatever_their_order():
    shuffled = random.Random(0).sample(MATRIX, len(MATRIX))

    assert sample(shuffled, "1234") == sample(MATRIX, "1234")


def test_what_was_chosen_is_chosen_again_when_only_some_are_asked_for():
    """So that those that failed can be run again."""
    chosen = sample(MATRIX, "1234")
    failed = set(sorted(chosen)[::50])

    assert sample(failed, "1234") == failed


@pytest.mark.parametrize("seed", ["1", "2", "1234"])
def test_a_third_is_chosen(seed: str):
    assert 0.30 < len(sample(MATRIX, seed)) / len(MATRIX) < 0.38


def test_of_every_test_function_at_least_one_case_is_chosen():
    assert functions(sample(MATRIX, "1234")) == functions(MATRIX)


def test_over_some_seeds_every_case_has_its_turn():
    chosen = set().union(*(sample(MATRIX, str(seed)) for seed in range(40)))

    assert chosen == set(MATRIX)


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A test with sixty cases."""
    pytester.makepyfile(test_matrix="""
        import pytest

        @pytest.mark.parametrize("case", range(60))
        def test_something(case):
            pass
        """)
    return pytester


CASES = [f"test_matrix.py::test_something[{case}]" for case in range(60)]


def test_the_report_says_how_many_of_how_many_have_run(suite: pytest.Pytester):
    chosen = len(sample(CASES, "7"))

    report = suite.runpytest_inprocess("-p", "tests.support.sampling", "--sample", "7", "-p", "no:xdist")

    report.assert_outcomes(passed=chosen, deselected=60 - chosen)
    report.stdout.fnmatch_lines(["sample: 1 of 3 tests, chosen by seed 7; make test-full SEED=7 repeats it, *"])
    report.stdout.fnmatch_lines([f"sample: {chosen} of 60 tests, chosen by seed 7; *"])


def test_two_processes_share_one_sample(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # three processes would load them
    chosen = len(sample(CASES, "7"))

    plugins = ("-p", "xdist.plugin", "-p", "tests.support.sampling")
    report = suite.runpytest_subprocess(*plugins, "--sample", "7", "-n", "2")

    report.assert_outcomes(passed=chosen)
    report.stdout.fnmatch_lines([f"sample: {chosen} of 60 tests, chosen by seed 7; *"])


def test_without_a_seed_all_tests_run(suite: pytest.Pytester):
    report = suite.runpytest_inprocess("-p", "tests.support.sampling", "-p", "no:xdist")

    report.assert_outcomes(passed=60)
    report.stdout.no_fnmatch_line("sample:*")
