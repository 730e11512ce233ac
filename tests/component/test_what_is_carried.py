"""Any value at every door: carried as it is, or refused by an error of ours before anything is done (properties)."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import Celery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu.utils.json import dumps as kombu_dumps

from multiagents import ErrorEvent, ErrorInfo, MultiAgentsError, Orchestrator, ResultEvent, Run, WorkflowBuilder
from multiagents.state_store.records import Claim, parse_attempt_key
from multiagents.worker_sdk.signature import Signature
from multiagents.workflow.definition import Definition

FLOW = WorkflowBuilder("carried").add_wait("told").add_step("then", "then", on_failure="park").build(register=False)
AGAIN = WorkflowBuilder("carried-again").add_wait("told").build(register=False)
_answered: list[Any] = []
ASKED: Definition = (
    WorkflowBuilder("carried-asked")
    .add_wait("told")
    .add_step("then", "then", inputs=lambda _context: {"v": _answered[-1]})
    .build()
)


@pytest.fixture(scope="module", params=["memory", "redis"])
def orchestrator(request: pytest.FixtureRequest) -> Iterator[Orchestrator]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("new_redis_url")()
    made = Orchestrator(Celery("carried", broker=url, set_as_current=False), {"key_prefix": f"t{uuid4().hex[:8]}"})
    yield made
    made.store.close()


# --- what kombu's JSON carries ----------------------------------------------------------------------------------------

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_carried_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts
    | st.binary(max_size=8)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.uuids()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.none() | st.just(dt.UTC))
)
_carried = st.recursive(
    _carried_leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=10,
)
#: and what it does not, or what no other reader could read
_strange = st.recursive(
    _carried_leaves
    | st.floats()
    | st.text(st.characters(), max_size=3)
    | st.decimals()
    | st.integers(4_290, 4_310).map(lambda digits: 10**digits)
    | st.sampled_from([object(), iter([1]), len, {1: 1, "1": 2}, {1, "a"}]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(), max_size=3) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=6,
)
_deep = st.integers(90, 110).map(lambda levels: json.loads("[" * levels + "]" * levels))
_few = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


# --- the doors: each gives what is kept of a value --------------------------------------------------------------------


def _input(orchestrator: Orchestrator, value: Any) -> Any:
    run = orchestrator.start(FLOW, {"v": value})
    return orchestrator.store.payloads(run.transaction_id).input["v"]


def _fork(orchestrator: Orchestrator, value: Any) -> Any:
    run = orchestrator.start(FLOW, {"v": 0})
    run.terminate()
    return unchanged(
        orchestrator, run, lambda: orchestrator.store.payloads(run.fork("told", {"v": value}).transaction_id).input["v"]
    )


def _signal(orchestrator: Orchestrator, value: Any) -> Any:
    run = orchestrator.start(FLOW, {})
    unchanged(orchestrator, run, lambda: run.signal("told", {"v": value}))
    return run.describe().context["told"]["v"]


def _supplied(orchestrator: Orchestrator, value: Any) -> Any:
    run = orchestrator.start(FLOW, {})
    run.signal("told")
    claim = claimed(orchestrator, run, "then")
    error = ErrorInfo(type="Declined", message="declined")
    orchestrator.engine.settle(ErrorEvent.about(claim.correlation, error, at=claim.now, retryable=False), claim)
    unchanged(orchestrator, run, lambda: run.supply("then", {"v": value}))
    return run.describe().context["v"]


def _result(orchestrator: Orchestrator, value: Any) -> Any:
    run = orchestrator.start(FLOW, {})
    run.signal("told")
    claim = claimed(orchestrator, run, "then")
    returned = Signature("then", lambda context: None).result({"v": value}, 10_000)
    orchestrator.engine.settle(ResultEvent.about(claim.correlation, returned, at=claim.now), claim)
    return run.describe().context["v"]


def _answer(orchestrator: Orchestrator, value: Any) -> Any:
    """What user code answers has no caller that could be told: its step fails, by an error that is ours."""
    _answered.append(value)
    run = orchestrator.start(ASKED, {})
    run.signal("told")
    state, found = run.describe(), orchestrator.store.payloads(run.transaction_id).inputs
    if state.status == "running":
        return found["then"]["v"]
    assert (state.status, found) == ("failed", {})
    assert state.error is not None
    raise MultiAgentsError(state.error.message)


DOORS: dict[str, Callable[[Orchestrator, Any], Any]] = {
    "input": _input,
    "fork": _fork,
    "signal": _signal,
    "supplied": _supplied,
    "result": _result,
    "answer": _answer,
}


def claimed(orchestrator: Orchestrator, run: Run, step: str) -> Claim:
    snapshot = orchestrator.store.load(run.transaction_id)
    attempt = snapshot.state.correlation(step, *parse_attempt_key(snapshot.in_flight[step].attempt_key))
    return orchestrator.store.claim(attempt, snapshot.state.definition_hash, owner="w", worker="here", timeout=30)


def unchanged(orchestrator: Orchestrator, run: Run, action: Callable[[], Any]) -> Any:
    """Do it; if it is refused, nothing of the run has changed, and no other is there."""
    before = (orchestrator.store.load(run.transaction_id).version, run.describe(), len(run.history()))
    there = orchestrator.count()
    try:
        return action()
    except MultiAgentsError:
        after = (orchestrator.store.load(run.transaction_id).version, run.describe(), len(run.history()))
        assert (after, orchestrator.count()) == (before, there)
        raise


# --- the properties ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
def test_what_kombu_carries_is_carried_and_read_by_anybody(orchestrator: Orchestrator, door: str) -> None:
    @_few
    @given(value=_carried)
    def check(value: Any) -> None:
        kombu_dumps(value)  # it does

        kept = DOORS[door](orchestrator, value)

        assert kept == as_text(value)
        assert json.loads(json.dumps(kept, allow_nan=False)) == kept

    check()


@pytest.mark.parametrize("door", DOORS)
def test_all_else_is_carried_or_refused_by_our_error_with_nothing_done(orchestrator: Orchestrator, door: str) -> None:
    @_few
    @given(value=_strange | _deep)
    def check(value: Any) -> None:
        there = orchestrator.count()
        kept, refused = None, False
        try:
            kept = DOORS[door](orchestrator, value)
        except MultiAgentsError:
            refused = True

        if refused:
            assert door != "input" or orchestrator.count() == there
        else:
            assert json.loads(json.dumps(kept, allow_nan=False)) == kept

    check()


@_few
@given(
    value=st.one_of(
        st.tuples(st.just(Decimal), st.decimals(allow_nan=False, allow_infinity=False)),
        st.tuples(st.just(UUID), st.uuids()),
        st.tuples(st.just(dt.date), st.dates()),
        st.tuples(st.just(dt.time), st.times()),
        st.tuples(st.just(dt.datetime), st.datetimes(timezones=st.none() | st.just(dt.UTC))),
        st.tuples(st.just(dt.timedelta), st.timedeltas()),
        st.tuples(st.just(set[int]), st.sets(st.integers())),
        st.tuples(st.just(list[Decimal]), st.lists(st.decimals(-9, 9, allow_nan=False))),
    )
)
def test_it_is_typed_back_where_a_parameter_is_annotated(value: tuple[Any, Any]) -> None:
    kind, given_ = value

    def takes(amount: Any) -> Any:
        return amount

    takes.__annotations__["amount"] = kind
    kept = Signature("gives", lambda context: None).result({"amount": given_}, 0)

    positional, keywords = Signature("takes", takes).arguments(json.loads(json.dumps(kept)))

    assert takes(*positional, **keywords) == given_


@_few
@given(value=_carried, other=_carried)
def test_G3_equal_input_is_equal_whatever_the_order_of_its_keys(
    orchestrator: Orchestrator, value: Any, other: Any
) -> None:
    """A start that is repeated gives the run that is there; one with another input is refused and changes nothing."""
    name = f"order-{uuid4().hex}"
    run = orchestrator.start(AGAIN, {"v": value, "n": {"a": 1, "b": 2}}, name)
    before, there = run.describe(), orchestrator.count()

    again = orchestrator.start(AGAIN, {"n": {"b": 2, "a": 1}, "v": turned(value)}, name)

    assert (again, run.describe()) == (run, before)
    if not same(as_text(other), as_text(value)):
        with pytest.raises(MultiAgentsError, match=name):
            orchestrator.start(AGAIN, {"v": other, "n": {"a": 1, "b": 2}}, name)
    assert (run.describe(), orchestrator.count()) == (before, there)


def turned(value: Any) -> Any:
    """The same with the keys of every mapping in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(inner) for key, inner in reversed(value.items())}
    return [turned(inner) for inner in value] if isinstance(value, list | tuple) else value


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: 1 and 1.0 are not, nor are 0 and False."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def as_text(value: Any) -> Any:
    """A value as kombu writes it, without the names of types."""

    def plainly(written: Any) -> Any:
        if isinstance(written, dict):
            if written.keys() == {"__type__", "__value__"}:
                return TEXTS[written["__type__"]](written["__value__"])
            return {key: plainly(inner) for key, inner in written.items()}
        return [plainly(inner) for inner in written] if isinstance(written, list) else written

    return plainly(json.loads(kombu_dumps(value)))


def _base64(text: str) -> str:
    from base64 import b64encode

    return b64encode(text.encode()).decode()


TEXTS: dict[str, Callable[[Any], Any]] = {
    "bytes": _base64,
    "base64": lambda text: text,
    "uuid": lambda told: str(UUID(told["hex"])),
    **dict.fromkeys(("datetime", "date", "time", "decimal"), lambda text: text),
}
