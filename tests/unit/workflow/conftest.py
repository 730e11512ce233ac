"""What the tests of the pure core share."""

from __future__ import annotations

import pytest

from tests.support.driven_run import DrivenRun, RunOf


@pytest.fixture
def run_of() -> RunOf:
    """Start a run of a definition in the pure core."""
    return DrivenRun
