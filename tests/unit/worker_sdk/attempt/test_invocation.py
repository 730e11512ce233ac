"""Claim, call, outcome: what an attempt comes to, with a store that keeps leases in a dict."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Ignore, Reject, Retry, WorkerShutdown, WorkerTerminate

from multiagents.events import ErrorEvent, ErrorInfo, ErrorKind, ResultEvent
from multiagents.exceptions import (
    ConfigurationError,
    DecodeError,
    OutcomeUnknownError,
    StateStoreError,
    TerminalError,
    WorkerError,
)
from multiagents.names import Correlation, Direction
from multiagents.retry import RetryPolicy
from multiagents.state_store.records import Claim, ClaimRefused, Renewal
from multiagents.worker_sdk import Worker, WorkerRuntime, current_step
from multiagents.worker_sdk.attempt import Invocation
from multiagents.worker_sdk.execution import event_loop
from multiagents.worker_sdk.execution.timeouts import LimitReached, StepTimeoutError
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.state import RunState

NAMES = ["transaction_id", "correlation_id", "workflow", "step", "attempt", "direction", "idempotency_key"]
NAMES += ["input", "result", "outcome", "error"]
POLICY_OF_STEP = RetryPolicy(max_attempts=9, non_retryable=(KeyError,))

ORDER = (
    WorkflowBuilder("order", version="1")
    .add_step("charge", "charge_card", compensation="refund_card")
    .add_step("ship", "ship_order", retry=POLICY_OF_STEP)
    .build()
)


class LeaseBook:
    """The part of the state store that a worker needs."""

    def __init__(self, context: dict[str, Any] | None = None, limit: float | None = None) -> None:
        self.context = {"total": 3} if context is None else context
        self.limit = limit
        self.refusal: str | None = None
        #: what the next claims come to
        self.unread: Exception | None = None
        self.claims: list[dict[str, Any]] = []
        self.renewals: list[tuple[str, bool, Any]] = []
        self.renewed = threading.Event()
        self.answer = Renewal(alive=True, cancelled=False)
        self.fault: Exception | None = None
        self.extra: dict[str, Any] = {}
        self.loads = 0

    def claim(self, correlation: Correlation, definition_hash: str, **details: Any) -> Claim:
        self.claims.append({"correlation": correlation, "definition": definition_hash, **details})
        if self.unread is not None:
            raise self.unread
        if self.refusal:
            raise ClaimRefused(correlation, self.refusal)
        now = datetime(2026, 1, 1, tzinfo=UTC)
        limit = details["timeout"] if self.limit is None else self.limit
        return Claim(
            correlation=correlation,
            definition=ORDER,
            context=dict(self.context),
            input=dict(self.context),
            owner=details["owner"],
            state=RunState(correlation.transaction_id, "order"),
            epoch=0,
            merged={},
            now=now,
            deadline=now + timedelta(seconds=limit) if limit else None,
            **self.extra,
        )

    def now(self) -> datetime:
        return datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)

    def renew(self, correlation: Correlation, owner: str, *, beat: bool = False, detail: Any = None) -> Renewal:
        self.renewals.append((owner, beat, detail))
        self.renewed.set()
        if self.fault:
            raise self.fault
        return self.answer

    def results(self, transaction_id: str) -> dict[str, Any]:
        self.loads += 1
        return {"charge": {"charge_id": transaction_id}}


class Bench:
    """One worker process, so to say: an invocation, and what it delivered."""

    def __init__(self, store: LeaseBook, lease: float = 30.0, max_payload_bytes: int = 1000) -> None:
        self.store = store
        self.delivered: list[tuple[ResultEvent | ErrorEvent, Claim]] = []
        settings = SimpleNamespace(lease=lease, step_timeout=3600.0, max_payload_bytes=max_payload_bytes)
        self.following: Any = None
        #: whether an outcome gets to where it is recorded
        self.reachable = True
        self.unclaimable: list[tuple[ErrorEvent, str]] = []
        self.invocation = Invocation(
            WorkerRuntime(
                store=store,  # type: ignore[arg-type]
                new_store=lambda: store,  # type: ignore[arg-type,return-value]
                settings=settings,  # type: ignore[arg-type]
                settle=self.settle,
                unclaimable=lambda *told: self.unclaimable.append(told),
                came_late=lambda _event: None,
                limited=True,
            )
        )

    def settle(self, event: ResultEvent | ErrorEvent, claim: Claim, **_options: bool) -> Any:
        if not self.reachable:
            raise ConnectionError("away")
        self.delivered.append((event, claim))
        return SimpleNamespace(links=self.following, local=None)

    def run(self, worker: Worker, pool: str = "main", **changes: Any) -> Any:
        kwargs = {
            "transaction_id": "order-1",
            "step": "charge",
            "direction": "do",
            "attempt": 1,
            "definition": "abc",
            "nonce": "",
        }
        return self.invocation.run(worker, kwargs | changes, hostname="celery@here", pool=pool)

    def outcome(self, worker: Worker, pool: str = "main", **changes: Any) -> ResultEvent | ErrorEvent:
        try:
            self.run(worker, pool, **changes)
        except Exception:
            assert isinstance(self.delivered[-1][0], ErrorEvent)
        return self.delivered[-1][0]


@pytest.fixture
def store() -> LeaseBook:
    return LeaseBook()


@pytest.fixture
def bench(store: LeaseBook) -> Bench:
    return Bench(store)


@pytest.fixture(autouse=True)
def no_loop_stays() -> Iterator[None]:
    yield
    event_loop.close()


def in_a_child(answer: Callable[[], Any]) -> Any:
    """What a forked child answers."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of what this test is about
        child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not follow the fork
        signal.alarm(10)
        os.write(writing, json.dumps(answer()).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return json.loads(pipe.read())


def a_worker(fn: Callable[..., Any], **options: Any) -> Worker:
    return Worker("charge_card", fn, **options)


def test_a_result_is_delivered_with_the_claim_it_answers(bench: Bench, store: LeaseBook) -> None:
    worker = a_worker(lambda context: {"charged": context["total"]}, step_timeout=20, heartbeat_timeout=5)
    bench.following = ["the next undo"]

    answer = bench.run(worker)

    assert answer == ["the next undo"]
    [(event, claim)] = bench.delivered
    assert isinstance(event, ResultEvent)
    assert event.correlation_id == "order-1/charge/do/1"
    assert (event.step, event.attempt, event.payload, event.worker) == ("charge", 1, {"charged": 3}, "celery@here")
    assert (event.id, event.started_at) == ("order-1/charge/do/1/end", claim.now)
    assert event.timestamp == event.occurred_at == store.now()
    [asked] = store.claims
    assert asked["correlation"] == claim.correlation == Correlation("order-1", "charge", Direction.DO, 1)
    assert (asked["definition"], asked["worker"]) == ("abc", "celery@here")
    assert (asked["timeout"], asked["heartbeat_timeout"]) == (20, 5)


@pytest.mark.parametrize(("own", "asked"), [(None, 3600.0), (0, None), (7, 7)])
def test_the_time_limit_is_the_workers_own_or_the_settings(
    bench: Bench, own: float | None, asked: float | None
) -> None:
    bench.run(a_worker(lambda context: None, step_timeout=own))

    assert bench.store.claims[0]["timeout"] == asked


@pytest.mark.parametrize(("own", "asked"), [(None, 5), (0, 5), (7, 5), (3, 3)])
def test_a_time_limit_that_celery_was_told_holds_for_steps(bench: Bench, own: float | None, asked: float) -> None:
    bench.run(a_worker(lambda context: None, step_timeout=own, time_limit=5))

    assert bench.store.claims[0]["timeout"] == asked


def test_a_time_limit_that_celery_was_told_holds_where_the_step_says_longer(bench: Bench, store: LeaseBook) -> None:
    store.limit = 60

    event = bench.outcome(a_worker(lambda context: time.sleep(5), time_limit=0.1))

    assert isinstance(event, ErrorEvent)
    assert event.kind is ErrorKind.TIMEOUT


def test_every_execution_claims_under_a_token_of_its_own(bench: Bench) -> None:
    worker = a_worker(lambda context: None)

    bench.run(worker)
    bench.run(worker)

    owners = [claim["owner"] for claim in bench.store.claims]
    assert len(set(owners)) == 2


def test_a_refused_claim_never_runs_the_function(bench: Bench, store: LeaseBook) -> None:
    ran = []
    store.refusal = "somebody else has it"

    with pytest.raises(ClaimRefused, match="somebody else has it"):
        bench.run(a_worker(ran.append))

    assert (ran, bench.delivered) == ([], [])


def test_S27_a_claim_that_cannot_be_read_is_handed_on_as_a_definite_failure_and_nothing_runs(
    bench: Bench, store: LeaseBook
) -> None:
    ran: list[Any] = []
    store.unread = DecodeError("a workflow definition is not JSON")

    with pytest.raises(DecodeError, match="is not JSON"):
        bench.run(a_worker(ran.append), direction="undo", attempt=2)

    [(event, owner)] = bench.unclaimable
    assert (ran, owner) == ([], store.claims[0]["owner"])
    assert (event.correlation_id, event.kind, event.retryable) == ("order-1/charge/undo/2", ErrorKind.FAILED, False)
    assert event.error.type == "multiagents.exceptions.DecodeError"
    assert event.error.message.endswith("what is stored of it cannot be read: a workflow definition is not JSON")


@pytest.mark.parametrize("error", [StateStoreError("away"), ConfigurationError("no permission")])
def test_a_store_that_does_not_answer_a_claim_says_nothing_about_the_step(
    bench: Bench, store: LeaseBook, error: Exception
) -> None:
    store.unread = error

    with pytest.raises(type(error)):
        bench.run(a_worker(lambda context: None))

    assert bench.unclaimable == []


def test_a_message_of_somebody_else_is_refused_in_words(bench: Bench) -> None:
    with pytest.raises(DecodeError, match="expected the keywords attempt, definition, direction"):
        bench.run(a_worker(lambda context: None), direction="sideways")


def test_the_workers_error_is_delivered_and_then_raised(bench: Bench, store: LeaseBook) -> None:
    def charge_card(context: dict[str, Any]) -> None:
        raise ConnectionError("the bank is away")

    policy = RetryPolicy(max_attempts=5)

    with pytest.raises(ConnectionError, match="the bank is away"):
        bench.run(a_worker(charge_card, retry_policy=policy), attempt=2)

    [(event, claim)] = bench.delivered
    assert isinstance(event, ErrorEvent)
    assert (event.kind, event.retryable, event.retry_policy) == (ErrorKind.FAILED, True, policy)
    assert (event.id, event.started_at) == ("order-1/charge/do/2/end", claim.now)
    assert event.timestamp == event.occurred_at == store.now()
    assert (event.error.type, event.error.message, event.error.attempt) == ("ConnectionError", "the bank is away", 2)
    assert event.error.traceback is not None
    assert "in charge_card" in event.error.traceback
    assert "multiagents/worker_sdk" not in event.error.traceback


class CardDeclined(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (ValueError("x"), ErrorKind.FAILED, True),
        (TerminalError("x"), ErrorKind.FAILED, False),
        (CardDeclined("x"), ErrorKind.FAILED, False),
        (OutcomeUnknownError("x"), ErrorKind.UNKNOWN, False),
        (StepTimeoutError("charge_card", 1), ErrorKind.TIMEOUT, True),
    ],
)
def test_S1b_the_kind_of_an_error_says_whether_it_ran_and_may_run_again(
    bench: Bench, error: Exception, kind: ErrorKind, retryable: bool
) -> None:
    def charge_card(context: dict[str, Any]) -> None:
        raise error

    event = bench.outcome(a_worker(charge_card, retry_policy=RetryPolicy(non_retryable=(CardDeclined,))))

    assert isinstance(event, ErrorEvent)
    assert (event.kind, event.retryable) == (kind, retryable)


