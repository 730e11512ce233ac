"""Maps of thousands on real workers: all of it done, each once, and no script that holds the server up for long.

The figures are printed: ``make test-full ARGS="-k scale_maps -s"``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multiagents import CommandEvent, CompensationEvent, ResultEvent, RetryPolicy, Step, WorkflowBuilder
from multiagents.testing import wait_until
from multiagents.workflow.decider import Fact
from tests.support.scenario import Deployment

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]
ONCE = RetryPolicy(max_attempts=1)
#: What no script may take, in ms. A page takes a tenth of it on an idle machine; 10,000 messages at once take more.
LONGEST = 250.0
BOOM = {"script": {"boom": ["terminal"]}}
PAY = WorkflowBuilder("scale_pay").add_step("hold", "echo", compensation="echo", inputs={}).build()


@pytest.fixture
def deployment(new_redis_url: Callable[[], str], tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(new_redis_url(), tmp_path, lease=30.0) as made:
        yield made


def each(**options: Any) -> Step:
    return Step("each", "echo", retry=ONCE, inputs={}, **options)


def watch_scripts(made: Deployment) -> None:
    made.redis.config_set("slowlog-log-slower-than", 5_000)
    made.redis.config_set("slowlog-max-len", 10_000)
    made.redis.slowlog_reset()


def longest_script(made: Deployment) -> float:
    """In ms, of those that took 5 or more; scripts are loaded whole at their first use, which is passed over."""
    entries: Any = made.redis.slowlog_get(10_000)
    return max((entry["duration"] / 1_000 for entry in entries if entry["command"].startswith(b"EVALSHA")), default=0.0)


def timed(made: Deployment, workflow: Any, items: int, **input: Any) -> Any:
    """Run it, print what it took, and give the run."""
    watch_scripts(made)
    began = time.monotonic()
    run = made.orchestrator.start(workflow, {"items": list(range(items)), **input})
    status = made.orchestrator.store.wait_for_end(run.transaction_id, 500)
    took, longest = time.monotonic() - began, longest_script(made)
    print(f"\n{workflow.name}: {items} items {status} in {took:.1f} s, longest script {longest:.0f} ms")
    assert longest < LONGEST
    return run


def counted(run: Any, kind: type[Any]) -> Counter[str]:
    return Counter(event.correlation_id for event in run.history() if isinstance(event, kind) and "[" in event.step)


def test_ten_thousand_items_are_done_once_each(deployment: Deployment) -> None:
    run = timed(deployment, WorkflowBuilder("scale_map").add_map("each", each()).build(), 10_000)

    assert run.status == "completed"
    assert counted(run, ResultEvent) == Counter(f"{run.transaction_id}/each[{n}]/do/1" for n in range(10_000))


def test_thousands_of_items_in_rows(deployment: Deployment) -> None:
    rows = WorkflowBuilder("scale_rows").add_map("each", each(), max_concurrency=50).build()

    assert timed(deployment, rows, 5_000).status == "completed"


def test_S8_thousands_of_items_are_undone_once_each(deployment: Deployment) -> None:
    """Each undo decided from the whole run would take a quarter of an hour."""
    undone = WorkflowBuilder("scale_undo").add_map("each", each(compensation="echo")).add_step("boom", "play").build()

    run = timed(deployment, undone, 3_000, **BOOM)

    assert run.status == "compensated"
    assert set(counted(run, CompensationEvent).values()) == {1}
    assert len(counted(run, ResultEvent)) == 6_000


def test_S20_ten_thousand_messages_that_nobody_has_taken_are_taken_back_in_pages(deployment: Deployment) -> None:
    waiting = WorkflowBuilder("scale_cancel").add_map("each", each(queue="nobody", compensation="echo")).build()
    run = deployment.orchestrator.start(waiting, {"items": list(range(10_000))})
    store = deployment.orchestrator.store
    wait_until(lambda: len(store.load(run.transaction_id).in_flight) == 10_000, 120, "all messages")
    watch_scripts(deployment)

    began = time.monotonic()
    run.cancel()
    store.wait_for_end(run.transaction_id, 120)

    longest = longest_script(deployment)
    print(f"\n10000 messages taken back in {time.monotonic() - began:.1f} s, longest script {longest:.0f} ms")
    assert run.status == "cancelled"
    assert longest < LONGEST
    assert len(counted(run, CommandEvent)) == 10_000
    pages = Counter(event.at for event in run.history() if getattr(event, "status", None) == Fact.REVOKED)
    assert (sum(pages.values()), max(pages.values())) == (10_000, 500)


def test_S11_a_thousand_children_are_run_and_undone(deployment: Deployment) -> None:
    parents = WorkflowBuilder("scale_children").add_map("each", PAY).add_step("boom", "play", retry=ONCE).build()

    run = timed(deployment, parents, 1_000, **BOOM)

    assert run.status == "compensated"
    store = deployment.orchestrator.store
    children = [store.load(f"{run.transaction_id}:each:{number}") for number in range(1_000)]
    assert Counter((child.state.status.value, child.generation) for child in children) == {("compensated", 1): 1_000}
