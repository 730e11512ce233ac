"""One reader for every place that takes a worker: how one may be written, and what is refused there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, current_app

from multiagents import Choice, Loop, Savepoint, Step, WorkflowBuilder, celery_task, worker
from multiagents.exceptions import DefinitionError
from multiagents.workflow.definition import Definition

#: A place that takes a worker -> how it is put there.
PLACES: dict[str, Callable[[WorkflowBuilder, Any], WorkflowBuilder]] = {
    "add_step": lambda made, it: made.add_step("s", it),
    "compensation": lambda made, it: made.add_step("s", "do", compensation=it),
    "resolve_with": lambda made, it: made.add_step("s", "do", on_unknown="resolve", resolve_with=it),
    "reread": lambda made, it: made.add_step("s", "do", pivot=True, reread=it),
    "branch": lambda made, it: made.add_parallel("p", [it, "other"]),
    "sequence": lambda made, it: made.add_parallel("p", [[it, "more"], "other"]),
    "deep": lambda made, it: made.add_parallel("p", [[[it]], "other"]),
    "choice": lambda made, it: made.add_choice("c", lambda ctx: "a", {"a": it, "b": []}),
    "loop": lambda made, it: made.add_loop("l", it, until=bool, max_iterations=2),
    "loop of one": lambda made, it: made.add_loop("l", [it], until=bool, max_iterations=2),
    "map": lambda made, it: made.add_map("m", it),
    "map undo": lambda made, it: made.add_map("m", "do", compensation=it),
    "child undo": lambda made, it: made.add_child("c", CHILD, compensation=it),
    "nested": lambda made, it: made.add_parallel("p", [Choice("c", str, {"a": [Loop("l", it, bool, 2)]}), "other"]),
}
#: A map may run a workflow; a step has its name from elsewhere.
TAKES_WORKFLOWS = {"map"}
CHILD = WorkflowBuilder("written-child").add_step("a").build()


@worker("written")
def written(context: dict[str, Any]) -> dict[str, Any]:
    return {}


def built(place: str, it: Any) -> Definition:
    return PLACES[place](WorkflowBuilder("written"), it).build(register=False)


@pytest.mark.parametrize("place", PLACES)
def test_a_decorated_function_is_taken_wherever_its_name_is(place: str) -> None:
    assert built(place, written).to_dict() == built(place, "written").to_dict()


@pytest.fixture
def app() -> Iterator[Celery]:
    """The current app, which Celery asks for a task; that of a test before this may be closed."""
    before = current_app._get_current_object()
    yield Celery("written")
    before.set_current()


@pytest.mark.parametrize("place", PLACES)
def test_S33_a_celery_task_is_taken_wherever_its_celery_task_is(app: Celery, place: str) -> None:
    @app.task(name="written.mail", shared=False)
    def mail(order_id: str) -> None: ...

    assert built(place, mail).to_dict() == built(place, celery_task(mail)).to_dict()


@pytest.mark.parametrize("place", PLACES)
def test_a_builder_that_was_not_built_is_refused_where_a_worker_is_meant(place: str) -> None:
    with pytest.raises(DefinitionError, match=r'the builder of workflow "forgotten".*\.build\(\)'):
        built(place, WorkflowBuilder("forgotten").add_step("a"))


#: A step of a loop has a name of its own; a worker's rounds are named after the loop.
NAMED = {"loop", "nested"}


@pytest.mark.parametrize("place", sorted(PLACES.keys() - NAMED))
def test_a_step_that_says_no_more_than_its_worker_is_taken_wherever_a_worker_is(place: str) -> None:
    assert built(place, Step("written", written)).to_dict() == built(place, "written").to_dict()


def test_what_ends_are_told_to_may_be_written_likewise() -> None:
    made = [WorkflowBuilder("told", on_end=it).add_step("a").build(register=False) for it in ("written", written)]

    assert made[0] == made[1]
    with pytest.raises(DefinitionError, match="which is not a worker"):
        WorkflowBuilder("told", on_end=CHILD).add_step("a").build(register=False)


@pytest.mark.parametrize("place", sorted(PLACES.keys() - TAKES_WORKFLOWS))
def test_a_workflow_where_a_worker_is_meant_is_refused_and_the_way_to_run_it_is_told(place: str) -> None:
    with pytest.raises(DefinitionError, match=r'the workflow "written-child".*Child\("written-child"'):
        built(place, CHILD)


def undecorated(context: dict[str, Any]) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "it",
    [undecorated, lambda ctx: {}, 3, object(), {"task": "t"}],
    ids=["function", "lambda", "number", "object", "signature"],
)
def test_what_is_no_worker_is_refused_in_words(place: str, it: Any) -> None:
    with pytest.raises(
        DefinitionError, match=r"which is not a worker|expected a Step, a worker|expected the name of a"
    ):
        built(place, it)


def test_a_step_with_options_where_only_a_worker_fits_is_refused_as_they_would_be_lost() -> None:
    with pytest.raises(DefinitionError, match="would be lost here: give its worker alone"):
        built("compensation", Step("undo", written, timeout=5))


def test_branches_that_come_from_generators_are_read_once() -> None:
    made = (
        WorkflowBuilder("generated")
        .add_parallel("p", (Step(f"p{n}", written) for n in range(2)))
        .add_choice("c", str, {"a": (Step(f"c{n}", written) for n in range(2)), "b": ()})
        .add_loop("l", (Step(f"l{n}", written) for n in range(2)), until=bool, max_iterations=2)
    )

    assert made.build(register=False) == made.build(register=False)


# Names that would be there twice ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        # A step in a save-point, beside a loop over a worker of its name.
        lambda: WorkflowBuilder("w").add_parallel(
            "p", [[Savepoint("here"), Step("l", "do")], [Loop("x", ["l"], bool, 3)]]
        ),
        lambda: WorkflowBuilder("w").add_savepoint("here", retries=2).add_step("l").add_loop("x", ["l"], bool, 3),
        # A round in a save-point, and the round of a loop in a loop.
        lambda: WorkflowBuilder("w")
        .add_savepoint("here")
        .add_loop("x", ["l"], bool, 2)
        .add_loop("y", [Loop("z", ["l"], bool, 2)], bool, 2),
    ],
)
def test_S15_names_that_a_later_pass_would_have_twice_are_refused(made: Callable[[], WorkflowBuilder]) -> None:
    with pytest.raises(DefinitionError, match=r'would be called "l#.*rename the step, or what the loop runs'):
        made().build(register=False)


def test_S15_names_that_no_pass_comes_to_are_left_alone() -> None:
    made = WorkflowBuilder("w").add_savepoint("here").add_parallel("p", [["a", Loop("x", ["b"], bool, 3)], "l"])

    built = made.add_step("m").build(register=False)

    assert {name for name in built.expanded({}, ["here"]).steps if name.endswith("#2")} > {"a#2", "l#2", "b#1#2"}


# Workflows in workflows ---------------------------------------------------------------------------------------------


def nested(depth: int) -> Definition:
    made = WorkflowBuilder("nested-0").add_step("a", "do").build(register=False)
    for number in range(1, depth + 1):
        builder = WorkflowBuilder(f"nested-{number}")
        made = (builder.add_child("c", made) if number % 2 else builder.add_map("c", made)).build(register=False)
    return made


def test_workflows_lie_in_each_other_as_deep_as_they_can_be_stored() -> None:
    deep = nested(40)

    assert Definition.from_json(deep.to_json()) == deep


@pytest.mark.parametrize("depth", [41, 300])
def test_deeper_ones_are_refused_in_words(depth: int) -> None:
    with pytest.raises(DefinitionError, match="41 deep; expected 40 at most"):
        nested(depth)
