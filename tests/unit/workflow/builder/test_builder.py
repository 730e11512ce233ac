"""The builder: what it makes of what is written, and the sentences in which it refuses."""

from __future__ import annotations

import inspect
import pydoc
import warnings
from collections.abc import Callable
from typing import Any, get_args

import pytest

from multiagents.exceptions import DefinitionError, DuplicateStepError, StepCycleError, UnknownStepError
from multiagents.retry import RetryPolicy
from multiagents.workflow.builder import Step, WorkflowBuilder, builder, elements
from multiagents.workflow.definition import Definition, DefinitionRegistry


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> DefinitionRegistry:
    """A registry of the test's own, so that tests may all build an "order"."""
    registry = DefinitionRegistry()
    monkeypatch.setattr(builder, "definitions", registry)
    return registry


def order() -> WorkflowBuilder:
    return WorkflowBuilder("order")


def after(definition: Definition) -> dict[str, tuple[str, ...]]:
    return {name: step.after for name, step in definition.steps.items()}


# What it makes ------------------------------------------------------------------------------------------------------


def test_a_step_follows_the_one_added_before_it() -> None:
    built = order().add_step("reserve").add_step("charge").add_step("ship").build()

    assert after(built) == {"reserve": (), "charge": ("reserve",), "ship": ("charge",)}


def test_a_parallel_block_forks_and_what_follows_waits_for_the_end_of_each_branch() -> None:
    built = (
        order()
        .add_step("reserve")
        .add_parallel("risk", [Step("fraud", "check_fraud"), [Step("credit"), "limit"], ["a", ["b", ["c"]]]])
        .add_step("charge")
        .build()
    )

    assert after(built) == {
        "reserve": (),
        "fraud": ("reserve",),
        "credit": ("reserve",),
        "limit": ("credit",),
        "a": ("reserve",),
        "b": ("a",),
        "c": ("b",),
        "charge": ("fraud", "limit", "c"),
    }
    assert built.steps["fraud"].worker == "check_fraud"
    assert {name for name, step in built.steps.items() if step.block == "risk"} == {
        "fraud",
        "credit",
        "limit",
        "a",
        "b",
        "c",
    }
    assert not any(step.cancel_siblings for step in built.steps.values())


def test_S7_a_block_may_cancel_the_siblings_of_a_failed_step() -> None:
    built = order().add_parallel("risk", ["fraud", "credit"], on_failure="cancel").add_step("charge").build()

    assert [step.cancel_siblings for step in built.steps.values()] == [True, True, False]
    assert built.blocks["risk"].on_failure == "cancel"


def test_a_block_may_follow_a_block() -> None:
    built = order().add_parallel("one", ["a", "b"]).add_parallel("two", ["c", "d"]).build()

    assert after(built) == {"a": (), "b": (), "c": ("a", "b"), "d": ("a", "b")}


def test_after_names_steps_and_blocks_also_later_ones() -> None:
    built = (
        order()
        .add_step("ship", after=["risk", "charge"])
        .add_step("charge", after=[])
        .add_parallel("risk", ["fraud", ["credit", Step("limit", after=["credit", "reserve"])]], after="charge")
        .add_step("reserve", after=())
        .build()
    )

    assert after(built) == {
        "ship": ("charge", "fraud", "limit"),
        "charge": (),
        "fraud": ("charge",),
        "credit": ("charge",),
        "limit": ("credit", "reserve"),
        "reserve": (),
    }
    assert built.entries == ("charge", "reserve")
    assert built.exits == ("ship",)


def test_a_worker_is_named_by_a_string_a_decorated_function_or_a_celery_task() -> None:
    class Task:
        name = "shop.tasks.charge"

        def apply_async(self) -> None: ...

    class Decorated:
        name = "other"
        multiagents_name = "charge_card"

    built = (
        WorkflowBuilder("order")
        .add_step("a", "reserve_stock", compensation=Task())
        .add_step("b", Task())
        .add_step("c", Decorated(), compensation=Decorated())
        .add_step("d")
        .add_parallel("p", [Task(), [Decorated()]])
        .build()
    )

    assert [(step.name, step.worker, step.compensation) for step in built.steps.values()] == [
        ("a", "reserve_stock", "shop.tasks.charge.step"),
        ("b", "shop.tasks.charge.step", None),
        ("c", "charge_card", "charge_card"),
        ("d", "d", None),
        ("shop.tasks.charge.step", "shop.tasks.charge.step", None),
        ("charge_card", "charge_card", None),
    ]


