"""Calls of tools that are steps of their run, to be undone (rule S36): one suite over memory and Redis."""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import pytest

from multiagents.events import ErrorInfo, ErrorKind
from multiagents.names import Correlation, Direction
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.payloads.codecs.gzip import GzipCodec
from multiagents.state_store.records import CallVerdict, Commit, Verdict
from multiagents.workflow.decider import evolve
from multiagents.workflow.definition import StepKind
from multiagents.workflow.state import Activity, ActivityStatus, CalledTool, RunState, RunStatus
from tests.support.journaled import Agent
from tests.support.store_kit import FLOW, LIST, RUN, STEP, StoreKit

CALL = f"{STEP}.flight[0]"


@pytest.fixture
def agent(kit: StoreKit) -> Agent:
    return Agent(kit)


def calls(kit: StoreKit) -> dict[str, str]:
    """The calls that are steps of the run, and how it stands with each."""
    state = kit.store.load(RUN).state
    return {name: str(state.step(name).status) for name in state.called}


def history(kit: StoreKit) -> list[tuple[str, str | None]]:
    return [(getattr(event, "status", event.type), event.step) for event in kit.store.history(RUN)]


def folds(kit: StoreKit) -> bool:
    """Whether the calls are what the history makes of them."""
    told = [event for event in kit.store.history(RUN) if event.step and event.step != STEP]
    state = reduce(partial(evolve, FLOW), told, RunState(RUN, FLOW.name, status=RunStatus.RUNNING))
    stored = kit.store.load(RUN).state
    return state.called == stored.called and {name: stored.step(name) for name in state.called} == state.steps


def test_S36_a_call_is_a_step_in_the_write_that_begins_it(kit: StoreKit, agent: Agent) -> None:
    before = kit.store.load(RUN)
    begun = agent.books("flight", {"city": "Rome"})
    after = kit.store.load(RUN)

    assert (begun.verdict, begun.nth) == (CallVerdict.LIVE, 1)
    assert begun.state == after.state.step(CALL)
    assert after.state.called == {CALL: CalledTool("undo_flight", 1)}
    assert after.state.step(CALL).do.status is ActivityStatus.IN_FLIGHT
    assert after.definition.steps[CALL].kind is StepKind.CALL
    assert (after.version, after.epoch) == (before.version + 1, before.epoch)
    assert kit.store.payloads(RUN).inputs[CALL] == {"city": "Rome"}
    told = kit.store.history(RUN)[-1]
    assert (told.step, told.attempt, told.correlation_id) == (CALL, 1, f"{RUN}/{STEP}/do/1")
    assert told.id == f"{RUN}/called/{CALL}"
    assert folds(kit)


def test_S36_calls_are_counted_for_each_tool_and_in_their_order(kit: StoreKit, agent: Agent) -> None:
    agent.books("flight")
    agent.uses("search")
    agent.books("hotel")
    agent.books("flight", {"city": "Oslo"})

    called = kit.store.load(RUN).state.called
    names = sorted(called, key=lambda name: called[name].number)
    assert names == [f"{STEP}.flight[0]", f"{STEP}.hotel[0]", f"{STEP}.flight[1]"]
    assert folds(kit)


def test_a_decision_made_without_a_call_is_refused(kit: StoreKit, agent: Agent) -> None:
    seen = kit.store.load(RUN)
    begun = agent.books()
    assert kit.store.commit(Commit(RUN, [], version=seen.version)).verdict is Verdict.CONFLICT

    seen = kit.store.load(RUN)
    agent.has_booked(begun, {"booking": "B-1"})
    assert kit.store.commit(Commit(RUN, [], version=seen.version)).verdict is Verdict.CONFLICT


def test_what_was_decided_first_has_the_call_never_begin(kit: StoreKit, agent: Agent) -> None:
    seen = kit.store.load(RUN)
    ended = [(STEP, seen.in_flight[STEP].record)]
    assert kit.store.commit(Commit(RUN, [], version=seen.version, ends=ended)).verdict is Verdict.APPLIED

    assert agent.books().verdict is CallVerdict.LOST
    assert calls(kit) == {}


@pytest.mark.parametrize("header", [{"stop": "1"}, {"held": "1"}])
def test_no_call_begins_in_a_run_that_is_to_stop(kit: StoreKit, agent: Agent, header: dict[str, str]) -> None:
    kit.store.commit(Commit(RUN, [], header=header))
    before = kit.store.load(RUN)

    assert agent.books().verdict is CallVerdict.STOPPED
    assert kit.store.load(RUN).version == before.version
    assert calls(kit) == {}


def test_what_a_call_has_come_to_is_written_with_its_answer(kit: StoreKit, agent: Agent) -> None:
    agent.has_booked(agent.books("flight"), {"booking": "B-1"})
    agent.has_booked(agent.books("hotel"), error=ErrorInfo(type="SoldOut", message="no room"))
    agent.has_booked(agent.books("car"), error=ErrorInfo(type="Slow", message="late"), kind=ErrorKind.UNKNOWN)

    assert calls(kit) == {CALL: "succeeded", f"{STEP}.hotel[0]": "failed", f"{STEP}.car[0]": "unknown"}
    assert kit.store.payloads(RUN).results == {CALL: {"booking": "B-1"}}
    assert history(kit)[-2:] == [("called", f"{STEP}.car[0]"), ("error", f"{STEP}.car[0]")]
    assert kit.store.load(RUN).state.step(f"{STEP}.hotel[0]").do.error == ErrorInfo(type="SoldOut", message="no room")
    assert folds(kit)


