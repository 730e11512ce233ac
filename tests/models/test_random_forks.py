"""Forks of any workflow, from any step: what is there is taken over, and all else is done again (rule S22)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiagents import Orchestrator
from multiagents.exceptions import WorkflowError
from multiagents.workflow.decider import fold
from tests.models.random_workflows.case import Case, flat
from tests.models.random_workflows.comparison import be_the_people
from tests.models.random_workflows.elements import Rounds
from tests.models.random_workflows.stage import engine, on_stage


@pytest.fixture(scope="module")
def orchestrator() -> Iterator[Orchestrator]:
    with engine() as made:
        yield made


def never_ends(case: Case) -> bool:
    """Whether there is a loop that fails whatever its steps do."""
    loops = [each for each in flat(case.tree) if isinstance(each, Rounds)]
    return any(loop.must_end and loop.done_after > loop.most for loop in loops)


@settings(max_examples=100)
@given(chance=st.randoms())
def test_a_random_fork_does_again_what_is_not_there_and_nothing_else_S22(
    orchestrator: Orchestrator, chance: Random
) -> None:
    case = Case.of(chance, simple=True)
    with on_stage(case) as stage:
        definition = case.definition()
        run = orchestrator.start(definition, {"n": 1})
        be_the_people(orchestrator, run, stage)
        before = run.describe()
        # From now on everything goes well.
        stage.case = replace(case, verbs={})
        stage.works = {name: replace(work, failures=0, end="result") for name, work in stage.works.items()}
        stage.journal.clear()
        from_step = chance.choice(sorted(definition.steps))

        try:
            fork = run.fork(from_step)
        except WorkflowError as error:
            assert "which the run did not take" in str(error)  # noqa: PT017 - the only reason there is here
            return
        be_the_people(orchestrator, fork, stage)

        seen, snapshot = fork.describe(), orchestrator.store.load(fork.transaction_id)
        first = fork.history()[0].payload["forked"]
        taken = {name for name, step in seen.steps.items() if step.taken_over_from}
        did = [entry for entry in stage.seen("do") if entry.came_to == "result"]
        done = {entry.step for entry in did}
        behind = {name for name in definition.steps if from_step in (name, *definition.ancestors(name))}
        assert fold(snapshot.definition, fork.transaction_id, fork.history()) == snapshot.state
        assert orchestrator.store.visibility.unattended() == []
        # Nothing is done twice, nothing that was taken over is done, and nothing is taken over that is not there.
        assert len(did) == len(done)
        assert taken.isdisjoint({*done, *behind})
        assert {name for name in taken if name in before.effects} == set(first["live"])
        assert all(before.effects[name] == "live" for name in first["live"])
        # What is done before the first step was not there, or comes after something that was not.
        for name in done - behind:
            stood = [
                before.steps[each].status in ("succeeded", "skipped") for each in (name, *definition.ancestors(name))
            ]
            assert not all(stood)
        assert all(entry.key.startswith(f"{fork.transaction_id}/") for entry in stage.seen("do"))
        if not never_ends(case):
            assert seen.status == "completed"
            work = {name for name, step in seen.steps.items() if step.status == "succeeded" and name in seen.effects}
            assert {name for name in work - taken if not name.startswith("count.")} == done
            if before.status == "completed":
                assert seen.context == before.context
