"""Which of xdist's processes gets which tests, with ``--dist loadgroup``: those that share a deployment stay together.

The tests of the rules share one warm worker for each pool and mode, over all their files; each setup of the crash
matrix has workers of its own. These take seconds to start: a process that has them gets all the tests that use them.
Everything else goes by file, and first: there are the tests that take minutes, and none of them should be the last.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

_DEPLOYMENT = re.compile(r"\b(prefork|threads|gevent|solo)-(inline|queued)(-outbox)?\b")


def group(node_id: str) -> str:
    """What the tests that go together have in common: a deployment in their folder, or else their file."""
    file, _, test = node_id.partition("::")
    deployment = _DEPLOYMENT.search(test)
    return f"{PurePosixPath(file).parent} on {deployment[0]}" if deployment else file


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("loadgroup", default=False):  # xdist tells its processes so
        items.sort(key=lambda item: " on " in group(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    from xdist.scheduler import LoadScopeScheduling

    class Grouping(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    if config.getoption("dist") != "loadgroup":
        return None
    config.option.loadscopereorder = False  # by the number of tests
    return Grouping(config, log)
