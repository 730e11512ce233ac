"""Test sagas as they run: real workers and real servers, as processes that a test may kill, pause and restart.

In a ``conftest.py`` at the top of the tests::

    pytest_plugins = ("multiagents.testing.plugin",)

Fixtures: `redis_url`, `broker_url`, `start_worker`, `crash_server`, `rabbitmq`, `lm_stub`; see
`multiagents.testing.plugin`. For pytest-celery without Docker, add ``"multiagents.testing.pytest_celery"``. To kill a
process at a chosen write of the engine, see `multiagents.testing.faults`; for agents without a provider, the language
model of `multiagents.testing.lm_stub`.
"""

from __future__ import annotations

from multiagents.embedded import EmbeddedServer
from multiagents.testing.lm_stub import LMStub
from multiagents.testing.servers import RabbitNode, new_server, server_kind
from multiagents.testing.worker_process import GroupProcess, WorkerProcess, wait_until

__all__ = [
    "EmbeddedServer",
    "GroupProcess",
    "LMStub",
    "RabbitNode",
    "WorkerProcess",
    "new_server",
    "server_kind",
    "wait_until",
]
