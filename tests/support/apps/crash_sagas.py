"""The sagas of "crash at every write": small, quick, and each made to pass certain writes.

What the steps do goes into a ledger in Redis by idempotency key, so that an effect that came twice counts once, and one
that was not undone is seen.

Run as a program it is the caller who may be killed:
``python -m tests.support.apps.crash_sagas start|replace|fork|tag|delete|tick|pause|stop|hurry|cancel|publish ...``.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import redis
from celery import Celery

from multiagents import (
    Budget,
    Limit,
    Orchestrator,
    OutcomeUnknownError,
    RetryPolicy,
    Run,
    Step,
    TerminalError,
    WorkflowBuilder,
    current_step,
    current_tool,
    dspy_worker,
    init_app,
    tool,
    worker,
)
from multiagents.event_bus import RedisEventBus
from multiagents.events import ResultEvent
from multiagents.exceptions import WorkflowNotFoundError
from multiagents.orchestrator.api import Schedule
from multiagents.orchestrator.dispatch import base as dispatcher
from multiagents.orchestrator.dispatch import plan
from multiagents.orchestrator.recovery import intake, maintenance
from multiagents.state_store.records import Delivery
from multiagents.testing import faults, wait_until

#: Whether this process is one that a fault may hit: not so in the test itself.
IN_DANGER = faults.install()
LEASE = 1.2
app = Celery("crash", broker=os.environ.get("CELERY_BROKER_URL"))
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=2,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_send_task_events=False,
    multiagents_lease=LEASE,
    multiagents_max_lost=5,
    multiagents_lm={"model": "openai/gpt-x", "api_base": os.environ.get("LM_BASE", ""), "api_key": "none"},
)
orchestrator = init_app(app)
if IN_DANGER:
    # What waits for half a minute or more in production waits here for about a lease.
    intake.STALE_AFTER = LEASE
    maintenance.SPARED = 1
    dispatcher.OUTBOX_GRACE_MS = 500
    plan.CHILD_GRACE_MS = 800

ledger = redis.Redis.from_url(os.environ.get("LEDGER_URL", "redis://127.0.0.1:1/0"), decode_responses=True)


def live(transaction_id: str) -> str:
    """The effects of a run that are there and not undone."""
    return f"live:{transaction_id}"


def _effect() -> dict:
    step = current_step()
    if step.direction == "undo":
        ledger.srem(live(step.transaction_id), step.step)
        return {}
    ledger.sadd(live(step.transaction_id), step.step)
    return {step.step: True}


@worker("crash.do")
def do(context: dict) -> dict:
    step = current_step()
    name = step.step.translate({ord("["): ".", ord("]"): "", ord("#"): "."})
    step.set_attributes({"last": step.step, name: step.attempt})
    return _effect()


@worker("crash.undo")
def undo(context: dict) -> dict:
    return _effect()


@worker("crash.flaky")
def flaky(context: dict) -> dict:
    if current_step().attempt == 1:
        raise ValueError("not at the first attempt")
    return _effect()


@worker("crash.refuse")
def refuse(context: dict) -> dict:
    raise TerminalError("it cannot be done")


@worker("crash.second_pass")
def second_pass(context: dict) -> dict:
    if "#" not in current_step().step:
        raise TerminalError("not in the first pass")
    return _effect()


@worker("crash.doubtful")
def doubtful(context: dict) -> dict:
    """Take effect or not, and say that nobody knows."""
    if "done" in current_step().step:
        _effect()
    raise OutcomeUnknownError("no answer")


@worker("crash.look", retry=RetryPolicy(max_attempts=20, initial_interval=0.2, backoff_coefficient=1, jitter=False))
def look(context: dict) -> dict:
    """The probe of ``crash.doubtful``; the first time it is asked it cannot even look."""
    step = current_step()
    assert step.probing
    if ledger.incr(f"asked:{step.transaction_id}") == 1:
        raise ConnectionError("the provider does not answer")
    if ledger.sismember(live(step.transaction_id), step.step):
        return {"outcome": "succeeded", "result": {step.step: True}}
    return {"outcome": "failed"}


@worker("crash.slow")
def slow(context: dict) -> dict:
    time.sleep(LEASE * 0.7)
    return _effect()


@worker("crash.mute", heartbeat_timeout=0.3)
def mute(context: dict) -> dict:
    if current_step().attempt == 1:
        time.sleep(LEASE)
    return _effect()


@worker("crash.suicidal")
def suicidal(context: dict) -> dict:
    if current_step().attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return _effect()


@worker("crash.large")
def large(context: dict) -> dict:
    return {**_effect(), "scan": "x" * 5_000}


@worker("crash.shred")
def shred(context: dict) -> dict:
    assert len(current_step().result["scan"]) == len(context["scan"]) == 5_000
    return _effect()


@worker("crash.single", limit=Limit("crash", concurrency=1))
def single(context: dict) -> dict:
    time.sleep(LEASE * 0.5)
    return _effect()


ONCE_MORE = RetryPolicy(max_attempts=3, initial_interval=0.2, jitter=False)


# --- agents: their model is the lane's, and the question is the run


def called(question: str) -> str:
    """The calls of an agent's tools: idempotency key -> how often."""
    return f"called:{question}"


