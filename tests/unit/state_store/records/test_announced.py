"""What is announced is known for its time, and no longer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from multiagents.state_store.records import Announced, Node, of_queues, of_workers
from multiagents.state_store.records.announced import ALIVE_FOR, KEPT_FOR

NOW = 1_800_000_000_000
NODE = Node("w1@docks", "shop", "celery", ("docks",), {"5979": '"order" version "1"'}, {"07ab": "none"})


def announced(entries: dict[str, dict[str, Any]], age: float) -> Announced:
    return Announced.decode(
        {name: json.dumps({**told, "seen": NOW - round(age * 1000)}) for name, told in entries.items()}, NOW
    )


@pytest.mark.parametrize(("age", "is_there"), [(0, True), (ALIVE_FOR - 1, True), (ALIVE_FOR + 1, False)])
def test_a_worker_process_that_says_nothing_counts_as_gone_after_a_minute(age: float, is_there: bool) -> None:
    seen = announced(NODE.entry(), age)

    assert (seen.nodes, seen.stale) == (((NODE,), ()) if is_there else ((), ("node:w1@docks",)))
    assert seen.is_consumed("docks") is is_there


@pytest.mark.parametrize(("age", "known"), [(86_400 * 80, True), (KEPT_FOR + 1, False)])
def test_what_nobody_announces_for_a_quarter_is_dropped(age: float, known: bool) -> None:
    seen = announced({**of_workers({"charge": {"queue": "docks"}}), **of_queues(["docks"])}, age)

    assert (seen.knows("docks"), "charge" in seen.workers) == (known, known)
    assert seen.stale == (() if known else ("worker:charge", "queue:docks"))


def test_what_a_later_release_announces_is_passed_over_and_kept() -> None:
    later = {"node:w1@docks": {"name": "w1@docks", "moon": "full"}, "pool:docks": {"size": 7}}

    assert announced(later, 0) == Announced(nodes=(Node("w1@docks"),))
    assert announced({"pool:docks": {"size": 7}}, KEPT_FOR * 2).stale == ()


@pytest.mark.parametrize(
    ("node", "held"),
    [
        (NODE, [False, False]),
        (NODE._replace(holds=("order-1/a/do/1",)), [True, False]),
        (NODE._replace(holds_more=True), [True, True]),
        (NODE._replace(holds_more=True, queues=("pier",)), [False, False]),
    ],
    ids=["none", "one", "more than it names", "more of another queue"],
)
def test_what_a_worker_holds_is_known_or_what_it_may_hold(node: Node, held: list[bool]) -> None:
    seen = announced(node.entry(), 0)

    assert [seen.is_held(f"order-{number}/a/do/1", "docks") for number in (1, 2)] == held


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ([], None),  # nobody is there, so nothing is known
        ([NODE._replace(definitions={"07ab": "it"})], None),
        ([NODE], "none"),
        ([NODE._replace(lacks={})], ""),
        ([NODE, NODE._replace(name="w2@docks", definitions={"07ab": "it"})], None),
    ],
    ids=["nobody", "built", "said", "not come upon", "built by another"],
)
def test_a_content_is_lacking_where_workers_are_there_and_none_has_built_it(
    nodes: list[Node], found: str | None
) -> None:
    assert announced({name: told for node in nodes for name, told in node.entry().items()}, 0).lacking("07ab") == found
