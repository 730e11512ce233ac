"""Rule S33: what a step waits for is said in words, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from multiagents import Orchestrator, Run, WorkflowBuilder
from multiagents.names import Correlation, Direction
from multiagents.state_store.records import Delivery, Dispatch, Node, of_queues, of_workers
from multiagents.testing import wait_until
from multiagents.workflow.definition import Definition


def of(add: Callable[[WorkflowBuilder], WorkflowBuilder]) -> Definition:
    return add(WorkflowBuilder("waiting")).build(register=False)


def announce(orchestrator: Orchestrator, *queues: str, definitions: dict[str, str] | None = None) -> None:
    node = Node("w1@docks", "shop", "celery", queues or ("celery",), definitions or {})
    known = {**of_workers({"near": {}}), **of_queues([*node.queues, "night"])}
    orchestrator.store.announce({**node.entry(), **known})


#: A workflow -> what its step ``a`` waits for while nobody does anything.
WAITS: dict[str, tuple[Callable[[WorkflowBuilder], WorkflowBuilder], list[tuple[str, str, str]]]] = {
    "its turn": (lambda made: made.add_step("a", "near"), [("queue", "celery", 'its turn in queue "celery"')]),
    "a queue nobody knows": (
        lambda made: made.add_step("a", "near", queue="nihgt"),
        [("queue", "nihgt", 'no worker of this store consumes queue "nihgt"; did you mean "night"?')],
    ),
    "a queue nobody consumes now": (
        lambda made: made.add_step("a", "near", queue="night"),
        [("queue", "night", 'queue "night": no worker of this store consumes it now')],
    ),
    "a worker nobody has": (
        lambda made: made.add_step("a", "naer"),
        [
            (
                "worker",
                "naer",
                'worker "naer", which no worker process of this store has announced; did you mean "near"?',
            ),
            ("queue", "celery", 'its turn in queue "celery"'),
        ],
    ),
    "a signal": (lambda made: made.add_wait("a", "payment"), [("signal", "payment", 'signal "payment"')]),
    "an approval": (lambda made: made.add_approval("a"), [("approval", "a", 'approval "a"')]),
    "somebody else": (
        lambda made: made.add_step("a", "provider", external=True),
        [("external", "a", "a result that somebody else publishes")],
    ),
    "time": (lambda made: made.add_sleep("a", 60), []),
    "the step before": (lambda made: made.add_sleep("z", 60).add_step("a", "near", when=bool), []),
}


@pytest.mark.parametrize("case", WAITS)
def test_S33_what_a_step_waits_for_is_said_in_words(orchestrator: Orchestrator, case: str) -> None:
    add, expected = WAITS[case]
    announce(orchestrator)
    run = orchestrator.start(of(add))

    waits = run.describe().steps["a"].waiting_for

    assert [(each.kind, each.name, each.text) for each in waits] == expected
    assert all(each.id == f"{run.transaction_id}/a/do/1" and each.since is not None for each in waits)


def test_S33_without_any_worker_that_is_what_is_said(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(of(lambda made: made.add_step("a", "near")))

    [waits] = run.describe().steps["a"].waiting_for

    assert str(waits) == 'queue "celery": no worker of this store is running'


def test_S33_code_that_no_worker_has_is_waited_for_by_the_step_that_is_next(orchestrator: Orchestrator) -> None:
    coded = of(lambda made: made.add_step("a", "near", when=bool).add_step("b", "near", inputs=bool))
    announce(orchestrator, definitions={"07ab": '"waiting" version "2"'})
    run = orchestrator.start(Definition.from_json(coded.to_json()))

    seen = run.describe().steps

    assert [each.text for each in seen["a"].waiting_for] == [
        'a worker that has this content of workflow "waiting" version "1" (they have version "2")'
    ]
    assert seen["b"].waiting_for == ()
    announce(orchestrator, definitions={coded.content_hash: '"waiting" version "1"'})
    assert _eventually_nothing(run)


def _eventually_nothing(run: Run) -> bool:
    # What was announced is taken as known for a second.
    return bool(wait_until(lambda: run.describe().steps["a"].waiting_for == (), 5, "the announcement to be seen"))


def test_who_waits_under_a_limit_says_under_which(orchestrator: Orchestrator, given_back: Any) -> None:
    run = orchestrator.start(of(lambda made: made.add_step("a", "near")))

    given_back(Correlation(run.transaction_id, "a", Direction.DO, 1), "bank:7")

    [waits] = run.describe().steps["a"].waiting_for
    assert (waits.kind, waits.name, waits.text) == ("limit", "bank:7", 'its turn under the limit "bank:7"')


@pytest.fixture
def given_back(orchestrator: Orchestrator) -> Callable[[Correlation, str], None]:
    """Gives an attempt back as a worker does for which a limit leaves no slot."""

    def give(attempt: Correlation, key: str) -> None:
        snapshot = orchestrator.store.load(attempt.transaction_id)
        found = snapshot.in_flight[attempt.step]
        again = Dispatch(attempt.step, found.attempt_key, Delivery.TIMER, target=key, delay_ms=60_000)
        assert orchestrator.store.dispatch(snapshot.state.identity, again, found.record)

    return give