def test_celerys_own_time_limit_is_a_time_out(bench: Bench) -> None:
    from billiard.exceptions import SoftTimeLimitExceeded

    def charge_card(context: dict[str, Any]) -> None:
        raise SoftTimeLimitExceeded

    event = bench.outcome(a_worker(charge_card))

    assert isinstance(event, ErrorEvent)
    assert event.kind is ErrorKind.TIMEOUT


def test_the_steps_policy_goes_before_the_workers(bench: Bench) -> None:
    def ship_order(context: dict[str, Any]) -> None:
        raise KeyError("address")

    event = bench.outcome(a_worker(ship_order, retry_policy=RetryPolicy()), step="ship")

    assert isinstance(event, ErrorEvent)
    assert event.retryable is False


def test_a_function_that_exits_fails_and_the_process_stays(bench: Bench) -> None:
    def charge_card(context: dict[str, Any]) -> None:
        raise SystemExit(3)

    with pytest.raises(WorkerError, match=r"called sys.exit\(3\)"):
        bench.run(a_worker(charge_card))

    [(event, _)] = bench.delivered
    assert isinstance(event, ErrorEvent)
    assert event.kind is ErrorKind.FAILED


class PanicException(BaseException):
    """As a library in Rust raises it."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 50 GiB"),
        GeneratorExit(),
        asyncio.CancelledError(),
        PanicException("index out of bounds"),
        WorkerShutdown(0),
        WorkerTerminate(1),
        Ignore(),
        Reject("no", requeue=True),
        Retry("later"),
        BaseExceptionGroup("both", [PanicException("a"), ValueError("b")]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("style", ["def", "async def"])
def test_whatever_a_worker_raises_has_failed_and_ends_no_process(
    bench: Bench, error: BaseException, style: str
) -> None:
    def charge_card(context: dict[str, Any]) -> None:
        raise error

    async def charge_card_async(context: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(WorkerError, match=f"raised .*{type(error).__name__}|cancelled the task it runs in"):
        bench.run(a_worker(charge_card if style == "def" else charge_card_async))

    [(event, _)] = bench.delivered
    assert isinstance(event, ErrorEvent)
    assert (event.kind, event.retryable) == (ErrorKind.FAILED, True)
    assert event.error.type.endswith((type(error).__name__, "WorkerError"))


def test_an_error_of_the_arguments_or_the_result_may_be_of_any_kind(bench: Bench) -> None:
    class Odd(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            raise PanicException("no items")

    with pytest.raises(WorkerError, match="PanicException"):
        bench.run(a_worker(lambda context: Odd(a=1)))

    [(event, _)] = bench.delivered
    assert isinstance(event, ErrorEvent)


def shut_down(monkeypatch: pytest.MonkeyPatch) -> BaseException:
    """What Celery's signal handler does to a worker whose main thread runs the step."""
    monkeypatch.setattr("celery.worker.state.should_terminate", 1)
    return WorkerTerminate(1)