def test_every_argument_arrives_in_the_definition() -> None:
    def when(_ctx: dict[str, Any]) -> bool:
        return True

    given: dict[str, Any] = {
        "compensation": "undo",
        "when": when,
        "inputs": {"a": "b"},
        "retry": RetryPolicy(max_attempts=1),
        "undo_retry": RetryPolicy(max_attempts=2),
        "timeout": 1,
        "schedule_to_start": 2,
        "schedule_to_close": 3,
        "heartbeat_timeout": 4,
        "cancel_safe": True,
        "external": True,
        "on_unknown": "resolve",
        "resolve_with": "probe",
        "compensate_on_failure": True,
        "queue": "q",
        "priority": 0,
        "summary": "s",
    }
    built = order().add_step("one", "work", **given).add_parallel("p", [Step("two", "work", **given)]).build()

    for step in built.steps.values():
        assert {name: getattr(step, name) for name in given} == given


@pytest.mark.parametrize("element", get_args(elements.Element), ids=lambda element: element.__name__)
def test_each_element_is_a_method_with_its_arguments_and_its_docstring(element: Any) -> None:
    name = f"add_{element.__name__.lower()}"
    method = getattr(WorkflowBuilder, name)
    of_builder, *of_method = inspect.signature(method).parameters.values()

    assert (method.__name__, method.__qualname__) == (name, f"WorkflowBuilder.{name}")
    assert inspect.getdoc(method) == inspect.getdoc(element)
    assert all(f"{option.name}: " in element.__doc__ for option in of_method)
    assert of_builder.name == "self"
    assert of_method == list(inspect.signature(element).parameters.values())
    assert pydoc.plain(pydoc.render_doc(method)).splitlines()[2].startswith(f"{name}(self, name: 'str', ")


def test_a_built_workflow_is_registered_unless_asked_otherwise(known: DefinitionRegistry) -> None:
    order().add_step("a").build(register=False)
    assert known.names() == ()

    built = order().add_step("a").build()
    assert known.get("order") is built


def test_a_builder_can_be_built_again_and_branches_may_be_an_iterator() -> None:
    made = order().add_parallel("risk", (name for name in ("fraud", "credit")))

    assert made.build(register=False) == made.build(register=False)
    assert list(made.add_step("ship").build().steps) == ["fraud", "credit", "ship"]


def test_the_builder_says_what_it_holds() -> None:
    assert repr(order()) == "<WorkflowBuilder 'order' version '1': no steps yet>"
    assert repr(order().add_step("a").add_parallel("p", ["b"])) == "<WorkflowBuilder 'order' version '1': 'a', 'p'>"
    assert repr(order().add_step("a").build()).startswith("<Definition 'order' version '1': 1 step, ")
    assert repr(Step("a", timeout=3)) == "Step('a', timeout=3)"


def test_thousands_of_steps_build_quickly() -> None:
    """Well under a second together; quadratic work over pairs of steps would meet the test's time limit."""
    made = order()
    for number in range(5_000):
        made.add_step(f"s{number}", "work")
    wide = WorkflowBuilder("wide").add_parallel("p", [f"b{number}" for number in range(1_000)]).add_step("join")

    built = made.build()
    joined = wide.build()

    assert all(built.parts(name) == () for name in built.steps)
    assert len(joined.parts("join")) == 1_000


# What it refuses ----------------------------------------------------------------------------------------------------


def refused(made: WorkflowBuilder, kind: type[DefinitionError] = DefinitionError) -> str:
    with pytest.raises(kind) as caught:
        made.build()
    assert type(caught.value) is kind
    return str(caught.value)


def test_two_steps_of_one_name_are_refused() -> None:
    made = order().add_step("a").add_parallel("p", ["b", "a"])

    assert 'workflow "order" has two steps named "a"' in refused(made, DuplicateStepError)


def test_two_blocks_of_one_name_are_refused() -> None:
    made = order().add_parallel("p", ["a"]).add_parallel("p", ["b"])

    assert refused(made) == 'workflow "order" has two parallel blocks named "p"; rename one of them'


def test_a_step_and_a_block_of_one_name_are_refused() -> None:
    assert 'has a step and a parallel block named "a"' in refused(order().add_parallel("a", ["a"]))


