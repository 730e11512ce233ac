"""What all tests share: the test kit's fixtures and the settings of Hypothesis."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# celery.contrib.pytest comes first: pytest-celery hides its fixtures of the same names behind Docker ones.
pytest_plugins = ("celery.contrib.pytest", "multiagents.testing.plugin", "multiagents.testing.pytest_celery")

# No deadlines: a test machine has other things to do. In CI the same examples each time, so that red means changed.
settings.register_profile("laptop", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "laptop")
