"""What all tests share: the test kit's fixtures and the settings of Hypothesis."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from multiagents.testing.servers import server_kind

# celery.contrib.pytest comes first: pytest-celery hides its fixtures of the same names behind Docker ones.
pytest_plugins = (
    "celery.contrib.pytest",
    "multiagents.testing.plugin",
    "multiagents.testing.pytest_celery",
    "tests.support.sampling",
    "tests.support.distribution",
)

# A shell that starts this in the background has SIGINT ignored, here and in all that is started from here. Tests that
# press Ctrl-C need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadlines: a test machine has other things to do. In CI the same examples each time, so that red means changed.
settings.register_profile("laptop", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "laptop")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="the random workflow that `make soak` has printed the seed of")


def pytest_configure(config: pytest.Config) -> None:
    if server_kind() == "rabbitmq":
        # Who drops a Celery app leaves it to the collector to close its connections. Those of redis-py say nothing.
        config.addinivalue_line("filterwarnings", "ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int | None:
    """The seed that was asked for on the command line."""
    found: int | None = request.config.getoption("--seed")
    return found