def test_waiting_for_an_unknown_step_suggests_the_nearest_step_or_block() -> None:
    made = order().add_step("reserve").add_parallel("risk", ["fraud"])

    assert refused(made.add_step("ship", after=["risc"]), UnknownStepError) == (
        'workflow "order": step "ship" waits for step "risc", which is not defined; did you mean "risk"? '
        "(steps: reserve, fraud, ship, risk)"
    )


def test_a_circle_is_printed() -> None:
    made = order().add_step("a", after="c").add_step("b").add_step("c")

    message = refused(made, StepCycleError)

    assert 'workflow "order": steps wait for each other in a circle' in message
    assert any(circle in message for circle in ("a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c"))


def test_a_step_that_waits_for_itself_is_a_circle() -> None:
    assert "a -> a" in refused(order().add_step("a", after="a"), StepCycleError)


def test_a_workflow_without_steps_is_refused() -> None:
    assert refused(order()) == 'workflow "order" has no steps; add one with add_step("name", "worker")'


@pytest.mark.parametrize("name", ["", "a b", "a/b", "resize[3]", "poll#2", "-a", "x" * 129, None, 3])
def test_names_that_cannot_be_part_of_an_id_are_refused(name: Any) -> None:
    assert f"step name {name!r} cannot be used; expected 1 to 128 of" in refused(order().add_step(name))
    assert f"block name {name!r} cannot be used" in refused(order().add_parallel(name, ["a"]))
    assert f"workflow name {name!r} cannot be used" in refused(WorkflowBuilder(name).add_step("a"))
    assert f"has version {name!r}; expected a string" in refused(WorkflowBuilder("order", name).add_step("a"))


def test_an_argument_that_does_not_exist_is_refused_as_python_does() -> None:
    with pytest.raises(TypeError, match="retires"):
        Step("a", retires=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="retires"):
        order().add_step("a", retires=3)  # type: ignore[call-arg]


NOT_SECONDS = [-1, "30s", True, float("inf"), float("nan")]


@pytest.mark.parametrize("value", NOT_SECONDS)
@pytest.mark.parametrize("option", ["timeout", "schedule_to_start", "schedule_to_close", "heartbeat_timeout"])
def test_times_must_be_seconds(option: str, value: Any) -> None:
    message = refused(order().add_step("a", **{option: value}))

    assert message.startswith(f'workflow "order" step "a" has {option}={value!r}; expected a number, ')


@pytest.mark.parametrize("option", ["schedule_to_start", "schedule_to_close", "heartbeat_timeout"])
def test_only_a_timeout_may_be_zero(option: str) -> None:
    zero: dict[str, Any] = {option: 0}

    assert "expected a number, more than 0 seconds" in refused(order().add_step("a", **zero))


@pytest.mark.parametrize("value", [*NOT_SECONDS, 0])
@pytest.mark.parametrize("option", ["deadline", "retention"])
def test_times_of_the_workflow_must_be_seconds(option: str, value: Any) -> None:
    message = refused(WorkflowBuilder("order", **{option: value}).add_step("a"))

    assert message.startswith(f'workflow "order" has {option}={value!r}; expected a number, more than 0')


def test_a_step_without_time_limit_builds_with_a_warning_that_points_here() -> None:
    with pytest.warns(UserWarning, match=r'step "a" has timeout=0, which is no limit: .* holds the run') as caught:
        built = order().add_step("a", timeout=0).build()

    assert built.steps["a"].timeout == 0
    assert [warning.filename for warning in caught] == [__file__]


def test_a_limited_step_builds_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        order().add_step("a", timeout=0.1).add_step("b").build()


async def asynchronous(_ctx: dict[str, Any]) -> bool:
    return True


