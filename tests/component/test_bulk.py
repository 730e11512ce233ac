"""One verb for many runs, over memory and Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from multiagents import Orchestrator, RunStatus, WorkflowBuilder
from multiagents.exceptions import StateStoreError, WorkflowError
from multiagents.orchestrator import Run
from multiagents.orchestrator.api import bulk

ORDER = WorkflowBuilder("bulk-order").add_step("reserve", "reserve_stock", external=True).build(register=False)
RETURN = WorkflowBuilder("bulk-return").add_step("reserve", "reserve_stock").build(register=False)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PAGE", 3)


def begin(orchestrator: Orchestrator, count: int, **fields: Any) -> list[str]:
    names = [f"order-{number}" for number in range(count)]
    for number, name in enumerate(names):
        orchestrator.start(ORDER, {}, name, attributes={"customer": f"c-{number % 2}"}, **fields)
    return names


def test_all_runs_that_a_filter_finds_are_cancelled_and_the_others_left(orchestrator: Orchestrator) -> None:
    names = begin(orchestrator, 8)
    orchestrator.start(RETURN, {}, "return-1", attributes={"customer": "c-1"})

    result = orchestrator.bulk("cancel", ORDER, attributes={"customer": "c-1"}, reason="closed", actor="ann")

    asked = [name for name in names if orchestrator.store.load(name).state.cancel_requested]
    assert asked == names[1::2]
    assert result.counts == {"compensating": 4}
    assert sorted(result.outcomes["compensating"]) == names[1::2]
    assert (len(result), result.errors, result.cursor) == (4, {}, None)
    said = [event for event in orchestrator.get(names[1]).history() if getattr(event, "actor", None) == "ann"]
    assert [event.reason for event in said] == ["closed"]


def test_a_dry_run_tells_what_would_be_done_and_does_nothing(
    orchestrator: Orchestrator, end_run: Callable[..., None]
) -> None:
    names = begin(orchestrator, 5)
    end_run(names[0])

    cancel = orchestrator.bulk("cancel", ORDER, dry_run=True)
    delete = orchestrator.bulk("delete", ORDER, dry_run=True)

    assert {key: sorted(found) for key, found in cancel.outcomes.items()} == {"would_cancel": names[1:]}
    assert delete.outcomes == {"would_delete": names[:1]}
    assert orchestrator.count(status="running") == 4
    assert not any(orchestrator.store.load(name).state.cancel_requested for name in names)


def test_only_runs_in_whose_status_the_verb_does_something_are_touched(
    orchestrator: Orchestrator, end_run: Callable[..., None]
) -> None:
    names = begin(orchestrator, 6)
    for name in names[:4]:
        end_run(name, "failed" if name == names[0] else "completed")

    assert orchestrator.bulk("cancel", status=["completed", "failed"]).outcomes == {}
    assert orchestrator.bulk("delete", status=[]).outcomes == {}
    assert orchestrator.bulk("delete", status=[], attributes={"customer": "c-0"}).outcomes == {}
    assert orchestrator.count(status=[]) == orchestrator.count(status=[], attributes={"customer": "c-0"}) == 0
    assert orchestrator.bulk("delete", status=["failed", "running"]).outcomes == {"done": [names[0]]}
    assert orchestrator.bulk("delete", status=list(RunStatus)).counts == {"done": 3}
    assert len(orchestrator.deleted()) == 4
    assert orchestrator.count() == orchestrator.count(status="running") == 2


@pytest.mark.parametrize("filters", [{"workflow": ORDER}, {"attributes": {"customer": "c-0"}}])
def test_a_call_is_bounded_and_goes_on_from_its_cursor(
    orchestrator: Orchestrator, end_run: Callable[..., None], filters: dict[str, Any]
) -> None:
    for name in begin(orchestrator, 16):
        end_run(name)
    total = orchestrator.count(**filters)

    counts, cursor = [], None
    while len(counts) < 20:
        result = orchestrator.bulk("delete", **filters, limit=5, cursor=cursor)
        counts.append(len(result))
        cursor = result.cursor
        if cursor is None:
            break

    assert sum(counts) == total
    assert max(counts) <= 5
    assert orchestrator.count(**filters) == 0


def test_what_goes_wrong_with_one_run_is_told_and_the_others_are_done(
    orchestrator: Orchestrator, end_run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = begin(orchestrator, 4)
    for name in names:
        end_run(name)
    listed = orchestrator.store.visibility.list_runs

    def list_and_lose_one(**asked: Any) -> Any:
        page = listed(**asked)
        if names[2] in page.transaction_ids:
            orchestrator.store.forget(orchestrator.store.load(names[2]).state.identity)
        return page

    monkeypatch.setattr(orchestrator.store.visibility, "list_runs", list_and_lose_one)

    result = orchestrator.bulk("delete", ORDER)

    assert sorted(result.outcomes["done"]) == [names[0], names[1], names[3]]
    assert result.outcomes["WorkflowNotFoundError"] == [names[2]]
    assert "there is no run 'order-2'" in result.errors[names[2]]


def test_a_store_that_is_away_ends_the_call_where_it_can_be_taken_up_again(
    orchestrator: Orchestrator, end_run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in begin(orchestrator, 8):
        end_run(name)
    delete, calls = Run.delete, []

    def fail_at_the_fifth(self: Run, *, reason: str | None = None, actor: str | None = None) -> None:
        calls.append(self)
        if len(calls) == 5:
            raise StateStoreError("it does not answer")
        delete(self, reason=reason, actor=actor)

    monkeypatch.setattr(Run, "delete", fail_at_the_fifth)

    broken = orchestrator.bulk("delete", ORDER)
    assert broken.counts == {"done": 4, "StateStoreError": 1}
    assert broken.cursor is not None
    rest = orchestrator.bulk("delete", ORDER, cursor=broken.cursor)

    assert (rest.counts, rest.cursor) == ({"done": 4}, None)
    assert orchestrator.count() == 0


def test_runs_are_paused_and_resumed_together(orchestrator: Orchestrator, end_run: Callable[..., None]) -> None:
    names = begin(orchestrator, 4)
    end_run(names[0])

    paused = orchestrator.bulk("pause", ORDER, reason="the other side is away")
    resumed = orchestrator.bulk("resume", ORDER)

    assert (paused.counts, resumed.counts) == ({"paused": 3}, {"running": 3})
    assert orchestrator.bulk("terminate", ORDER).counts == {"terminated": 3}


def test_any_verb_of_a_run_with_a_reason_and_an_actor_will_do(orchestrator: Orchestrator) -> None:
    names = begin(orchestrator, 4)

    result = orchestrator.bulk("set_attributes", ORDER, arguments={"attributes": {"region": "eu"}})

    assert {"cancel", "delete", "set_attributes"} <= set(bulk.verbs())
    assert result.counts == {"done": 4}
    assert orchestrator.count(attributes={"region": "eu"}) == len(names)


def test_a_call_that_was_not_understood_does_nothing(orchestrator: Orchestrator) -> None:
    begin(orchestrator, 1)

    with pytest.raises(
        WorkflowError,
        match=r"there is no bulk verb 'cancle'; did you mean \"cancel\"\? \(verbs: abandon, approve, cancel",
    ):
        orchestrator.bulk("cancle", ORDER)
    with pytest.raises(WorkflowError, match=r"no bulk verb 'result'"):
        orchestrator.bulk("result", ORDER)
    with pytest.raises(WorkflowError, match=r"bulk\('cancel'\) was given no filter, and would be for every run"):
        orchestrator.bulk("cancel")
    with pytest.raises(
        WorkflowError, match=r"arguments=.*unexpected keyword argument 'steps'; expected what run.cancel"
    ):
        orchestrator.bulk("cancel", ORDER, arguments={"steps": 1})
    with pytest.raises(WorkflowError, match="there is no status 'runing'"):
        orchestrator.bulk("cancel", status="runing")

    assert orchestrator.count(status="running") == 1