@tool("note")
def note(word: str) -> str:
    """Write a word down."""
    ledger.hincrby(called(word), current_tool().idempotency_key, 1)
    return "noted"


@tool("dare", approval=True)
def dare(word: str) -> str:
    """Do what a person has to approve."""
    return note(word)


@dspy_worker("crash.ask", signature="question -> answer", reasoning="react", tools=[note, dare], retry=ONCE_MORE)
def ask(answer: str) -> dict:
    assert answer == "So."
    return _effect()


@dspy_worker(
    "crash.spend",
    signature="question -> answer",
    reasoning="react",
    tools=[note],
    retry=ONCE_MORE,
    max_tokens=100,
    budget=[Budget("crash", tokens=1_000_000_000, per="day"), Budget("own", tokens=1_000_000, per="run")],
    stream=True,
)
def spend(answer: str) -> dict:
    """Has budgets, and says what its model says."""
    assert answer == "So."
    return _effect()


@dspy_worker("crash.judge", signature="question -> verdict", retry=ONCE_MORE)
def judge(verdict: str) -> dict:
    """What its model says first is no answer."""
    assert verdict == "So."
    return _effect()


@dspy_worker("crash.doubt", signature="question -> answer")
def doubt(answer: str) -> dict:
    """The first time, nobody knows what has come of it."""
    if ledger.incr(f"doubted:{current_step().transaction_id}") == 1:
        raise OutcomeUnknownError("nobody knows")
    return _effect()


def flow(name: str, **options: object) -> WorkflowBuilder:
    return WorkflowBuilder(name, **options)