def test_S35_a_call_that_is_replayed_is_no_second_step(kit: StoreKit, agent: Agent) -> None:
    agent.has_booked(agent.books(), {"booking": "B-1"})
    before = kit.stored()

    begun = agent.is_lost().books()
    assert (begun.verdict, begun.nth) == (CallVerdict.REPLAY, 1)
    assert list(calls(kit)) == [CALL]
    assert len(kit.stored()["history"]) == len(before["history"])


def test_S36_a_call_that_is_made_again_is_the_same_step(kit: StoreKit, agent: Agent) -> None:
    first = agent.books()
    again = agent.is_lost().books()

    assert (again.verdict, again.nth, again.state) == (CallVerdict.AGAIN, 1, first.state)
    agent.has_booked(again, {"booking": "B-1"})
    assert calls(kit) == {CALL: "succeeded"}
    assert folds(kit)


def test_a_call_that_is_sent_twice_is_one_step(kit: StoreKit, agent: Agent) -> None:
    first = agent.books()
    agent.number -= 1

    assert agent.books() == first
    assert list(calls(kit)) == [CALL]


def test_a_call_begun_before_its_tool_had_a_compensation_is_a_step_from_when_it_is_made_again(
    kit: StoreKit, agent: Agent
) -> None:
    agent.uses("flight", '{"city":"Rome"}')
    assert calls(kit) == {}

    assert agent.is_lost().books("flight").verdict is CallVerdict.AGAIN
    assert calls(kit) == {CALL: "scheduled"}


def test_S36_what_was_called_stays_to_be_undone_when_the_step_is_tried_afresh(kit: StoreKit, agent: Agent) -> None:
    agent.has_booked(agent.books(), {"booking": "B-1"})
    agent.is_lost(taken=False)
    agent.journal.restart(agent.correlation.identity, STEP)
    agent._take(sent=True)

    assert agent.books().verdict is CallVerdict.LIVE
    assert sorted(calls(kit)) == [CALL, f"{STEP}.flight[1]"]


def test_an_answer_of_who_has_lost_the_attempt_changes_nothing_of_the_step(kit: StoreKit, agent: Agent) -> None:
    begun = agent.books()
    agent.is_lost()
    agent.attempt -= 1

    assert agent.has_booked(begun, {"booking": "B-1"}) is False
    assert calls(kit) == {CALL: "scheduled"}


def test_its_undo_is_claimed_with_its_arguments_result_and_outcome(kit: StoreKit, agent: Agent) -> None:
    agent.has_booked(agent.books("flight", {"city": "Rome"}), {"booking": "B-1"})
    seen = kit.store.load(RUN)
    step = seen.state.step(CALL)
    kit.store.commit(
        Commit(
            RUN,
            [],
            steps={CALL: step._replace(undo=Activity(ActivityStatus.IN_FLIGHT, 1))},
            dispatches=[kit.message(RUN, CALL, "u1", LIST)],
            version=seen.version,
        )
    )

    attempt = Correlation(RUN, CALL, Direction.UNDO, 1)
    claim = kit.store.claim(attempt, FLOW.content_hash, owner="undoer", worker="w", timeout=None)
    assert claim.context == claim.input == {"city": "Rome"}
    assert (claim.result, claim.outcome) == ({"booking": "B-1"}, "succeeded")
    assert claim.definition.steps[CALL].compensation == "undo_flight"
    assert claim.state.called == {CALL: CalledTool("undo_flight", 1)}


def test_it_goes_through_codecs_and_lies_apart_where_the_rest_does(kit: StoreKit) -> None:
    kit.under(PayloadPolicy(codecs=(GzipCodec(least=0),), claim_check_bytes=200, redact=lambda _data: "hidden"))
    agent = Agent(kit)
    long: dict[str, Any] = {"city": "".join(map(chr, range(200, 1200)))}
    agent.has_booked(agent.books("flight", long), {"booking": long})
    agent.has_booked(agent.books("hotel", long), error=ErrorInfo(type="SoldOut", message="no room"))

    known = kit.store.payloads(RUN)
    assert (known.inputs[CALL], known.results[CALL]) == (long, {"booking": long})
    assert folds(kit)
    assert calls(kit) == {CALL: "succeeded", f"{STEP}.hotel[0]": "failed"}


def test_it_goes_with_its_run(kit: StoreKit, agent: Agent) -> None:
    agent.books()
    identity = agent.correlation.identity
    kit.store.delete(identity, status=kit.store.status(RUN), tombstone="{}")
    another = Agent(kit)

    assert calls(kit) == {}
    assert another.books().nth == 1


def test_a_call_in_an_undo_is_counted_apart(kit: StoreKit) -> None:
    agent = Agent(kit, undo=True)

    assert agent.uses("flight").nth == 1
    assert calls(kit) == {}


def test_an_outcome_that_was_told_before_by_who_had_lost_the_attempt_stays(kit: StoreKit, agent: Agent) -> None:
    agent.books()
    begun = agent.is_lost().books()
    seen = kit.store.load(RUN)
    succeeded = seen.state.step(CALL)._replace(do=Activity(ActivityStatus.SUCCEEDED, 1, finished_at=7))
    kit.store.commit(Commit(RUN, [], steps={CALL: succeeded}, results={CALL: "first"}, version=seen.version))

    assert agent.has_booked(begun, "second")
    assert kit.store.load(RUN).state.step(CALL) == succeeded
    assert kit.store.payloads(RUN).results[CALL] == "first"