def plain_function(_ctx: dict[str, Any]) -> dict[str, Any]:
    return {}


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"when": "total > 0"}, "has when='total > 0'; expected a function of the context, such as lambda ctx:"),
    ({"when": asynchronous}, "has an async function as its when; expected a plain one"),
    ({"inputs": asynchronous}, "has an async function as its inputs"),
    ({"inputs": ["total"]}, "has inputs=['total']; expected a mapping of argument to dotted path, such as"),
    ({"inputs": {"amount": 3}}, "has inputs={'amount': 3}; expected a mapping"),
    ({"inputs": {"amount": ""}}, "has inputs={'amount': ''}; expected a mapping"),
    ({"retry": 5}, "has retry=5; expected a RetryPolicy; write retry=RetryPolicy(max_attempts=5)"),
    ({"retry": {"max_attempts": 5}}, "expected a RetryPolicy; write retry=RetryPolicy(max_attempts=3)"),
    ({"undo_retry": 2, "compensation": "u"}, "expected a RetryPolicy; write undo_retry=RetryPolicy(max_attempts=2)"),
    ({"undo_retry": RetryPolicy()}, "has undo_retry but nothing that undoes it; add compensation="),
    ({"compensate_on_failure": True}, "has compensate_on_failure but nothing that undoes it"),
    (
        {"compensation": "refund", "no_compensation": "free"},
        "has compensation=\"refund\" and no_compensation='free'; expected one of them",
    ),
    ({"no_compensation": True}, "has no_compensation=True; expected the reason, in words"),
    ({"no_compensation": " "}, "has no_compensation=' '; expected the reason, in words"),
    ({"queue": ""}, "has queue=''; expected a string that is not empty"),
    ({"summary": 3}, "has summary=3; expected a string"),
    ({"priority": 10}, "has priority=10; expected a whole number from 0 to 9"),
    ({"priority": -1}, "has priority=-1; expected a whole number"),
    ({"priority": True}, "has priority=True; expected a whole number"),
    ({"priority": 1.5}, "has priority=1.5; expected a whole number"),
    ({"external": "yes"}, "has external='yes'; expected True or False"),
    ({"cancel_safe": 1}, "has cancel_safe=1; expected True or False"),
    (
        {"on_unknown": "parked"},
        'has on_unknown=\'parked\'; expected "compensate", "resolve" or "park"; did you mean "park"?',
    ),
    ({"after": 3}, 'has after=3; expected the name of a step or a block, or a list such as ["reserve"]'),
    ({"after": [3]}, "has after=[3]; expected the name of a step"),
    ({"worker": ""}, "has worker=''; expected the name of a worker, a function decorated with @worker or a Celery"),
    ({"worker": 3}, "has worker=3; expected the name of a worker"),
    ({"worker": plain_function}, "has the function plain_function as its worker, which is not a worker; decorate it"),
    ({"worker": lambda context: None}, 'which is not a worker; decorate it with @worker("name")'),
    ({"timeout": "30 s"}, "timeout='30 s'; expected a number, 0 or more seconds (0 is no limit), a timedelta, or None"),
    ({"compensation": plain_function}, "has the function plain_function as its compensation"),
    ({"on_unknown": "resolve"}, 'has on_unknown="resolve" and no resolve_with; name the worker that finds out'),
    ({"resolve_with": "probe"}, 'has resolve_with="probe" and on_unknown="compensate", so its probe would never be'),
    ({"on_unknown": "resolve", "resolve_with": 3}, "has resolve_with=3; expected the name of a worker"),
    ({"on_unknown": "resolve", "resolve_with": "a"}, 'has worker and resolve_with "a"; a probe only looks'),
]


