"""Rule S26: versions side by side, and what a start says of two contents under one; over memory and Redis."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from multiagents import Orchestrator, WorkflowBuilder
from multiagents.events import CommandEvent, ErrorEvent
from multiagents.orchestrator.engine import version_check as versions
from multiagents.orchestrator.engine.user_code import Answers
from multiagents.orchestrator.engine.version_check import Versions
from multiagents.orchestrator.engine.view import StartView
from multiagents.state_store.records import Started
from multiagents.workflow.decider import Question
from multiagents.workflow.definition import Definition, DefinitionRegistry
from multiagents.workflow.state import RunState

_numbers = count()


def order(*steps: str, version: str = "1") -> Definition:
    builder = WorkflowBuilder("versioned-order", version)
    for step in steps:
        builder.add_step(step)
    return builder.build(register=False)


OLD, CHANGED, NEXT = order("reserve", "charge"), order("reserve", "ship"), order("reserve", "ship", version="2")


def start(orchestrator: Orchestrator, definition: Definition) -> Any:
    """Start a run in the first partition: what is known of versions is known in each for itself."""
    identity = next(name for n in _numbers if not orchestrator.keys.partition_of(name := f"order-{n}"))
    return orchestrator.start(definition, transaction_id=identity)


class Warnings(logging.Handler):
    """What was warned of, whatever else is logged meanwhile."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def warned() -> Iterator[Warnings]:
    handler, logger = Warnings(), logging.getLogger("multiagents.orchestrator.engine.version_check")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_S26_two_contents_under_one_version_are_warned_of_once_and_each_run_keeps_its_own(
    orchestrator: Orchestrator, warned: Warnings
) -> None:
    runs = [start(orchestrator, definition) for definition in (OLD, OLD, CHANGED, CHANGED)]

    assert [list(run.describe().steps) for run in runs] == [["reserve", "charge"]] * 2 + [["reserve", "ship"]] * 2
    assert warned.messages == [
        (
            'workflow "versioned-order" version "1" has another content here than in the process that started a run of '
            'it before: step "ship" was added; step "charge" was removed. Each run goes on by the content it started '
            "with, but nobody can tell the two apart by their version, and a process finds the code only of the "
            'content it has; raise the version, e.g. WorkflowBuilder("versioned-order", version="2")'
        )
    ]


def test_S26_the_content_of_the_last_run_counts_so_that_a_finished_deployment_is_quiet(
    orchestrator: Orchestrator, warned: Warnings
) -> None:
    for definition in (OLD, CHANGED):
        start(orchestrator, definition)
    warned.messages.clear()
    new_process = Orchestrator(orchestrator.app, orchestrator.settings)

    start(new_process, CHANGED)
    quiet = list(warned.messages)
    start(new_process, OLD)  # as an old process that is still there does

    assert (quiet, len(warned.messages)) == ([], 1)
    new_process.store.close()


def test_S26_versions_run_side_by_side_without_a_word(orchestrator: Orchestrator, warned: Warnings) -> None:
    runs = [start(orchestrator, definition) for definition in (OLD, NEXT, OLD)]

    assert [(run.describe().version, list(run.describe().steps)[-1]) for run in runs] == [
        ("1", "charge"),
        ("2", "ship"),
        ("1", "charge"),
    ]
    assert warned.messages == []


def test_a_start_that_finds_its_run_says_nothing_of_versions(orchestrator: Orchestrator, warned: Warnings) -> None:
    run = start(orchestrator, OLD)

    orchestrator.start(CHANGED, transaction_id=run.transaction_id, on_conflict="return")

    assert warned.messages == []


def test_a_content_that_nobody_keeps_any_more_is_warned_of_all_the_same(
    orchestrator: Orchestrator, warned: Warnings
) -> None:
    started = Started(True, OLD.name, OLD.content_hash, "", other="f" * 32)

    Versions(orchestrator.store).look_at(started, OLD, "order-1")

    assert "it cannot be said in what (no definition with content hash 'fff" in warned.messages[0]


# Code that is elsewhere ----------------------------------------------------------------------------------------------


def coded(version: str, *more: str) -> Definition:
    builder = WorkflowBuilder("coded-order", version).add_step("ship", when=lambda ctx: bool(ctx["paid"]))
    for step in more:
        builder.add_step(step)
    return builder.build(register=False)


COMMAND = CommandEvent(
    id="order-1/ship/do/1", transaction_id="order-1", correlation_id="order-1/ship/do/1", step="ship", attempt=1
)


@pytest.mark.parametrize(
    ("here", "found"),
    [
        ([], "the last process that looked has no version of it"),
        ([coded("2"), coded("3")], "the last process that looked has version 2, 3"),
        (
            [coded("1", "mail")],
            'the last process that looked has other content under version "1": step "mail" was added',
        ),
    ],
    ids=["nothing", "other versions", "other content"],
)
def test_S27_who_gives_a_run_up_for_its_code_says_what_version_is_missing_and_what_was_there(
    monkeypatch: pytest.MonkeyPatch, here: list[Definition], found: str
) -> None:
    registry = DefinitionRegistry()
    for definition in here:
        registry.register(definition)
    monkeypatch.setattr(versions, "definitions", registry)
    read = Definition.from_json(coded("1").to_json())

    view = StartView(read, RunState("order-1", "coded-order"), {})
    question = Question(read.steps["ship"], COMMAND, read, ())

    assert Answers(view, None, 1000)(question) is None
    failure = Answers(view, None, 1000, waits_too_long=lambda _step: True)(question)

    assert isinstance(failure, ErrorEvent)
    assert failure.error.message == (
        "when= of step 'ship' is code of workflow 'coded-order' version '1', and no worker process that has it came "
        f"within the step's schedule_to_start ({found}); have the workers import the module that builds this version "
        "until its last run is over"
    )
