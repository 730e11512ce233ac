"""The data of maps: large items and results kept apart, encoded, redacted where it is shown. No server runs here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from multiagents import Orchestrator, RetryPolicy, Step, TerminalError, WorkflowBuilder, current_step, init_app, worker
from multiagents.state_store.memory import InMemoryStateStore

KEYS = "2026:bWluZSBpcyBhIGtleSBvZiB0aGlydHktdHdvIGJ5dGU="
LARGE = "x" * 400
SEEN: list[Any] = []


@worker("mapped.read")
def read(context: dict[str, Any]) -> dict[str, Any]:
    assert len(context["item"]["scan"]) == len(LARGE)
    return {"index": context["index"], "card": context["item"]["card"], "copy": context["item"]["scan"]}


@worker("mapped.shred")
def shred(context: dict[str, Any]) -> None:
    step = current_step()
    SEEN.append((step.step, step.input["item"]["card"], len(step.result["copy"])))


@worker("mapped.shred_all")
def shred_all(context: dict[str, Any]) -> None:
    SEEN.append([result and len(result["copy"]) for result in current_step().result])


@worker("mapped.refuse", retry=RetryPolicy(max_attempts=1))
def refuse(context: dict[str, Any]) -> None:
    raise TerminalError("no")


PAPERS = {"papers": [{"scan": LARGE, "card": f"4111-{number}"} for number in range(3)], "desk": LARGE}


def each() -> WorkflowBuilder:
    return WorkflowBuilder("mapped-each").add_map("read", Step("read", read), over="papers", compensation=shred)


def bulk() -> WorkflowBuilder:
    return WorkflowBuilder("mapped-bulk").add_map(
        "read", Step("read", read), over="papers", compensation=shred_all, compensate_each=False
    )


@pytest.fixture
def orchestrator_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Orchestrator]]:
    monkeypatch.delenv("MULTIAGENTS_REDIS_URL", raising=False)

    def make(**settings: Any) -> Orchestrator:
        app = Celery(f"mapped-{uuid4().hex[:8]}", broker="redis://127.0.0.1:1/0")
        app.conf.task_always_eager = True
        return init_app(app, settings)

    SEEN.clear()
    yield make
    InMemoryStateStore.shared().clear()


SETTINGS: list[dict[str, Any]] = [
    {"claim_check_bytes": 100},
    {"payload_codec": "gzip,aes-gcm", "encryption_keys": KEYS},
    {"claim_check_bytes": 100, "payload_codec": "gzip,aes-gcm", "encryption_keys": KEYS, "redact": "*card*"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["kept apart", "encrypted", "both"])
def test_items_and_their_results_come_whole_through_codecs_and_claim_checks(
    orchestrator_with: Callable[..., Orchestrator], settings: dict[str, Any]
) -> None:
    run = orchestrator_with(**settings).start(each().build(), PAPERS)

    seen = run.describe()
    assert seen.status == "completed"
    expected = [{"index": n, "card": f"4111-{n}", "copy": LARGE} for n in range(3)]
    assert run.result(timeout=0)["read"] == expected


@pytest.mark.parametrize("settings", SETTINGS, ids=["kept apart", "encrypted", "both"])
def test_S8_the_undo_of_an_item_gets_all_it_had_and_one_in_bulk_all_results(
    orchestrator_with: Callable[..., Orchestrator], settings: dict[str, Any]
) -> None:
    orchestrator = orchestrator_with(**settings)

    apart = orchestrator.start(each().add_step("refuse", refuse).build(register=False), PAPERS)
    assert sorted(SEEN) == [(f"read[{n}]", f"4111-{n}", len(LARGE)) for n in range(3)]
    SEEN.clear()
    together = orchestrator.start(bulk().add_step("refuse", refuse).build(register=False), PAPERS)

    assert SEEN == [[len(LARGE)] * 3]
    assert (apart.status, together.status) == ("compensated", "compensated")


def test_what_is_secret_in_items_is_not_shown_and_their_history_has_no_data(
    orchestrator_with: Callable[..., Orchestrator],
) -> None:
    run = orchestrator_with(redact="*card*").start(each().build(), PAPERS)

    assert "4111-1" not in repr(run.history())
    assert all("items" not in (event.payload or {}) for event in run.history())
