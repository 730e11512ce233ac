"""Agents to measure, what the stub tells them, and a program that times them: ``-m benchmarks.agents_app 300``."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import Any

import dspy
import redis
from celery import Celery

from benchmarks.conditions import REDIS_URL
from multiagents import RetryPolicy, WorkflowBuilder, current_step, dspy_worker, init_app, tool
from multiagents.testing.lm_stub import LMRequest, Reply, fields, react_agent, slow

#: Environment variable with the address of the stub.
STUB = "MULTIAGENTS_BENCH_STUB"
#: Seconds that a slow model takes for an answer.
SLOW = 2.0
#: Calls of tools in a long conversation, and about what a page of a search result has.
TURNS, PAGE = 50, "all that there is to be said of it, and more. " * 22

LM = {"model": "openai/gpt-4o-mini", "api_base": os.environ.get(STUB, "http://127.0.0.1:1/v1"), "api_key": "none"}
app = Celery("agents", broker=os.environ.get(REDIS_URL, "memory://"))
app.conf.update(multiagents_lm=LM, broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1)
orchestrator = init_app(app)
#: What -> milliseconds of each call.
timed: dict[str, list[float]] = {}


def answer(request: LMRequest) -> Reply:
    """What the stub says."""
    if "Slowly?" in request.text:
        return slow(fields(answer="So."), SLOW)
    if "Long?" in request.text:
        return react_agent(*[("read_page", {"word": f"w{number}"}) for number in range(TURNS)], answer="So.")(request)
    return fields(answer="So.")


def ask(what: str, count: int) -> None:
    """Ask one thing after the other."""
    predict = dspy.Predict("question -> answer")
    for number in range(count):
        began = time.perf_counter()
        predict(question=f"Why {number}?")
        timed.setdefault(what, []).append(1000 * (time.perf_counter() - began))


@dspy_worker("asks", retry=RetryPolicy(max_attempts=2, initial_interval=0.01, jitter=False))
def asks(context: dict[str, Any]) -> None:
    """Ask all, fail, and be given it all again."""
    first = current_step().attempt == 1
    ask("call" if first else "replay", context["count"])
    if first:
        raise RuntimeError("once more")


@dspy_worker("waits", signature="question -> answer")
def waits(context: dict[str, Any]) -> None:
    """Wait for the model."""


@tool("read_page")
def read_page(word: str) -> str:
    """Read a page."""
    return f"{word}: {PAGE}"


@dspy_worker("reads", signature="question -> answer", tools=[read_page], reasoning="react", max_iters=TURNS + 5)
def reads(context: dict[str, Any]) -> None:
    """Have a long conversation."""


ASKS = WorkflowBuilder("asks").add_step("it", asks).build()
WAITS = WorkflowBuilder("waits").add_step("it", waits).build()
READS = WorkflowBuilder("reads").add_step("it", reads).build()


def journal_of_a_conversation() -> float:
    """How many times the bytes of a long conversation its journal takes."""
    run = orchestrator.start(READS, {"question": "Long?"})
    run.result()
    calls = run.calls("it")
    said = max(_size(call.request) for call in calls if call.kind == "lm") + sum(_size(call.answer) for call in calls)
    said += sum(_size(call.request) for call in calls if call.kind == "tool")
    journal = orchestrator.keys.of_run(run.transaction_id).journal
    kept = redis.Redis.from_url(os.environ[REDIS_URL], decode_responses=True).hgetall(journal)
    return sum(len(name) + len(text) for name, text in kept.items()) / said


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False))


def time_calls(count: int) -> dict[str, float]:
    """The medians of plain calls, of ours and of replayed ones, in ms; and what a journal takes."""
    app.conf.task_always_eager = True
    lm = dspy.LM(**LM, cache=False, num_retries=0)
    adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
    for warm in (True, False):
        timed.clear()
        for _half in range(2):  # before and after: a machine is slower at one time than at another
            with dspy.context(lm=lm, adapter=adapter, disable_history=True):
                ask("plain", count // 4)
            orchestrator.start(ASKS, {"count": 10 if warm else count // 2}).result()
            with dspy.context(lm=lm, adapter=adapter, disable_history=True):
                ask("plain", count // 4)
    found = {what: statistics.median(values) for what, values in timed.items()}
    return {**found, "journal": journal_of_a_conversation()}


def wait_at_once(count: int) -> float:
    """How many seconds it takes a worker until so many agents have the answer of a slow model."""
    began = time.monotonic()
    runs = [orchestrator.start(WAITS, {"question": f"Slowly? {number}"}) for number in range(count)]
    for run in runs:
        run.result(timeout=60)
    return time.monotonic() - began


if __name__ == "__main__":
    if sys.argv[1] == "--wait":
        print(wait_at_once(int(sys.argv[2])))
    else:
        print(json.dumps(time_calls(int(sys.argv[1]))))
