"""Which tests of the long matrix go together when several processes share it."""

from __future__ import annotations

import pytest

from tests.support.distribution import group


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