@pytest.mark.parametrize(("options", "expected"), REFUSALS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_step_that_cannot_work_is_refused_in_words(options: dict[str, Any], expected: str) -> None:
    for made in (order().add_step("a", **options), order().add_parallel("p", [Step("a", **options)])):
        message = refused(made)

        assert message.startswith('workflow "order" step "a" ')
        assert expected in message


@pytest.mark.parametrize("branches", [[], "fraud", {"a": "b"}, None, 3])
def test_a_block_needs_a_list_of_branches(branches: Any) -> None:
    message = refused(order().add_parallel("risk", branches))

    assert message.startswith(f'workflow "order" block "risk" has branches {branches!r}; expected a list')


@pytest.mark.parametrize("branch", [[], [[]], 3, None, ["fraud", 3], plain_function])
def test_a_branch_needs_a_step(branch: Any) -> None:
    message = refused(order().add_parallel("risk", ["credit", branch]))

    assert message.startswith('workflow "order" block "risk": branch 2 holds ')
    assert "expected a Step, a worker, or a list" in message


def test_an_unknown_on_failure_suggests_the_nearest() -> None:
    made = order().add_parallel("risk", ["fraud"], on_failure="cancle")  # type: ignore[arg-type]

    assert refused(made) == (
        'workflow "order" block "risk" has on_failure=\'cancle\'; expected "wait" or "cancel"; did you mean "cancel"?'
    )


def test_S14_a_strict_workflow_names_every_step_that_does_not_say_how_it_is_undone() -> None:
    made = WorkflowBuilder("order", strict=True).add_step("reserve", compensation="release").add_step("charge")

    assert refused(made) == (
        'workflow "order" is strict, and step "charge" of it does not say how to undo what was done; give each a '
        'compensation="worker" or a no_compensation="reason" (rule S14)'
    )
    assert 'steps "charge", "ship" of it do not say' in refused(made.add_step("ship"))


def test_S14_a_strict_workflow_asks_nothing_of_a_pivot_nor_of_what_is_behind_it() -> None:
    made = WorkflowBuilder("transfer", strict=True).add_step("debit", compensation="give_back")

    built = made.add_step("settle", pivot=True).add_step("report").build(register=False)

    assert (built.strict, built.pivots) == (True, ("settle",))


def test_S14_a_strict_workflow_asks_of_what_is_beside_a_pivot() -> None:
    made = WorkflowBuilder("transfer", strict=True).add_step("settle", pivot=True).add_step("warn", after=[])

    with pytest.raises(DefinitionError, match='step "warn" of it does not say how to undo'):
        made.build(register=False)


def test_S14_a_strict_workflow_builds_when_every_step_says_it() -> None:
    made = WorkflowBuilder("order", strict=True).add_step("reserve", compensation="release")

    assert made.add_step("check", no_compensation="only reads").build().strict


def compensating(*names: str) -> Callable[[Any], WorkflowBuilder]:
    def make(order_of_undo: Any) -> WorkflowBuilder:
        made = WorkflowBuilder("order", compensate_in=order_of_undo).add_step("check")
        for name in names:
            made.add_step(name, compensation=f"un{name}")
        return made

    return make


def test_S6_an_explicit_order_of_undoing_is_kept() -> None:
    assert compensating("a", "b")(["b", "a"]).build(register=False).compensate_in == ("b", "a")
    assert compensating()([]).build(register=False).compensate_in == ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["reserve", "chrage"], 'names step "chrage", which is not defined; did you mean "charge"? (steps with a comp'),
        (["reserve", "charge", "check"], 'names step "check", which has no compensation; give it one, or leave it out'),
        (["reserve"], 'leaves out step "charge", which must be undone too'),
        (["reserve", "charge", "reserve"], 'names step "reserve" more than once'),
        ("reserve", "is 'reserve'; expected a list of step names"),
        ([3], "is [3]; expected a list of step names"),
    ],
)
def test_S6_an_order_of_undoing_that_does_not_fit_is_refused(given: Any, expected: str) -> None:
    message = refused(compensating("reserve", "charge")(given))

    assert message.startswith('workflow "order": compensate_in ')
    assert expected in message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"strict": "yes"}, "workflow \"order\" has strict='yes'; expected True or False"),
        ({"on_end": 5}, 'workflow "order" itself has on_end=5; expected the name of a worker'),
        ({"model": print}, 'workflow "order" has model=builtin_function_or_method; it is stored with the workflow'),
        ({"model": []}, 'workflow "order" has model=list; it is stored'),
        ({"model": ["a", {"temperature": 1}]}, 'workflow "order" has model=dict; it is stored'),
        ({"model": {"model": "a", "api_key": "k"}}, 'workflow "order" has a model with an api_key, which would be'),
        ({"model": {"model": "a", "stop": print}}, 'the model of workflow "order" cannot be written as JSON: stop is'),
    ],
)
def test_options_of_the_workflow_are_checked(options: dict[str, Any], expected: str) -> None:
    assert refused(WorkflowBuilder("order", **options).add_step("a")).startswith(expected)


def test_the_model_of_a_workflow_is_stored_with_it_and_is_what_it_was_when_it_was_built() -> None:
    chosen = [{"model": "gemini/gemini-3.8-flash", "temperature": 0.2}, "openai/gpt-5"]
    made = WorkflowBuilder("order", model=chosen).add_step("a").build(register=False)
    plain = WorkflowBuilder("order").add_step("a").build(register=False)

    chosen.clear()

    assert made.model == [{"model": "gemini/gemini-3.8-flash", "temperature": 0.2}, "openai/gpt-5"]
    assert Definition.from_dict(made.to_dict()).model == made.model
    assert made.content_hash != plain.content_hash
    assert "model" not in plain.to_dict()


def test_a_changed_workflow_must_raise_its_version(known: DefinitionRegistry) -> None:
    first = order().add_step("a").build()

    assert "raise the version" in refused(order().add_step("a").add_step("b"))
    assert known.get("order") is first
    second = WorkflowBuilder("order", "2").add_step("a").add_step("b").build()
    assert known.get("order") is second
