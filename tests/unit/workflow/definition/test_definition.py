"""Definitions: data that survives the store, a hash that means content, and the order of steps."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiagents.exceptions import (
    DecodeError,
    DefinitionError,
    StepCycleError,
    UnknownStepError,
    WorkflowError,
    WorkflowNotFoundError,
)
from multiagents.retry import RetryPolicy
from multiagents.workflow.builder import Step, WorkflowBuilder
from multiagents.workflow.definition import (
    BlockDefinition,
    Definition,
    DefinitionRegistry,
    StepDefinition,
    code_elsewhere,
)
from multiagents.workflow.definition.serialization import SCHEMA


def steps_of(after: dict[str, tuple[str, ...]]) -> dict[str, StepDefinition]:
    return {name: StepDefinition(name=name, worker="work", after=before) for name, before in after.items()}


def full_definition() -> Definition:
    """A definition in which every kind of data occurs."""
    return (
        WorkflowBuilder(
            "order",
            version="7",
            deadline=3600,
            retention=60,
            compensate_in=["charge", "reserve"],
        )
        .add_step("validate", "validate_order", no_compensation="only reads", summary="Check the order.")
        .add_step("reserve", "reserve_stock", compensation="release_stock", undo_retry=RetryPolicy(max_attempts=9))
        .add_parallel("risk", [Step("fraud"), [Step("credit"), Step("limit", external=True)]], on_failure="cancel")
        .add_step(
            "charge",
            "charge_card",
            compensation="refund_card",
            inputs={"amount": "order.total"},
            retry=RetryPolicy(max_attempts=5, non_retryable=(ValueError,)),
            timeout=30,
            schedule_to_start=5,
            schedule_to_close=90,
            heartbeat_timeout=2.5,
            cancel_safe=True,
            on_unknown="park",
            compensate_on_failure=True,
            queue="money",
            priority=9,
        )
        .add_step("ship", "ship_order", when=lambda ctx: ctx["paid"], inputs=lambda ctx: {"order": ctx["order"]})
        .build(register=False)
    )


# Data ---------------------------------------------------------------------------------------------------------------


def test_S26_a_definition_that_was_stored_and_read_is_the_same_one() -> None:
    original = full_definition()

    read = Definition.from_json(original.to_json())

    assert read == original
    assert read.content_hash == original.content_hash
    assert read.to_dict() == original.to_dict()
    assert list(read.steps) == list(original.steps)
    assert read.blocks == original.blocks


def test_the_data_has_one_known_form() -> None:
    data = full_definition().to_dict()

    assert json.loads(json.dumps(data)) == data
    assert data == {
        "schema": 1,
        "name": "order",
        "version": "7",
        "deadline": 3600.0,
        "retention": 60.0,
        "compensate_in": ["charge", "reserve"],
        "steps": [
            {
                "name": "validate",
                "worker": "validate_order",
                "no_compensation": "only reads",
                "summary": "Check the order.",
            },
            {
                "name": "reserve",
                "worker": "reserve_stock",
                "compensation": "release_stock",
                "after": ["validate"],
                "undo_retry": {"max_attempts": 9},
            },
            {"name": "fraud", "worker": "fraud", "after": ["reserve"], "block": "risk", "cancel_siblings": True},
            {"name": "credit", "worker": "credit", "after": ["reserve"], "block": "risk", "cancel_siblings": True},
            {
                "name": "limit",
                "worker": "limit",
                "after": ["credit"],
                "external": True,
                "block": "risk",
                "cancel_siblings": True,
            },
            {
                "name": "charge",
                "worker": "charge_card",
                "compensation": "refund_card",
                "after": ["fraud", "limit"],
                "inputs": {"amount": "order.total"},
                "retry": {"max_attempts": 5, "non_retryable": ["builtins.ValueError"]},
                "timeout": 30.0,
                "schedule_to_start": 5.0,
                "schedule_to_close": 90.0,
                "heartbeat_timeout": 2.5,
                "cancel_safe": True,
                "on_unknown": "park",
                "compensate_on_failure": True,
                "queue": "money",
                "priority": 9,
            },
            {"name": "ship", "worker": "ship_order", "after": ["charge"], "when": True, "inputs": True},
        ],
        "blocks": [{"name": "risk", "branches": [["fraud"], ["credit", "limit"]], "on_failure": "cancel"}],
    }


def test_the_hash_of_stored_definitions_never_changes() -> None:
    """Runs in flight name their definition by this hash: a release that changes it strands them."""
    simple = Definition(name="order", steps=steps_of({"reserve": (), "ship": ("reserve",)}))

    assert simple.content_hash == "0105ccfdc3f659d100ad5dfead9351f6"
    assert full_definition().content_hash == "58f4c3535960eb0aef7310897ddb92e0"


def test_whole_and_decimal_seconds_are_the_same_limit() -> None:
    whole, decimal = (
        Definition(name="order", deadline=d, steps={"a": StepDefinition(name="a", worker="a", timeout=t)})
        for d, t in ((60, 30), (60.0, 30.0))
    )

    assert whole == decimal
    assert hash(whole) == hash(decimal)


def test_steps_are_equal_when_their_data_is() -> None:
    one = StepDefinition(name="a", worker="w", when=lambda _: True)
    two = StepDefinition(name="a", worker="w", when=lambda _: False)
    plain = StepDefinition(name="a", worker="w")

    assert one == two
    assert hash(one) == hash(two)
    assert one != plain
    assert one != "a"
    assert repr(one) == "StepDefinition(name='a', worker='w', when=True)"


def test_a_definition_is_not_equal_to_other_things() -> None:
    assert full_definition() != "order"


def test_nothing_in_a_definition_can_be_changed() -> None:
    order = full_definition()

    with pytest.raises(AttributeError):
        order.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        order.steps["charge"] = order.steps["ship"]  # type: ignore[index]
    with pytest.raises(TypeError):
        order.steps["charge"].inputs["amount"] = "x"  # type: ignore[index]


def test_keys_of_a_later_release_are_passed_over_and_whoever_stores_the_definition_loses_nothing() -> None:
    known = full_definition()
    for where in ("definition", "step", "retry", "block"):
        data = known.to_dict()
        target: dict[str, Any] = {
            "definition": data,
            "step": data["steps"][0],
            "retry": data["steps"][5]["retry"],
            "block": data["blocks"][0],
        }[where]
        target["colour"] = "blue"

        read = Definition.from_dict(data)

        assert (read.to_dict(), read.steps) == (data, known.steps), where
        assert read.content_hash != known.content_hash, where
        assert Definition.from_dict(data).content_hash == read.content_hash, where


def test_a_newer_schema_is_refused_in_words() -> None:
    data = full_definition().to_dict() | {"schema": SCHEMA + 1}

    with pytest.raises(DecodeError, match=r"'order' was stored in schema 2, this process reads up to 1; upgrade"):
        Definition.from_dict(data)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": "x", "version": "1"},
        {"name": "x", "version": "1", "steps": [{"name": "a"}]},
        {"name": "x", "version": "1", "steps": [{"name": "a", "worker": "w", "after": ["b"]}]},
        {"name": "x", "version": "1", "steps": [{"name": "a", "worker": "w", "retry": {"max_attempts": -1}}]},
        {"name": "x", "version": "1", "steps": [{"name": "a", "worker": "w", "timeout": "soon"}]},
        {"name": "x", "version": "1", "steps": 3},
        {"schema": "new", "name": "x", "version": "1", "steps": []},
        [],
    ],
)
def test_what_is_not_a_definition_is_refused(data: Any) -> None:
    with pytest.raises(DecodeError, match="not a workflow definition"):
        Definition.from_dict(data)


def test_text_that_is_not_json_is_refused() -> None:
    with pytest.raises(DecodeError, match="is not JSON"):
        Definition.from_json("{")


def test_a_stored_policy_for_unknown_outcomes_that_this_release_lacks_is_refused() -> None:
    """Taking it for the default could undo what must not be undone."""
    data = {"name": "x", "version": "1", "steps": [{"name": "a", "worker": "w", "on_unknown": "guess"}]}

    with pytest.raises(DecodeError, match=r"on_unknown='guess'; this release knows compensate, resolve, park"):
        Definition.from_dict(data)


# Code ---------------------------------------------------------------------------------------------------------------


def test_a_definition_from_the_store_lacks_its_code_until_it_is_found_here() -> None:
    built = full_definition()

    read = Definition.from_json(built.to_json())

    assert (built.has_code, built.lacks_code) == (True, False)
    assert (read.has_code, read.lacks_code) == (True, True)
    assert read.steps["ship"].when is code_elsewhere
    with pytest.raises(DefinitionError, match="that is not loaded here"):
        read.steps["ship"].when({})

    whole = read.with_code_of(built)

    assert whole == read
    assert not whole.lacks_code
    assert whole.steps["ship"].when({"paid": 1}) == 1  # type: ignore[misc]


def test_a_mapping_of_inputs_is_data_and_needs_no_code() -> None:
    order = WorkflowBuilder("order").add_step("a", inputs={"x": "y"}).build(register=False)

    assert not order.has_code
    assert not Definition.from_json(order.to_json()).lacks_code


def test_the_code_of_another_definition_is_refused() -> None:
    other = Definition(name="order", steps=steps_of({"a": ()}))

    with pytest.raises(DefinitionError, match="has other content than"):
        full_definition().with_code_of(other)


# Inputs -------------------------------------------------------------------------------------------------------------


def test_inputs_pick_from_the_context_by_dotted_path() -> None:
    paths = {"total": "order.total", "first": "items.0.sku", "odd": "check.v2.score", "all": "order"}
    order = WorkflowBuilder("order").add_step("charge", inputs=paths).build(register=False)
    context = {"order": {"total": 5}, "items": [{"sku": "A"}], "check.v2": {"score": 7}, "check": {"v2": {"score": 1}}}

    assert order.input_of("charge", context) == {"total": 5, "first": "A", "odd": 7, "all": {"total": 5}}


@pytest.mark.parametrize("inputs", [None, lambda _ctx: 1 / 0])
def test_without_a_mapping_the_input_is_the_context_and_no_callable_is_called(inputs: Any) -> None:
    order = WorkflowBuilder("order").add_step("charge", inputs=inputs).build(register=False)
    context = {"total": 5}

    assert order.input_of("charge", context) is context


@pytest.mark.parametrize("path", ["totl", "items.3", "items.x", "total.x", "check.v2.score"])
def test_an_input_that_is_not_there_is_named_without_showing_values(path: str) -> None:
    order = WorkflowBuilder("order").add_step("charge", inputs={"amount": path}).build(register=False)

    with pytest.raises(WorkflowError) as caught:
        order.input_of("charge", {"total": "secret", "items": ["secret"], "check.v2": {}})

    assert f'workflow "order" step "charge" takes its input "amount" from "{path}"' in str(caught.value)
    assert "(it has: total, items, check.v2)" in str(caught.value)
    assert "secret" not in str(caught.value)


# Order --------------------------------------------------------------------------------------------------------------


def test_a_sequence_is_all_trunk_and_needs_no_parts() -> None:
    names = [f"s{number}" for number in range(200)]
    before = {name: (earlier,) for earlier, name in pairwise(names)}
    order = Definition(name="long", steps=steps_of({"s0": (), **before}))

    assert order.order == tuple(names)
    assert all(order.is_trunk(name) and order.parts(name) == () for name in names)
    assert order.tail_parts() == ()
    assert order.ancestors("s199") == tuple(names[:-1])


def test_after_a_fork_the_branches_are_the_parts() -> None:
    order = full_definition()

    assert order.entries == ("validate",)
    assert order.exits == ("ship",)
    assert order.successors["reserve"] == ("fraud", "credit")
    assert [name for name in order.steps if order.is_trunk(name)] == ["validate", "reserve", "charge", "ship"]
    assert {name: order.parts(name) for name in order.steps if order.parts(name)} == {
        "limit": ("credit",),
        "charge": ("fraud", "credit", "limit"),
    }


def test_steps_defined_before_what_they_wait_for_are_put_in_order() -> None:
    order = Definition(name="x", steps=steps_of({"late": ("early",), "early": (), "free": ()}))

    assert order.order == ("early", "late", "free")


def test_a_step_defined_before_what_it_waits_for_comes_behind_it_so_that_its_result_wins() -> None:
    after = {"start": (), "report": ("check",), "check": ("start",), "other": ("start",), "end": ("report", "other")}
    order = Definition(name="x", steps=steps_of(after))

    assert order.ancestors("end") == ("start", "check", "report", "other")
    assert order.parts("end") == ("check", "report", "other")
    assert Definition(name="y", steps=steps_of({n: after[n] for n in after if n != "end"})).tail_parts() == (
        "check",
        "report",
        "other",
    )


def test_a_circle_is_named() -> None:
    with pytest.raises(StepCycleError) as caught:
        Definition(name="order", steps=steps_of({"a": (), "b": ("a", "d"), "c": ("b",), "d": ("c",)}))

    assert set(caught.value.cycle) == {"b", "c", "d"}
    assert 'workflow "order"' in str(caught.value)


def test_an_unknown_step_is_named_with_the_nearest() -> None:
    order = full_definition()

    for ask in (order.step, order.ancestors, order.is_trunk, order.parts):
        with pytest.raises(UnknownStepError, match=r'did you mean "charge"\?'):
            ask("chrage")
    with pytest.raises(UnknownStepError, match=r'step "chrage" was named'):
        order.input_of("chrage", {})
    assert order.step("charge").worker == "charge_card"


@st.composite
def dags(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    """Random graphs whose order of definition is not a topological one."""
    count = draw(st.integers(1, 12))
    numbers = draw(st.permutations(range(count)))
    edges = draw(st.sets(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=30))
    after: dict[int, list[int]] = {number: [] for number in numbers}
    for one, other in sorted(edges):
        if one != other:
            after[max(one, other)].append(min(one, other))
    return {f"s{number}": tuple(f"s{b}" for b in sorted(before, key=numbers.index)) for number, before in after.items()}


def ancestors_by_brute_force(after: dict[str, tuple[str, ...]], step: str) -> set[str]:
    return {a for before in after[step] for a in {before, *ancestors_by_brute_force(after, before)}}


@given(dags())
def test_any_graph_survives_the_store(after: dict[str, tuple[str, ...]]) -> None:
    original = Definition(name="any", steps=steps_of(after))

    read = Definition.from_json(original.to_json())

    assert read == original
    assert read.content_hash == original.content_hash
    assert read.order == original.order


@given(dags())
def test_the_order_puts_every_step_behind_what_it_waits_for(after: dict[str, tuple[str, ...]]) -> None:
    order = Definition(name="any", steps=steps_of(after)).order

    assert sorted(order) == sorted(after)
    done: list[str] = []
    for name in order:
        assert set(after[name]) <= set(done)
        # Of the steps that are free, the one defined first is next.
        free = [s for s in after if s not in done and set(after[s]) <= set(done)]
        assert name == free[0]
        done.append(name)


@given(dags())
def test_ancestors_trunk_and_parts_are_what_their_definitions_say(after: dict[str, tuple[str, ...]]) -> None:
    names = list(after)
    before = {name: ancestors_by_brute_force(after, name) for name in names}
    trunk = {t for t in names if all(o == t or o in before[t] or t in before[o] for o in names)}
    given_definition = Definition(name="any", steps=steps_of(after))
    order = given_definition.order

    def covered_by(trunks: set[str]) -> set[str]:
        latest = max(trunks, key=lambda t: len(before[t]), default=None)
        return set() if latest is None else {latest, *before[latest]}

    for name in names:
        parts = before[name] - covered_by(trunk & before[name])
        assert given_definition.ancestors(name) == tuple(n for n in order if n in before[name])
        assert given_definition.is_trunk(name) == (name in trunk)
        assert given_definition.parts(name) == tuple(n for n in order if n in parts)
    assert given_definition.tail_parts() == tuple(n for n in order if n not in covered_by(trunk))
    assert given_definition.entries == tuple(n for n in names if not after[n])
    assert given_definition.exits == tuple(n for n in names if not any(n in b for b in after.values()))


# Registry -----------------------------------------------------------------------------------------------------------


def version(number: str, *names: str, **options: Any) -> Definition:
    made = WorkflowBuilder("order", version=number, **options)
    for name in names:
        made.add_step(name)
    return made.build(register=False)


def test_without_a_version_the_one_registered_last_is_found() -> None:
    known = DefinitionRegistry()
    first, second = known.register(version("1", "a")), known.register(version("2", "a"))

    known.register(version("1", "a"))

    assert known.get("order") is second
    assert known.get("order", "1") == first
    assert known.by_hash(first.content_hash) == first
    assert known.by_hash("0" * 32) is None
    assert known.names() == ("order",)


def test_an_equal_definition_brings_its_newer_code() -> None:
    known = DefinitionRegistry()
    old, new = full_definition(), full_definition()
    known.register(old)

    known.register(new)

    assert known.get("order") is new
    assert known.by_hash(old.content_hash) is new


def test_other_content_under_the_same_version_is_refused_with_what_changed() -> None:
    known = DefinitionRegistry()
    known.register(version("1", "a", "b", "c"))
    changed = (
        WorkflowBuilder("order", deadline=60)
        .add_step("a", timeout=5)
        .add_step("c", after="a", retry=RetryPolicy(max_attempts=5))
        .add_parallel("p", ["d"])
        .build(register=False)
    )

    with pytest.raises(DefinitionError) as caught:
        known.register(changed)

    assert str(caught.value) == (
        'workflow "order" version "1" is registered already with other content: step "d" was added; step "b" was '
        "removed; step \"a\" changed in timeout (None → 5.0); step \"c\" changed in after (['b'] → ['a']), "
        "retry (None → {'max_attempts': 5}); the parallel blocks differ; the workflow changed in "
        "deadline (None → 60.0). Runs in flight, and processes not yet deployed, know it as it was: raise the "
        'version, e.g. WorkflowBuilder("order", version="2")'
    )
    assert known.get("order") == version("1", "a", "b", "c")


def test_of_many_differences_the_first_are_named() -> None:
    known = DefinitionRegistry()
    known.register(version("1", *(f"old{n}" for n in range(10)), *(f"kept{n}" for n in range(10))))
    changed = WorkflowBuilder("order")
    for n in range(10):
        changed.add_step(f"kept{n}", timeout=5, after=[])

    with pytest.raises(DefinitionError) as caught:
        known.register(changed.build(register=False))

    message = str(caught.value)
    assert 'steps "old0", "old1", "old2", "old3", "old4", "old5", "old6", "old7" and 2 more were removed; ' in message
    assert 'step "kept6" changed in' in message
    assert "; and 3 more. Runs in flight" in message


def test_another_order_of_the_same_steps_is_a_change() -> None:
    known = DefinitionRegistry()
    known.register(Definition(name="order", version="v1", steps=steps_of({"a": (), "b": ()})))

    with pytest.raises(DefinitionError, match=r'defined in another order\. .* version="v1-2"'):
        known.register(Definition(name="order", version="v1", steps=steps_of({"b": (), "a": ()})))


def test_an_unknown_workflow_or_version_is_named_with_what_there_is() -> None:
    known = DefinitionRegistry()

    with pytest.raises(WorkflowNotFoundError, match=r'no workflow named "order" is registered here \(registered: none'):
        known.get("order")
    known.register(version("1", "a"))
    with pytest.raises(WorkflowNotFoundError, match=r'did you mean "order"\? \(registered: order\)'):
        known.get("ordr")
    with pytest.raises(WorkflowNotFoundError, match=r'has no version "2" here \(registered: 1\)'):
        known.get("order", "2")
    known.clear()
    assert known.names() == ()
    assert known.by_hash(version("1", "a").content_hash) is None


def test_a_block_knows_its_steps_and_ends() -> None:
    block = full_definition().blocks["risk"]

    assert block == BlockDefinition(name="risk", branches=(("fraud",), ("credit", "limit")), on_failure="cancel")
    assert block.steps == ("fraud", "credit", "limit")
    assert block.ends == ("fraud", "limit")