def end_the_child(monkeypatch: pytest.MonkeyPatch) -> BaseException:
    """What billiard's signal handler does to the child of a prefork pool."""
    monkeypatch.setattr("billiard.common._should_have_exited", [True])
    return SystemExit(-(256 - signal.SIGTERM))


class GreenletExit(BaseException):
    """As gevent puts it into a greenlet that is killed."""


@pytest.mark.parametrize(
    ("put_in", "recorded"),
    [
        (lambda _: KeyboardInterrupt(), ErrorKind.LOST),
        (shut_down, ErrorKind.LOST),
        (end_the_child, None),
        (lambda _: GreenletExit(), ErrorKind.TIMEOUT),
        (lambda _: LimitReached(), ErrorKind.LOST),
    ],
    ids=["Ctrl-C", "shutdown", "child is ended by its parent", "greenlet is killed", "limit of a step around it"],
)
@pytest.mark.parametrize("over_it", [None, "another error"])
def test_S1a_S1b_what_is_put_in_from_outside_is_no_failure_and_goes_on_its_way(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    put_in: Callable[[pytest.MonkeyPatch], BaseException],
    recorded: ErrorKind | None,
    over_it: str | None,
) -> None:
    interruption = put_in(monkeypatch)

    def charge_card(context: dict[str, Any]) -> None:
        try:
            raise interruption
        finally:
            if over_it:
                raise PanicException("the roll-back failed, too")

    with pytest.raises(PanicException if over_it else type(interruption)):
        bench.run(a_worker(charge_card))

    kinds = [event.kind for event, _ in bench.delivered if isinstance(event, ErrorEvent)]
    assert kinds == ([] if recorded is None else [recorded])


