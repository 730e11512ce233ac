"""What signals say to a run, and what they are told: approvals, keys, what comes too late. No server runs here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from pydantic import BaseModel

from multiagents import Orchestrator, TerminalError, WorkflowBuilder, init_app, worker
from multiagents.events import ResultEvent
from multiagents.exceptions import WorkflowError
from multiagents.state_store.memory import InMemoryStateStore


class Lenient(BaseModel):
    """Reads "no" and 0 as a bool, and says yes where nothing is said."""

    approved: bool = True
    limit: int = 5


class Forgetful(BaseModel):
    """Keeps of a decision everything but the decision."""

    limit: int = 5


@worker("told.pay")
def pay(context: dict[str, Any]) -> dict[str, Any]:
    return {"paid": True}


@worker("told.decline")
def decline(context: dict[str, Any]) -> None:
    raise TerminalError("declined")


APPROVED = WorkflowBuilder("told-approved").add_approval("ok").add_step("pay", pay).build()
LENIENT = WorkflowBuilder("told-lenient").add_approval("ok", schema=Lenient).add_step("pay", pay).build()
FORGETFUL = WorkflowBuilder("told-forgetful").add_approval("ok", schema=Forgetful).add_step("pay", pay).build()
PARENT = WorkflowBuilder("told-parent").add_child("claim", APPROVED).build()

#: What is neither a clear yes nor a clear no.
UNCLEAR = [
    None,
    {},
    True,
    False,
    "yes",
    "no",
    0,
    1,
    [],
    {"aproved": True},
    {"approved": None},
    {"approved": 1},
    {"approved": 0},
    {"approved": "true"},
    {"approved": "no"},
    {"approved": [True]},
    {"ok": {"approved": True}},
]


@pytest.fixture
def orchestrator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Orchestrator]:
    monkeypatch.delenv("MULTIAGENTS_REDIS_URL", raising=False)
    app = Celery(f"told-{uuid4().hex[:8]}", broker="redis://127.0.0.1:1/0")
    app.conf.update(task_always_eager=True)
    yield init_app(app)
    InMemoryStateStore.shared().clear()
    app.close()


# Approvals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", [APPROVED, LENIENT, FORGETFUL], ids=lambda workflow: workflow.name)
@pytest.mark.parametrize("said", UNCLEAR, ids=repr)
def test_S31_what_is_neither_yes_nor_no_is_refused_where_it_is_sent_and_the_run_waits_on(
    orchestrator: Orchestrator, workflow: Any, said: Any
) -> None:
    run = orchestrator.start(workflow, {})
    before = len(run.history())

    with pytest.raises(WorkflowError, match="was not given"):
        run.signal("ok", said)

    assert (run.status, len(run.history())) == ("running", before)
    if workflow is not FORGETFUL:
        assert run.signal("ok", {"approved": True}) == "received"
        assert run.result(timeout=1)["paid"] is True


def test_S31_who_gives_an_unclear_answer_is_told_what_was_found_and_what_to_say(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(APPROVED, {})

    with pytest.raises(WorkflowError) as refused:
        run.signal("ok", {"approved": "no", "card": "4111"})

    assert "approved is 'no' in it, of type str" in str(refused.value)
    assert '{"approved": True}' in str(refused.value)
    assert "4111" not in str(refused.value)


def test_S31_a_schema_that_loses_the_answer_lets_nobody_through(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(FORGETFUL, {})

    with pytest.raises(WorkflowError, match="have the schema keep `approved` as it is"):
        run.signal("ok", {"approved": True})

    assert run.status == "running"


def test_S31_a_model_is_as_clear_as_the_dict_of_it(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(LENIENT, {})

    assert run.signal("ok", Lenient(approved=True, limit=7)) == "received"

    assert run.result(timeout=1)["paid"] is True


def test_S31_a_clear_no_turns_the_run_back(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(APPROVED, {})

    run.signal("ok", {"approved": False})

    seen = run.describe()
    assert (seen.status, seen.error and seen.error.type) == ("failed", "ApprovalRejected")


def test_S31_a_child_asks_for_a_clear_yes_too(orchestrator: Orchestrator) -> None:
    run = orchestrator.start(PARENT, {}, transaction_id="p")
    child = orchestrator.get("p:claim")

    with pytest.raises(WorkflowError, match="neither yes nor no"):
        child.signal("ok", {"approved": "maybe"})
    waiting = run.status
    child.signal("ok", {"approved": True})

    assert (waiting, run.status) == ("running", "completed")


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ({"approved": True}, "completed"),
        ({"approved": False}, "failed"),
        ({"approved": "no"}, "running"),
        ({}, "running"),
    ],
    ids=str,
)
def test_S31_what_others_publish_of_an_approval_has_to_be_as_clear(
    orchestrator: Orchestrator, payload: Any, status: str
) -> None:
    run = orchestrator.start(APPROVED, {}, transaction_id="a")

    orchestrator.engine.receive(ResultEvent(transaction_id="a", correlation_id="a/ok/do/1", payload=payload))

    assert run.status == status
    letters = [letter.why for letter in orchestrator.dead_letters().values()]
    assert [("neither yes nor no" in why) for why in letters] == ([True] if status == "running" else [])


def test_S12_S31_behind_the_pivot_a_person_supplies_a_clear_yes_or_nothing(orchestrator: Orchestrator) -> None:
    workflow = (
        WorkflowBuilder("told-behind").add_step("pay", pay, pivot=True).add_approval("ok").add_step("ship", pay).build()
    )
    run = orchestrator.start(workflow, {})
    run.signal("ok", {"approved": False})
    assert run.status == "paused"

    with pytest.raises(WorkflowError, match="nothing but a clear yes"):
        run.supply("ok", {"granted": 7})
    run.supply("ok", {"approved": True}, actor="ann")

    assert run.status == "completed"