FORWARD = (
    flow("crash-forward")
    .add_step("first", "crash.do", compensation="crash.undo")
    .add_parallel("both", [Step("left", "crash.do"), Step("right", "crash.do")])
    .add_step("again", "crash.flaky", retry=ONCE_MORE)
    .add_step("last", "crash.do")
    .build()
)
BACK = (
    flow("crash-back")
    .add_step("reserve", "crash.do", compensation="crash.undo")
    .add_step("pay", "crash.do", compensation="crash.flaky", undo_retry=ONCE_MORE)
    .add_parallel(
        "both",
        [Step("left", "crash.do", compensation="crash.undo"), Step("right", "crash.do", compensation="crash.undo")],
    )
    .add_step("boom", "crash.refuse")
    .build()
)
FOREIGN = (
    flow("crash-foreign")
    .add_step("before", "crash.do")
    .add_step("ext", "crash.do", external=True)
    .add_step("after", "crash.do")
    .build()
)
SLOW = (
    flow("crash-slow")
    .add_step("wait", "crash.slow", compensation="crash.slow")
    .add_step("boom", "crash.refuse")
    .build()
)
CANCEL = (
    flow("crash-cancel")
    .add_step("reserve", "crash.do", compensation="crash.undo")
    .add_step("wait", "crash.slow", compensation="crash.undo")
    .build()
)
MUTE = flow("crash-mute").add_step("mute", "crash.mute", retry=ONCE_MORE).add_step("last", "crash.slow").build()
MUTE_BACK = (
    flow("crash-mute_back")
    .add_step("mute", "crash.do", compensation="crash.mute", undo_retry=ONCE_MORE)
    .add_step("boom", "crash.refuse")
    .build()
)
WAITING = (
    flow("crash-waiting")
    .add_step("first", "crash.do", compensation="crash.undo")
    .add_wait("paid", signal="payment")
    .add_sleep("nap", 0.3)
    .add_step("last", "crash.do")
    .build()
)
NAPPING = (
    flow("crash-napping").add_step("first", "crash.do").add_sleep("nap", 3_600).add_step("last", "crash.do").build()
)
LOCKED = (
    flow("crash-locked")
    .add_step("first", "crash.do", compensation="crash.undo")
    .add_lock("alone", "crash", lease=0.5)
    .add_step("last", "crash.do")
    .build()
)
# One of two is turned away, comes again, and has to find the slot free.
LIMITED = (
    flow("crash-limited")
    .add_parallel(
        "both",
        [
            Step("left", "crash.single", compensation="crash.single"),
            Step("right", "crash.single", compensation="crash.single"),
        ],
    )
    .add_step("boom", "crash.refuse")
    .build()
)
KILLED = flow("crash-killed").add_step("dies", "crash.suicidal").add_step("last", "crash.do").build()
STARTED = flow("crash-started").add_step("only", "crash.do", schedule_to_start=3).build()
BRIEF = flow("crash-brief", retention=1.0).add_step("only", "crash.do").build()
RESOLVED = {"on_unknown": "resolve", "resolve_with": "crash.look"}
PROBED = (
    flow("crash-probed")
    .add_step("pay_done", "crash.doubtful", compensation="crash.undo", **RESOLVED)
    .add_step("last", "crash.do")
    .build()
)
#: Goes back to its save-point once.
ROLLED_BACK = (
    flow("crash-rolled_back")
    .add_step("reserve", "crash.do", compensation="crash.undo")
    .add_savepoint("kept")
    .add_step("pay", "crash.do", compensation="crash.undo")
    .add_parallel("both", [Step("left", "crash.do", compensation="crash.undo"), Step("right", "crash.second_pass")])
    .add_step("last", "crash.do")
    .build()
)
NEAR = (
    flow("crash-near")
    .add_step("first", "crash.do", compensation="crash.undo")
    .add_step("second", "crash.do", compensation="crash.undo", local=True)
    .add_step("third", "crash.do", local=True)
    .build()
)
PROBED_BACK = (
    flow("crash-probed_back")
    .add_step("reserve", "crash.do", compensation="crash.undo")
    .add_step("pay_not", "crash.doubtful", compensation="crash.undo", **RESOLVED)
    .build()
)
LARGE = (
    flow("crash-large")
    .add_step("scan", "crash.large", compensation="crash.shred")
    .add_step("boom", "crash.refuse")
    .build()
)
BRIEF_LARGE = flow("crash-brief_large", retention=1.0).add_step("only", "crash.large").build()
PARKED = (
    flow("crash-parked")
    .add_step("pay", "crash.do", compensation="crash.refuse", undo_retry=RetryPolicy(max_attempts=1))
    .add_step("boom", "crash.refuse")
    .build()
)
# Its first step has the others sent by a worker, which waits for a claim less long than the caller would.
BUSY = (
    flow("crash-busy")
    .add_step("first", "crash.do")
    .add_parallel("all", [Step(f"wait{n}", "crash.slow") for n in range(10)])
    .build()
)
# --- runs of other workflows as steps, and maps
ASKED = (
    flow("crash-asked")
    .add_step("first", "crash.do")
    .add_step("ask", "crash.ask")
    .add_step("judge", "crash.judge")
    .build()
)
ASKED_BACK = (
    flow("crash-asked_back")
    .add_step("reserve", "crash.do", compensation="crash.ask", undo_retry=ONCE_MORE)
    .add_step("pay", "crash.do", compensation="crash.judge", undo_retry=ONCE_MORE)
    .add_step("boom", "crash.refuse")
    .build()
)
SPENT = flow("crash-spent").add_step("spend", "crash.spend").build()
SPENT_BACK = (
    flow("crash-spent_back")
    .add_step("reserve", "crash.do", compensation="crash.spend", undo_retry=ONCE_MORE)
    .add_step("boom", "crash.refuse")
    .build()
)
APPROVED = flow("crash-approved").add_step("ask", "crash.ask").build()
AFRESH = flow("crash-afresh").add_step("ask", "crash.doubt", on_unknown="park").build()
PAY = (
    flow("crash-pay")
    .add_step("hold", "crash.do", compensation="crash.undo")
    .add_step("charge", "crash.do", compensation="crash.undo")
    .build()
)
REFUSED = flow("crash-refused").add_step("hold", "crash.do", compensation="crash.undo").add_step("no", "crash.refuse")
LINGERING = flow("crash-lingering").add_step("wait", "crash.slow", compensation="crash.undo").build()
#: A completed child is undone as a unit.
FAMILY = (
    flow("crash-family")
    .add_step("reserve", "crash.do", compensation="crash.undo")
    .add_child("pay", PAY)
    .add_step("boom", "crash.refuse")
    .build()
)
#: A child that has failed, and undone itself, is not run again, whoever dies over its end.
FAMILY_REFUSED = (
    flow("crash-family_refused")
    .add_step("reserve", "crash.do", compensation="crash.undo")
    .add_child("pay", REFUSED.build())
    .add_step("last", "crash.do")
    .build()
)
#: A running child is cancelled with its parent.
FAMILY_CANCEL = (
    flow("crash-family_cancel")
    .add_step("reserve", "crash.do", compensation="crash.undo")
    .add_child("pay", LINGERING)
    .build()
)
MAP = (
    flow("crash-map")
    .add_step("first", "crash.do")
    .add_map("each", "crash.do", over=lambda ctx: [1, 2, 3, 4, 5], max_concurrency=2)
    .add_step("last", "crash.do")
    .build()
)
MAP_BACK = (
    flow("crash-map_back")
    .add_step("first", "crash.do", compensation="crash.undo")
    .add_map("each", "crash.do", over=lambda ctx: [1, 2, 3, 4], max_concurrency=2, compensation="crash.undo")
    .add_step("boom", "crash.refuse")
    .build()
)
MAP_FAMILY = (
    flow("crash-map_family")
    .add_step("first", "crash.do", compensation="crash.undo")
    .add_map("pay", PAY, over=lambda ctx: [1, 2, 3])
    .add_step("boom", "crash.refuse")
    .build()
)


