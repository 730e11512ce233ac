"""How much agents keep to learn from, and in what form: in one process, but where a server is looked into."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
import redis
from celery import Celery

from multiagents import WorkflowBuilder, dspy_worker, init_app
from multiagents.state_store.memory import InMemoryStateStore
from multiagents.testing.lm_stub import LMStub, fields, react_agent
from tests.support.agents_kit import Agents
from tests.support.apps.agents import RESEARCH, researcher

SOON = 40.0


@dspy_worker("counsel", signature="question, card_number -> answer: str")
def counsel(context: dict[str, Any]) -> None:
    if context["question"] == "large":
        assert len(context["answer"]) > 60_000


class Odd(dspy.Module):
    """Asks with what no JSON can be made of."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question, thing -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.ask(question=question, thing=object())


@dspy_worker("odd", module=Odd)
def odd(answer: str) -> None:
    assert answer


COUNSEL = WorkflowBuilder("counsel").add_step("it", counsel).build()
ASKED = {"question": "Shall we?", "card_number": "4111 1111"}


class Counsel:
    """An app of which every step is done where it is started."""

    def __init__(self, stub: LMStub) -> None:
        self.stub = stub
        self.app: Any = None

    def under(self, **settings: Any) -> None:
        """Go on with these settings."""
        self.app = Celery("counsel", broker="memory://", set_as_current=False)
        self.app.conf.task_always_eager = True
        model = {"model": "openai/gpt-stub", "api_base": self.stub.openai_base, "api_key": "x"}
        init_app(self.app, {"lm": model, **settings})

    def ask(self, answer: str = "We shall.", **changed: Any) -> Any:
        self.stub.reply(fields(answer=answer))
        run = self.app.multiagents.start(COUNSEL, ASKED | changed)
        assert run.result()["answer"] == answer
        return run

    def data(self) -> dict[str, Any]:
        return counsel.get_optimization_data(app=self.app)


@pytest.fixture
def counselled(lm_stub: LMStub) -> Iterator[Counsel]:
    InMemoryStateStore.shared().clear()
    yield Counsel(lm_stub)
    InMemoryStateStore.shared().clear()


def test_so_many_are_kept_and_no_more(counselled: Counsel) -> None:
    counselled.under(examples=3)

    runs = [counselled.ask() for _ in range(5)]

    assert [each["transaction_id"] for each in counselled.data()["training_examples"]] == [
        run.transaction_id for run in runs[:1:-1]
    ]


def test_none_are_kept_where_none_are_wanted(counselled: Counsel) -> None:
    counselled.under(examples=0)

    counselled.ask()

    assert counselled.data() == {
        "worker": "counsel",
        "training_examples": [],
        "execution_history": [],
        "success_rate": None,
        "available_tools": [],
    }


def test_what_is_not_to_be_shown_is_not_learned(counselled: Counsel) -> None:
    counselled.under(redact=["card*"])

    counselled.ask()

    [example] = counselled.data()["training_examples"]
    assert example["inputs"] == {"question": "Shall we?", "card_number": "[redacted]"}
    assert [each["inputs"]["card_number"] for each in example["trace"]] == ["[redacted]"]


def everything(client: Any) -> bytes:
    """All names and values that there are in a server."""
    found: list[bytes] = []
    for key in client.scan_iter():
        found.append(key)
        match client.type(key):
            case b"hash":
                found += [part for pair in client.hgetall(key).items() for part in pair]
            case b"zset":
                found += client.zrange(key, 0, -1)
            case b"list":
                found += client.lrange(key, 0, -1)
    return b"\n".join(found)


def test_encrypted_nothing_of_what_was_asked_can_be_read_in_the_server(
    redis_url: str, tmp_path: Path, lm_stub: LMStub
) -> None:
    settings = {"payload_codec": "aes-gcm", "encryption_keys": f"2026:{base64.b64encode(b'k' * 32).decode()}"}
    lm_stub.when("Shall we?").reply(react_agent(("look_up", {"word": "custom"}), answer="We shall.", sources=["s"]))
    with Agents(redis_url, tmp_path, lm_stub, **settings) as agents:
        agents.worker()
        run = agents.orchestrator.start(RESEARCH, {"question": "Shall we?"})
        run.result(timeout=SOON)
        run.feedback(0.5, "a matter of taste")
        [example] = researcher.get_optimization_data(app=agents.app)["training_examples"]
        agents.redis.delete("tools")  # what the tools of the tests note

        with redis.Redis.from_url(redis_url) as client:
            kept = everything(client)

    assert b":example:researcher" in kept
    assert [word for word in (b"Shall", b"shall", b"custom", b"taste", b"question") if word in kept] == []
    assert (example["inputs"], example["note"]) == ({"question": "Shall we?"}, "a matter of taste")


def test_what_is_too_large_costs_the_step_nothing(counselled: Counsel, caplog: pytest.LogCaptureFixture) -> None:
    counselled.under()

    counselled.ask("x" * 70_000, question="large")
    run = counselled.ask()

    assert [each["transaction_id"] for each in counselled.data()["execution_history"]] == [run.transaction_id]
    assert "leaves no example to learn from: its inputs and outputs take more than" in caplog.text


def test_what_cannot_be_written_down_of_a_trace_costs_no_more_than_the_trace(counselled: Counsel) -> None:
    counselled.under()
    counselled.stub.reply(fields(answer="We shall."))

    counselled.app.multiagents.start(WorkflowBuilder("odd").add_step("it", odd).build(), {"question": "?"}).result()

    [example] = odd.get_optimization_data(app=counselled.app)["training_examples"]
    assert (example["inputs"], example["outputs"], example["trace"]) == ({"question": "?"}, {"answer": "We shall."}, [])