def test_an_error_that_a_signal_handler_raises_is_no_failure_of_the_step(bench: Bench) -> None:
    class Told(Exception):
        pass

    def handler(*_: Any) -> None:
        raise Told

    before = signal.signal(signal.SIGUSR2, handler)

    def charge_card(context: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(5)

    with pytest.raises(Told):
        bench.run(a_worker(charge_card))
    signal.signal(signal.SIGUSR2, before)

    [(event, _)] = bench.delivered
    assert isinstance(event, ErrorEvent)
    assert event.kind is ErrorKind.LOST


def test_S27_what_cannot_be_written_down_is_an_unknown_outcome(bench: Bench) -> None:
    def refusing(event: ResultEvent | ErrorEvent, claim: Claim, **options: bool) -> Any:
        if isinstance(event, ResultEvent):
            raise PanicException("the codec has no key")
        return bench.settle(event, claim, **options)

    object.__setattr__(bench.invocation._runtime, "settle", refusing)

    with pytest.raises(WorkerError, match="PanicException"):
        bench.run(a_worker(lambda context: {"charged": 3}))

    [(event, _)] = bench.delivered
    assert isinstance(event, ErrorEvent)
    assert (event.kind, event.retryable) == (ErrorKind.UNKNOWN, False)
    assert "returned a result that could not be recorded" in event.error.message


def test_an_error_that_cannot_speak_is_recorded_all_the_same(bench: Bench) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def charge_card(context: dict[str, Any]) -> None:
        raise Mute

    event = bench.outcome(a_worker(charge_card))

    assert isinstance(event, ErrorEvent)
    assert "could not be read" in event.error.message


def test_a_huge_error_is_cut_and_text_that_is_not_unicode_is_mended(bench: Bench) -> None:
    def charge_card(context: dict[str, Any]) -> None:
        raise ValueError("\ud800" + "ö" * 50_000)

    event = bench.outcome(a_worker(charge_card))

    assert isinstance(event, ErrorEvent)
    assert len(event.error.message.encode()) < 5_000
    assert event.error.traceback is not None
    assert len(event.error.traceback.encode()) <= 16 * 1024
    assert json.loads(event.to_json())["error"]["type"] == "ValueError"


class TestResults:
    @pytest.mark.parametrize("nothing", [None, {}])
    def test_nothing_is_the_nothing_that_was_returned(self, bench: Bench, nothing: Any) -> None:
        assert bench.outcome(a_worker(lambda context: nothing)).payload == nothing

    def test_another_value_is_kept_as_it_is(self, bench: Bench) -> None:
        assert bench.outcome(a_worker(lambda context: [1, "two"])).payload == [1, "two"]

    @pytest.mark.parametrize(
        ("returned", "says"),
        [
            ({"when": object()}, "when is object"),
            ({"price": float("nan")}, "price is nan"),
            ({1: "a"}, "a key that is int"),
            ({"text": "\ud800"}, "text is text with half a surrogate pair"),
            ({"text": "x" * 1000}, "1,011 bytes of JSON, more than the 1,000"),
            ({"text": "ö" * 500}, "1,011 bytes of JSON"),
        ],
    )
    def test_S1b_a_result_that_cannot_be_recorded_is_an_unknown_outcome(
        self, bench: Bench, returned: Any, says: str
    ) -> None:
        event = bench.outcome(a_worker(lambda context: returned))

        assert isinstance(event, ErrorEvent)
        assert (event.kind, event.retryable) == (ErrorKind.UNKNOWN, False)
        assert says in event.error.message
        assert "ran, and returned" in event.error.message

    def test_S27_a_result_that_refers_to_itself_is_an_unknown_outcome(self, bench: Bench) -> None:
        loops: dict[str, Any] = {}
        loops["again"] = loops

        event = bench.outcome(a_worker(lambda context: loops))

        assert isinstance(event, ErrorEvent)
        assert event.kind is ErrorKind.UNKNOWN


class TestCurrentStep:
    def test_has_what_the_api_promises(self, bench: Bench, store: LeaseBook) -> None:
        seen: dict[str, Any] = {}
        original = ErrorInfo(type="ValueError", message="no card")
        store.extra = {"result": {"id": 7}, "outcome": "succeeded", "error": original}

        def refund_card(context: dict[str, Any]) -> None:
            step = current_step()
            for name in NAMES:
                seen[name] = getattr(step, name)
            assert store.loads == 0
            seen["results"] = dict(step.results)
            assert step.results["charge"] == {"charge_id": "order-1"}
            assert step.deadline == datetime(2026, 1, 1, 1, tzinfo=UTC)

        bench.run(a_worker(refund_card), direction="undo")

        assert seen == {
            "transaction_id": "order-1",
            "correlation_id": "order-1/charge/undo/1",
            "workflow": "order",
            "step": "charge",
            "attempt": 1,
            "direction": "undo",
            "idempotency_key": "order-1/charge",
            "input": {"total": 3},
            "result": {"id": 7},
            "outcome": "succeeded",
            "error": original,
            "results": {"charge": {"charge_id": "order-1"}},
        }
        assert store.loads == 1

    def test_S25_the_key_is_the_same_for_all_attempts_and_the_undo(self, bench: Bench) -> None:
        keys = []
        worker = a_worker(lambda context: keys.append(current_step().idempotency_key))

        bench.run(worker, attempt=1)
        bench.run(worker, attempt=2)
        bench.run(worker, direction="undo")

        assert len(set(keys)) == 1

    def test_is_seen_by_coroutines_their_tasks_and_threads_with_the_context(self, bench: Bench) -> None:
        seen = []

        async def note() -> None:
            seen.append(current_step().step)

        async def charge_card(context: dict[str, Any]) -> None:
            await note()
            await asyncio.create_task(note())
            await asyncio.to_thread(lambda: seen.append(current_step().step))
            copied = contextvars.copy_context()
            thread = threading.Thread(target=copied.run, args=(lambda: seen.append(current_step().step),))
            thread.start()
            thread.join()

        bench.run(a_worker(charge_card))

        assert seen == ["charge"] * 4

    def test_outside_a_run_says_so(self, bench: Bench) -> None:
        bench.run(a_worker(lambda context: None))

        with pytest.raises(WorkerError, match="outside a run"):
            current_step()


class TestCoroutines:
    def test_share_one_loop(self, bench: Bench) -> None:
        loops = []

        async def charge_card(context: dict[str, Any]) -> dict[str, Any]:
            loops.append(asyncio.get_running_loop())
            await asyncio.sleep(0)
            return {"ok": True}

        assert bench.outcome(a_worker(charge_card)).payload == {"ok": True}
        assert bench.outcome(a_worker(charge_card)).payload == {"ok": True}
        assert len(set(loops)) == 1

    def test_run_beside_a_loop_of_the_callers_thread(self, bench: Bench) -> None:
        async def charge_card(context: dict[str, Any]) -> dict[str, Any]:
            await asyncio.sleep(0)
            return {"ok": True}

        async def a_test() -> Any:
            return bench.outcome(a_worker(charge_card)).payload

        assert asyncio.run(a_test()) == {"ok": True}

    def test_may_run_another_step_in_their_own_process(self, bench: Bench) -> None:
        async def inner(context: dict[str, Any]) -> dict[str, Any]:
            await asyncio.sleep(0)
            return {"inner": True}

        async def outer(context: dict[str, Any]) -> Any:
            return bench.outcome(a_worker(inner)).payload

        assert bench.outcome(a_worker(outer)).payload == {"inner": True}

    def test_are_cancelled_at_their_limit(self) -> None:
        bench = Bench(LeaseBook(limit=0.05))
        ended = threading.Event()

        async def charge_card(context: dict[str, Any]) -> None:
            try:
                await asyncio.sleep(30)
            finally:
                ended.set()

        event = bench.outcome(a_worker(charge_card))

        assert isinstance(event, ErrorEvent)
        assert (event.kind, event.error.type) == (
            ErrorKind.TIMEOUT,
            "multiagents.worker_sdk.execution.timeouts.StepTimeoutError",
        )
        assert ended.is_set()

    def test_a_time_out_of_their_own_is_an_ordinary_failure(self) -> None:
        bench = Bench(LeaseBook(limit=10))

        async def charge_card(context: dict[str, Any]) -> None:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(30)

        event = bench.outcome(a_worker(charge_card))

        assert isinstance(event, ErrorEvent)
        assert (event.kind, event.error.type) == (ErrorKind.FAILED, "TimeoutError")

    def test_that_will_not_end_are_left_behind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(event_loop, "GRACE", 0.1)
        bench = Bench(LeaseBook(limit=0.05))
        resumed = asyncio.Event()

        async def charge_card(context: dict[str, Any]) -> None:
            for _ in range(2):
                try:
                    await resumed.wait()
                except asyncio.CancelledError:
                    continue

        event = bench.outcome(a_worker(charge_card))

        assert isinstance(event, ErrorEvent)
        assert event.kind is ErrorKind.TIMEOUT

    def test_that_exit_fail_and_leave_the_loop_alive(self, bench: Bench) -> None:
        async def leaves(context: dict[str, Any]) -> None:
            raise SystemExit(1)

        async def stays(context: dict[str, Any]) -> dict[str, Any]:
            return {"ok": True}

        assert isinstance(bench.outcome(a_worker(leaves)), ErrorEvent)
        assert bench.outcome(a_worker(stays)).payload == {"ok": True}

    def test_that_cancel_themselves_fail(self, bench: Bench) -> None:
        async def charge_card(context: dict[str, Any]) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(1)

        event = bench.outcome(a_worker(charge_card))

        assert isinstance(event, ErrorEvent)
        assert "cancelled the task it runs in" in event.error.message

    def test_are_cancelled_when_the_caller_is_interrupted(self, bench: Bench) -> None:
        running, ended = threading.Event(), threading.Event()

        async def charge_card(context: dict[str, Any]) -> None:
            running.set()
            try:
                await asyncio.sleep(30)
            finally:
                ended.set()

        def interrupt() -> None:
            running.wait(5)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            bench.run(a_worker(charge_card))

        assert ended.wait(5)
        assert [event.kind for event, _ in bench.delivered if isinstance(event, ErrorEvent)] == [ErrorKind.LOST]

    def test_in_the_clothes_of_a_function_are_awaited(self, bench: Bench) -> None:
        async def charge_card(context: dict[str, Any]) -> dict[str, Any]:
            return {"ok": True}

        assert bench.outcome(a_worker(lambda context: charge_card(context | {}))).payload == {"ok": True}

    def test_start_a_loop_of_their_own_after_a_fork(self, bench: Bench) -> None:
        async def charge_card(context: dict[str, Any]) -> dict[str, Any]:
            return {"pid": os.getpid()}

        worker = a_worker(charge_card)
        assert bench.outcome(worker).payload == {"pid": os.getpid()}

        assert in_a_child(lambda: bench.outcome(worker).payload["pid"] == os.getpid()) is True


class TestLimits:
    def test_stop_a_function_in_the_main_thread(self) -> None:
        bench = Bench(LeaseBook(limit=0.05))
        before = signal.getsignal(signal.SIGALRM)

        def charge_card(context: dict[str, Any]) -> None:
            try:
                time.sleep(30)
            except Exception:
                pass

        event = bench.outcome(a_worker(charge_card))

        assert isinstance(event, ErrorEvent)
        assert event.kind is ErrorKind.TIMEOUT
        assert "time limit of 0.05 s" in event.error.message
        assert signal.getsignal(signal.SIGALRM) is before

    def test_an_error_that_came_of_being_stopped_is_a_time_out(self) -> None:
        bench = Bench(LeaseBook(limit=0.05))

        def charge_card(context: dict[str, Any]) -> None:
            try:
                time.sleep(30)
            finally:
                raise RuntimeError("the clean-up failed")

        event = bench.outcome(a_worker(charge_card))

        assert isinstance(event, ErrorEvent)
        assert event.kind is ErrorKind.TIMEOUT

    def test_give_the_users_own_alarm_back(self) -> None:
        bench = Bench(LeaseBook(limit=10))
        rang: list[int] = []
        before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
        pytests_own = signal.setitimer(signal.ITIMER_REAL, 30)
        try:
            bench.run(a_worker(lambda context: None))

            assert 25 < signal.getitimer(signal.ITIMER_REAL)[0] <= 30
        finally:
            signal.signal(signal.SIGALRM, before)
            signal.setitimer(signal.ITIMER_REAL, *pytests_own)

    def test_let_the_users_own_alarm_ring_in_time(self) -> None:
        bench = Bench(LeaseBook(limit=10))
        rang: list[int] = []
        before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
        pytests_own = signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:

            def charge_card(context: dict[str, Any]) -> None:
                until = time.monotonic() + 5
                while not rang and time.monotonic() < until:
                    time.sleep(0.01)

            bench.run(a_worker(charge_card))

            assert rang == [1]
            assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        finally:
            signal.signal(signal.SIGALRM, before)
            signal.setitimer(signal.ITIMER_REAL, *pytests_own)

    def test_nest_when_a_step_runs_another_in_process(self) -> None:
        outer, inner = Bench(LeaseBook(limit=0.2)), Bench(LeaseBook(limit=0.05))

        def charge_card(context: dict[str, Any]) -> None:
            event = inner.outcome(a_worker(lambda context: time.sleep(30)))
            assert isinstance(event, ErrorEvent)
            assert event.kind is ErrorKind.TIMEOUT
            time.sleep(30)

        event = outer.outcome(a_worker(charge_card))

        assert isinstance(event, ErrorEvent)
        assert event.kind is ErrorKind.TIMEOUT

    def test_cannot_stop_a_function_on_threads_and_stop_renewing_it(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("multiagents.worker_sdk.attempt.leases.OVERDUE", 0.05)
        bench = Bench(LeaseBook(limit=0.05), lease=0.3)
        lost = []

        def charge_card(context: dict[str, Any]) -> dict[str, Any]:
            step = current_step()
            until = time.monotonic() + 60
            while not step.is_cancelled() and time.monotonic() < until:
                time.sleep(0.01)
            lost.append(step.is_cancelled())
            return {"late": True}

        with caplog.at_level(logging.WARNING):
            event = bench.outcome(a_worker(charge_card), pool="threads")

        assert lost == [True]
        assert event.payload == {"late": True}
        assert "slot of this worker stays taken" in caplog.text


class TestLeases:
    def test_are_not_renewed_for_a_short_step(self, bench: Bench, store: LeaseBook) -> None:
        bench.run(a_worker(lambda context: None))

        assert store.renewals == []

    def test_are_renewed_while_a_long_step_runs(self, store: LeaseBook) -> None:
        bench = Bench(store, lease=0.3)

        bench.run(a_worker(lambda context: {"seen": store.renewed.wait(5)}))

        assert bench.delivered[0][0].payload == {"seen": True}
        owner, beat, detail = store.renewals[0]
        assert (owner, beat, detail) == (store.claims[0]["owner"], False, None)

    def test_a_heartbeat_is_sent_at_once_with_its_detail(self, bench: Bench, store: LeaseBook) -> None:
        def charge_card(context: dict[str, Any]) -> dict[str, Any]:
            current_step().heartbeat({"done": 40})
            return {"sent": store.renewed.wait(5)}

        bench.run(a_worker(charge_card))

        assert bench.delivered[0][0].payload == {"sent": True}
        assert store.renewals[0][1:] == (True, {"done": 40})

    @pytest.mark.parametrize("answer", [Renewal(alive=False, cancelled=False), Renewal(alive=True, cancelled=True)])
    def test_tell_the_worker_when_there_is_no_point_in_going_on(self, store: LeaseBook, answer: Renewal) -> None:
        bench = Bench(store, lease=0.3)
        store.answer = answer

        def charge_card(context: dict[str, Any]) -> dict[str, Any]:
            until = time.monotonic() + 5
            while not current_step().is_cancelled() and time.monotonic() < until:
                time.sleep(0.01)
            return {"cancelled": current_step().is_cancelled()}

        assert bench.outcome(a_worker(charge_card)).payload == {"cancelled": True}

    def test_are_renewed_on_after_the_store_was_away(self, store: LeaseBook, caplog: pytest.LogCaptureFixture) -> None:
        bench = Bench(store, lease=0.3)
        store.fault = ConnectionError("away")

        def charge_card(context: dict[str, Any]) -> dict[str, Any]:
            assert store.renewed.wait(5)
            store.fault = None
            count = len(store.renewals)
            until = time.monotonic() + 5
            while len(store.renewals) <= count + 1 and time.monotonic() < until:
                time.sleep(0.01)
            return {"renewed": len(store.renewals) > count + 1}

        with caplog.at_level(logging.INFO):
            assert bench.outcome(a_worker(charge_card)).payload == {"renewed": True}

        assert caplog.text.count("was not renewed") == 1
        assert caplog.text.count("leases are renewed again") == 1

    def test_are_renewed_by_a_thread_of_its_own_after_a_fork(self, store: LeaseBook) -> None:
        worker = a_worker(lambda context: {"renewed": store.renewed.wait(3)})
        assert Bench(store, lease=0.3).outcome(worker).payload == {"renewed": True}
        store.renewed.clear()

        assert in_a_child(lambda: Bench(store, lease=0.3).outcome(worker).payload) == {"renewed": True}

    def test_end_with_the_attempt_also_when_its_outcome_could_not_be_recorded(self, store: LeaseBook) -> None:
        bench = Bench(store, lease=0.3)
        bench.reachable = False

        with pytest.raises(ConnectionError, match="away"):
            bench.run(a_worker(lambda context: None))

        assert not store.renewed.wait(0.5)

    def test_a_claim_that_comes_cancelled_is_cancelled_from_the_start(self, bench: Bench, store: LeaseBook) -> None:
        store.extra = {"cancelled": True}

        event = bench.outcome(a_worker(lambda context: {"cancelled": current_step().is_cancelled()}))

        assert event.payload == {"cancelled": True}
