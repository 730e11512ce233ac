"""Which tests of the long matrix go together when several processes share it."""

from __future__ import annotations

import pytest

from tests.support import ROOT
from tests.support.distribution import group

pytest_plugins = ("pytester",)


@pytest.mark.parametrize(
    ("node_id", "expected"),
    [
        ("tests/rules/test_steps.py::test_a_step[threads-queued-x]", "tests/rules on threads-queued"),
        ("tests/rules/test_waits.py::test_a_wait[threads-queued]", "tests/rules on threads-queued"),
        ("tests/rules/test_waits.py::test_a_wait[solo-inline]", "tests/rules on solo-inline"),
        ("tests/faults/test_crash.py::test_G5[prefork-queued-outbox-bus.ack]", "tests/faults on prefork-queued-outbox"),
        ("tests/faults/test_crash.py::test_every_write", "tests/faults/test_crash.py"),
        ("tests/faults/test_processes.py::test_killed[queued]", "tests/faults/test_processes.py"),
    ],
)
def test_those_of_one_deployment_go_together_and_the_others_by_file(node_id: str, expected: str):
    assert group(node_id) == expected


def test_two_processes_take_files_first_and_never_share_a_deployment(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # three processes would load them
    # Which process has run what.
    note = """print(os.environ["PYTEST_XDIST_WORKER"], {}, file=open("ran.txt", "a"))"""
    rules = f"""
        import os, pytest

        @pytest.mark.parametrize("deployment", ["solo-inline", "solo-queued", "threads-inline", "threads-queued"])
        @pytest.mark.parametrize("case", range(5))
        def test_rule(deployment, case):
            {note.format("deployment")}
    """
    files = f"""
        import os, pytest

        @pytest.mark.parametrize("case", range(5))
        def test_other(case):
            {note.format("'other'")}
    """
    pytester.makepyfile(test_a_rules=rules, test_b_rules=rules, test_others=files)

    plugins = ("-p", "xdist.plugin", "-p", "tests.support.distribution")
    report = pytester.runpytest_subprocess(*plugins, "-n", "2", "--dist", "loadgroup")

    report.assert_outcomes(passed=45)
    ran = [line.split() for line in (pytester.path / "ran.txt").read_text().splitlines()]
    assert len({(process, on) for process, on in ran}) == 5
    [process] = {process for process, on in ran if on == "other"}
    assert [on for by, on in ran if by == process][:5] == ["other"] * 5
