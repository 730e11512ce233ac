"""Test sagas as they run: real workers and real servers, as processes that a test may kill, pause and restart.

In a ``conftest.py`` at the top of the tests::

    pytest_plugins = ("multiagents.testing.plugin",)

Fixtures: `redis_url`, `broker_url`, `start_worker`, `crash_server`, `rabbitmq`; see `multiagents.testing.plugin`. For
pytest-celery without Docker, add ``"multiagents.testing.pytest_celery"``.
"""

from __future__ import annotations

from multiagents.embedded import EmbeddedServer
from multiagents.testing.process import GroupProcess, WorkerProcess, wait_until
from multiagents.testing.servers import RabbitNode

__all__ = ["EmbeddedServer", "GroupProcess", "RabbitNode", "WorkerProcess", "wait_until"]
