"""A third of the tests that were asked for, another one with each seed: for a matrix that is too long to run whole.

``pytest -m full --sample 1234`` runs it, and the same seed runs the same tests again. Whether a test is in it hangs on
the seed and on its node id alone, so not on the order, the machine or the process that asks. Of every test function at
least one case is kept, so no kind of test is lost; over many seeds every case has its turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import pytest

#: One test of so many is kept.
PARTS = 3

_COUNTS = pytest.StashKey[tuple[int, int]]()


def sample(node_ids: Iterable[str], seed: str) -> set[str]:
    """Those to run: one of `PARTS` on the average, and of every test function at least one case."""
    place = {node_id: _place(node_id, seed) for node_id in node_ids}
    first: dict[str, str] = {}
    for node_id in sorted(place, key=place.__getitem__):
        first.setdefault(_function(node_id), node_id)
    return {node_id for node_id, at in place.items() if at < 1 / PARTS} | set(first.values())


def _place(node_id: str, seed: str) -> float:
    """A number from 0 to 1 that looks as if it were drawn by chance."""
    digest = hashlib.sha256(f"{seed} {node_id}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _function(node_id: str) -> str:
    return node_id.partition("[")[0]


# --- what pytest calls -----------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sample", metavar="SEED", help="run a third of the tests that were asked for, chosen by this seed"
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    seed = config.getoption("--sample")
    return f"sample: 1 of {PARTS} tests, chosen by seed {seed}; {_how(seed)}" if seed else None


@pytest.hookimpl(trylast=True)  # after -m and -k
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seed = config.getoption("--sample")
    if not seed:
        return
    chosen = sample((item.nodeid for item in items), seed)
    config.stash[_COUNTS] = len(chosen), len(items)
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in chosen])
    items[:] = [item for item in items if item.nodeid in chosen]


def pytest_report_collectionfinish(config: pytest.Config) -> str | None:
    return _counted(config)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of xdist is the one who has counted; tell the process that reports."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["sample"] = session.config.stash.get(_COUNTS, None)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if counts := getattr(node, "workeroutput", {}).get("sample"):
        node.config.stash[_COUNTS] = tuple(counts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if counted := _counted(config):
        terminalreporter.write_line(counted)


def _counted(config: pytest.Config) -> str | None:
    if _COUNTS not in config.stash:
        return None
    chosen, total = config.stash[_COUNTS]
    seed = config.getoption("--sample")
    return f"sample: {chosen} of {total} tests, chosen by seed {seed}; {_how(seed)}"


def _how(seed: str) -> str:
    return f"make test-full SEED={seed} repeats it, ALL=1 runs all"