def result_of(transaction_id: str, step: str) -> ResultEvent:
    """What a foreign producer publishes when it has done a step."""
    correlation_id = f"{transaction_id}/{step}/do/1"
    return ResultEvent(
        transaction_id=transaction_id, correlation_id=correlation_id, step=step, attempt=1, payload={step: True}
    )


def schedule_of(orchestrator: Orchestrator, name: str) -> Schedule:
    """A schedule whose only tick so far was the beginning of 2026."""
    return orchestrator.schedules.get(name) or orchestrator.schedule(name, FORWARD, "0 0 1 1 *", {"started": True})


def tick_of(orchestrator: Orchestrator, name: str) -> str:
    """Tick, and give the id of the run."""
    schedule = schedule_of(orchestrator, name)
    schedule.tick()
    assert schedule.last_tick is not None
    return schedule.run_id(schedule.last_tick)


def _is_claimed(transaction_id: str, step: str) -> bool:
    try:
        found = orchestrator.store.load(transaction_id).in_flight.get(step)
    except WorkflowNotFoundError:
        return False
    return found is not None and found.delivery is Delivery.CLAIMED


def _sleeps(transaction_id: str) -> bool:
    return _is_known(transaction_id) and "nap" in orchestrator.store.load(transaction_id).in_flight


def _is_known(transaction_id: str) -> bool:
    try:
        return bool(orchestrator.get(transaction_id))
    except WorkflowNotFoundError:
        return False


def _stop_and_go(run: Run) -> None:
    run.pause(timers="stop")
    run.resume()


#: What is done to a run that sleeps.
TO_SLEEPERS = {"stop": _stop_and_go, "hurry": lambda run: run.update_timer("nap", 0)}


#: What is done to a run, at once.
TO_RUNS = {
    "delete": lambda run: run.delete(reason="asked for"),
    "approve": lambda run, call: run.approve(call, actor="ann"),
    "afresh": lambda run: run.retry("ask", fresh=True),
}


def main(deed: str, *arguments: str) -> None:
    if deed == "start":
        orchestrator.start(arguments[0], {"started": True}, transaction_id=arguments[1])
    elif deed == "replace":
        orchestrator.start(arguments[0], {"started": True}, transaction_id=arguments[1], on_conflict="replace_ended")
    elif deed == "fork":
        orchestrator.get(arguments[0]).fork("again", transaction_id=arguments[1])
    elif deed == "tag":
        print("ready", flush=True)
        wait_until(lambda: _is_claimed(arguments[0], "wait"), 30)
        orchestrator.get(arguments[0]).set_attributes({"tagged": "yes"})
    elif deed in TO_RUNS:
        TO_RUNS[deed](orchestrator.get(arguments[0]), *arguments[1:])
    elif deed == "tick":
        tick_of(orchestrator, arguments[0])
    elif deed == "pause_schedule":
        schedule_of(orchestrator, arguments[0]).pause(reason="a test")
    elif deed == "cancel":
        print("ready", flush=True)
        wait_until(lambda: _is_claimed(arguments[-1], "wait"), 30)
        orchestrator.get(arguments[0]).cancel()
    elif deed == "pause":
        print("ready", flush=True)
        wait_until(lambda: _is_claimed(arguments[0], "wait"), 30)
        orchestrator.get(arguments[0]).pause()
    elif deed in TO_SLEEPERS:
        print("ready", flush=True)
        wait_until(lambda: _sleeps(arguments[0]), 30)
        TO_SLEEPERS[deed](orchestrator.get(arguments[0]))
    elif deed == "signal":
        print("ready", flush=True)
        wait_until(lambda: _is_known(arguments[0]), 30)
        orchestrator.get(arguments[0]).signal("payment", {"amount": 5}, key="webhook-1")
    elif deed == "publish":
        bus = RedisEventBus(orchestrator.runtime.address, maxlen=int(arguments[2]))
        bus.publish(result_of(arguments[0], arguments[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
