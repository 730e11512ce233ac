"""The benchmark report compares within a round, judges by the median, and hides nothing."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from benchmarks import agents, runner
from benchmarks.report import (
    LINES,
    Compare,
    Line,
    Results,
    Row,
    Verdict,
    as_json,
    caution,
    compared,
    figure,
    markdown,
    rows,
    spread,
    tables,
)

FASTER = Line("rate", "throughput", "runs/s", bound=2.0, at_least=True)
QUICKER = Line("time", "latency", "ms", bound=0.5)
LIGHTER = Line("idle", "idle worker", "%", Compare.DIFFERENCE, 0.5)
SMALLER = Line("memory", "memory of a run", "kB", Compare.OURS, 4.0)


def measured(measure: str, plain: list[float], ours: list[float]) -> Results:
    results = Results()
    for number, value in enumerate(plain, 1):
        results.add(number, "plain", {measure: value})
    for number, value in enumerate(ours, 1):
        results.add(number, "ours", {measure: value})
    return results


def test_a_ratio_is_taken_within_a_round_and_not_of_the_medians() -> None:
    results = measured("rate", plain=[100, 200, 400], ours=[300, 400, 1200])

    [row] = rows(results, [FASTER])

    assert row.compared == (3.0, 2.0, 3.0)
    assert compared(row) == "3.00 x [3.00/2.00/3.00]"


def test_a_round_that_lacks_one_side_is_not_compared() -> None:
    results = Results()
    results.add(1, "plain", {"rate": 100.0})
    results.add(2, "plain", {"rate": 50.0})
    results.add(2, "ours", {"rate": 150.0})

    [row] = rows(results, [FASTER])

    assert (row.plain, row.ours, row.compared) == ((100.0, 50.0), (150.0,), (3.0,))


@pytest.mark.parametrize(
    ("line", "plain", "ours", "verdict"),
    [
        (FASTER, [100.0], [200.0], Verdict.HIT),
        (FASTER, [100.0], [199.0], Verdict.MISS),
        (FASTER, [100.0, 100.0, 100.0], [500.0, 190.0, 190.0], Verdict.MISS),
        (QUICKER, [10.0], [5.0], Verdict.HIT),
        (QUICKER, [10.0], [5.1], Verdict.MISS),
        (LIGHTER, [0.25], [0.75], Verdict.HIT),
        (LIGHTER, [0.25], [1.0], Verdict.MISS),
        (SMALLER, [], [4.0], Verdict.HIT),
        (SMALLER, [1.0], [4.1], Verdict.MISS),
        (FASTER, [100.0], [], Verdict.NONE),
        (Line("rate", "no target", "runs/s"), [1.0], [1.0], Verdict.NONE),
    ],
)
def test_the_median_is_held_against_the_target(
    line: Line, plain: list[float], ours: list[float], verdict: Verdict
) -> None:
    [row] = rows(measured(line.measure, plain, ours), [line])

    assert row.verdict is verdict


def test_a_line_may_be_held_against_another_measure_of_the_plain_side() -> None:
    results = Results()
    results.add(1, "plain", {"w1.rate": 200.0, "aof.rate": 100.0})
    results.add(1, "ours", {"w1.rate": 500.0, "aof.rate": 300.0})
    line = Line("aof.rate", "AOF always", "runs/s", bound=1.3, at_least=True, baseline="w1.rate")

    [row] = rows(results, [line])

    assert (row.plain, row.ours, row.compared) == ((200.0,), (300.0,), (1.5,))


def test_lines_of_which_nothing_was_measured_are_left_out() -> None:
    assert rows(measured("time", [1.0], [1.0]), [FASTER, QUICKER, LIGHTER]) == [Row(QUICKER, (1.0,), (1.0,), (1.0,))]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (FASTER, "≥ 2 x"),
        (QUICKER, "≤ 0.5 x"),
        (LIGHTER, "≤ +0.5 %"),
        (SMALLER, "≤ 4 kB"),
        (Line("a", "no unit", "", Compare.OURS, 2.05), "≤ 2.05"),
        (Line("a", "no target", "ms"), "-"),
    ],
)
def test_a_target_reads_as_a_person_would_write_it(line: Line, words: str) -> None:
    assert line.target == words


def test_figures_keep_three_digits() -> None:
    assert [figure(value) for value in (1234.5, 123.4, 12.34, 1.234, 0.1234, -0.5)] == [
        "1234",
        "123",
        "12.3",
        "1.23",
        "0.12",
        "-0.50",
    ]


def test_a_single_round_has_no_range() -> None:
    assert (spread([2.0]), spread([3.0, 1.0, 2.0]), spread([])) == ("2.00", "2.00 (1.00-3.00)", "-")


def test_a_difference_shows_its_sign() -> None:
    worse, better = (rows(measured("idle", [1.0], [ours]), [LIGHTER])[0] for ours in (1.25, 0.75))

    assert (compared(worse), compared(better)) == ("+0.25", "-0.25")


def test_many_rounds_are_shown_as_a_range() -> None:
    [row] = rows(measured("time", [1.0] * 9, [0.5] * 8 + [0.75]), [QUICKER])

    assert compared(row) == "0.50 x (0.50-0.75)"


def test_the_median_of_nothing_is_not_a_number() -> None:
    assert math.isnan(Results().median("ours", "rate"))


def test_a_miss_stands_in_the_page_and_so_does_what_went_wrong() -> None:
    results = measured("rate", plain=[100.0], ours=[150.0])
    results.notes.append("round 1/1: W2 on ours failed\nwith a long log")

    page = markdown(rows(results, [FASTER]), results, {"cores": "2"})

    assert "Measured on cores 2." in page
    assert "| throughput [runs/s] | 100 | 150 | 1.50 x | ≥ 2 x | MISS |" in page
    assert "- round 1/1: W2 on ours failed\n" in page


def test_a_busy_machine_is_named_in_the_page() -> None:
    quiet, busy = measured("others", plain=[0.1], ours=[0.2]), measured("others", plain=[0.1], ours=[0.9])

    assert caution(quiet) is None
    assert "- other processes kept up to 0.90 cores busy" in markdown([], busy, {})


def test_lines_with_a_target_come_first_and_the_others_beneath() -> None:
    results = Results()
    results.add(1, "plain", {"rate": 1.0, "cpu": 2.0})

    drawn = tables(rows(results, [Line("cpu", "CPU", "ms"), FASTER]))

    assert [table.row_count for table in drawn] == [1, 1]
    assert [str(table.title).split(":")[0] for table in drawn] == ["Targets", "For orientation"]


def test_the_json_holds_every_value_and_verdict() -> None:
    results = measured("rate", plain=[100.0, 110.0], ours=[250.0, 260.0])

    written = json.loads(json.dumps(as_json(rows(results, [FASTER]), results, {"cores": "2"})))

    assert written["lines"][0]["verdict"] == "hit"
    assert written["lines"][0]["plain"] == [100.0, 110.0]
    assert written["measurements"][-1] == {"round": 2, "side": "ours", "measure": "rate", "value": 260.0}


def test_every_line_of_the_report_is_one_that_a_workload_measures() -> None:
    # Given the names in the source of the workloads, so that a line cannot silently stay empty
    source = Path(runner.__file__).read_text() + Path(agents.__file__).read_text()
    named = set(re.findall(r'"((?:w\d|latency|aof|raw|idle|import|agents)\.[a-z0-9.]+|others)"', source))

    measured_names = {name for line in LINES for name in (line.measure, line.baseline or line.measure)}

    assert {name for name in measured_names if not name.startswith("w1.cpu.")} <= named
