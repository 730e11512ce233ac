"""The journal of the calls inside a step (rule S35): one suite over memory and Redis."""

from __future__ import annotations

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from multiagents import failpoints
from multiagents.exceptions import DecodeError, StateStoreError
from multiagents.failpoints import WriteSite
from multiagents.names import Correlation, Direction
from multiagents.plain_json import canonical
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.payloads.codecs.cryptography import AESGCMCodec
from multiagents.state_store.payloads.codecs.gzip import GzipCodec
from multiagents.state_store.payloads.offload.memory import InMemoryPayloadStore
from multiagents.state_store.payloads.redaction import redactor
from multiagents.state_store.records import (
    Begun,
    Call,
    CallState,
    CallVerdict,
    Commit,
    Delivery,
    Dispatch,
    Opened,
    Request,
    StepUsage,
    Usage,
)
from multiagents.workflow.state import RunStatus
from tests.support.journaled import Agent, hash_of
from tests.support.store_kit import RUN, STEP, RedisKit, StoreKit

#: What no attempt writes.
BY_PEOPLE = {"JOURNAL_RESTART", "JOURNAL_DECIDE"}
LIVE, REPLAY, AGAIN, DOUBT = CallVerdict.LIVE, CallVerdict.REPLAY, CallVerdict.AGAIN, CallVerdict.DOUBT
PAID = Usage(100, 20, 300)


@pytest.fixture
def agent(kit: StoreKit) -> Agent:
    return Agent(kit)


def verdicts(*begun: Begun) -> list[str]:
    return [each.verdict.value for each in begun]


# --- replay ----------------------------------------------------------------------------------------------------------


def test_S35_a_call_is_written_down_before_it_is_made_and_answered_once(agent: Agent) -> None:
    begun = agent.asks("hello?")
    assert begun == Begun(LIVE, "1", occurrence=1)
    assert agent.states() == [("1", "started")]

    assert agent.hears(begun, {"text": "hi"})

    [record] = agent.journal.calls(RUN)
    assert (record.state, record.request, record.answer) == (CallState.ANSWERED, "hello?", {"text": "hi"})
    assert (record.name, record.kind, record.hash) == ("small", "lm", hash_of("hello?"))
    assert record.finished is not None
    assert record.finished >= record.started


def test_S35_a_lost_attempt_is_answered_what_the_one_before_it_was(agent: Agent) -> None:
    agent.asked("one?", 1, PAID)
    agent.asked("two?", None, PAID)
    agent.is_lost()

    again = [agent.asks("one?"), agent.asks("two?"), agent.asks("three?")]

    assert [(each.verdict, each.answer) for each in again] == [(REPLAY, 1), (REPLAY, None), (LIVE, None)]
    assert again[2].diverged is False


def test_S35_what_is_replayed_is_counted_as_that_and_nothing_else(agent: Agent) -> None:
    agent.asked("one?", 1, Usage(100, 20, 300, "small-2026"))
    for _ in range(3):
        agent.is_lost()
        agent.asks("one?")

    usage = agent.usage()

    assert usage == StepUsage(1, 3, 0, 100, 20, 300, usage.latency, ("small", "small-2026"))
    assert [record.replayed for record in agent.journal.calls(RUN)] == [3]


def test_S35_equal_calls_get_their_answers_in_their_order(agent: Agent) -> None:
    for number in range(3):
        agent.asked("dice?", number)
    agent.is_lost()

    assert [agent.asks("dice?").answer for _ in range(3)] == [0, 1, 2]
    assert agent.asks("dice?").verdict is LIVE


@pytest.mark.parametrize("seed", range(5))
def test_S35_equal_calls_made_at_once_get_one_answer_each_whatever_their_order(agent: Agent, seed: int) -> None:
    chance = random.Random(seed)
    texts = chance.choices(["a?", "b?"], k=8)
    begun = [(text, agent.asks(text)) for text in texts]
    chance.shuffle(begun)
    for number, (text, each) in enumerate(begun):
        agent.hears(each, f"{text} {number}")
    agent.is_lost()
    chance.shuffle(texts)

    again = [(text, agent.asks(text)) for text in texts]

    assert {each.verdict for _, each in again} == {REPLAY}
    assert Counter(each.answer for _, each in again) == Counter(f"{text} {n}" for n, (text, _) in enumerate(begun))
    assert all(each.answer.startswith(text) for text, each in again)


def test_S35_equal_calls_of_many_threads_get_one_answer_each(agent: Agent) -> None:
    def asks(number: int) -> Begun:
        return agent.journal.begin(agent.correlation, agent.owner, Call("lm", "dice", number))

    with ThreadPoolExecutor(8) as threads:
        live = list(threads.map(asks, range(1, 41)))
        list(threads.map(lambda each: agent.hears(each, f"of {each.slot}"), live))
        agent.is_lost()
        again = list(threads.map(asks, range(1, 41)))

    assert {each.verdict for each in live} == {LIVE}
    assert sorted(each.occurrence for each in live) == list(range(1, 41))
    assert {each.verdict for each in again} == {REPLAY}
    assert sorted(each.answer for each in again) == sorted(f"of {each.slot}" for each in live)


def test_S35_a_call_of_another_kind_or_step_or_direction_is_another_call(kit: StoreKit) -> None:
    agent = Agent(kit)
    agent.asked("one?", 1)

    assert agent.asks("one?", kind="tool").occurrence == 1
    for other in (Agent(kit, "order-5"), Agent(kit, "order-6", step="fraud"), Agent(kit, "order-7", undo=True)):
        assert other.asks("one?").verdict is LIVE


def test_S35_an_error_is_replayed_as_an_error(agent: Agent) -> None:
    agent.hears(agent.uses(), "ValueError: no", failed=True)
    agent.is_lost()

    again = agent.uses()

    assert (again.verdict, again.failed, again.answer) == (REPLAY, True, "ValueError: no")
    assert agent.states() == [("1", "failed")]


# --- what may come twice ---------------------------------------------------------------------------------------------


def test_a_call_that_is_asked_for_twice_with_its_number_is_one_call(agent: Agent) -> None:
    first = agent.asks("dice?")
    second = agent.asks("dice?")

    assert agent.asks("dice?", number=1) == first
    assert agent.asks("dice?", number=2) == second
    agent.hears(first)
    assert agent.asks("dice?", number=1) == first
    assert agent.usage().calls == 2


def test_a_replay_that_is_asked_for_twice_is_one_replay(agent: Agent) -> None:
    agent.asked("one?", 1)
    agent.is_lost()

    assert agent.asks("one?", number=1) == agent.asks("one?", number=1)
    assert agent.usage().replayed == 1


def test_an_answer_that_is_written_twice_is_counted_once(agent: Agent) -> None:
    begun = agent.asks()

    assert [agent.hears(begun, 1, PAID), agent.hears(begun, 2, PAID)] == [True, True]

    assert agent.usage().micro_usd == PAID.micro_usd
    assert agent.is_lost().asks().answer == 1


def test_an_attempt_that_is_opened_twice_is_one_attempt(agent: Agent) -> None:
    agent.asked()
    agent.is_lost()

    assert agent.opens(seed="1") == agent.opens(seed="2") == Opened({"seed": "1"}, 1)
    assert agent.asks().verdict is REPLAY


# --- what nobody has answered ----------------------------------------------------------------------------------------


def test_S35_a_call_that_nobody_has_answered_is_begun_again_and_said_to_be_possibly_twice(agent: Agent) -> None:
    agent.asks("one?")
    agent.is_lost()

    again = agent.asks("one?")

    assert (again.verdict, again.slot, again.twice, again.diverged) == (AGAIN, "1", True, False)
    agent.hears(again, 1, PAID)
    usage = agent.usage()
    assert (usage.calls, usage.possibly_paid_twice, usage.replayed) == (1, 1, 0)
    assert [(record.attempt, record.twice) for record in agent.journal.calls(RUN)] == [(2, 1)]


def test_S35_a_call_that_may_come_twice_bears_no_mark(agent: Agent) -> None:
    agent.uses()
    agent.is_lost()

    again = agent.uses(idempotent=True)

    assert (again.verdict, again.twice, agent.usage().possibly_paid_twice) == (AGAIN, False, 0)


def test_S35_a_call_that_must_not_come_twice_is_in_doubt_and_nothing_is_written(agent: Agent) -> None:
    agent.uses(again=False)
    agent.is_lost()
    before = agent.kit.stored()

    doubt = agent.uses(again=False)

    assert (doubt.verdict, doubt.slot, doubt.occurrence) == (DOUBT, "1", 1)
    assert agent.kit.stored() == before


def test_S35_who_has_found_out_what_became_of_a_doubtful_call_writes_it_down_and_it_is_replayed(agent: Agent) -> None:
    agent.uses(again=False)
    agent.is_lost()
    doubt = agent.uses(again=False)

    assert agent.hears(doubt, "booked")

    assert agent.uses(again=False, strict=True).answer == "booked"
    assert agent.usage().possibly_paid_twice == 0


# --- refused ---------------------------------------------------------------------------------------------------------


def test_S35_what_made_an_attempt_fail_is_asked_anew_and_what_came_before_it_is_replayed(agent: Agent) -> None:
    agent.asked("one?", 1, PAID)
    bad = agent.asked("two?", "garbage", PAID)
    assert agent.refuses(bad.slot, why="no JSON")
    agent.is_lost()

    assert agent.opens().recorded == 1
    assert verdicts(agent.asks("one?"), agent.asks("two?")) == ["replay", "live"]

    records = agent.journal.calls(RUN)
    assert [(record.state.name, record.occurrence, record.why) for record in records] == [
        ("ANSWERED", 1, ""),
        ("REFUSED", 1, "no JSON"),
        ("STARTED", 2, ""),
    ]
    assert records[1].answer == "garbage"
    assert agent.usage().micro_usd == 2 * PAID.micro_usd


def test_S35_a_replayed_answer_may_be_refused_too_and_twice_is_once(agent: Agent) -> None:
    agent.asked("one?", "garbage")
    agent.is_lost()
    slot = agent.asks("one?").slot

    assert [agent.refuses(slot), agent.refuses(slot)] == [True, True]

    assert agent.asks("one?").verdict is LIVE
    agent.is_lost()
    assert agent.opens().recorded == 0


def test_S35_a_call_that_was_refused_without_an_answer_is_asked_anew(agent: Agent) -> None:
    agent.refuses(agent.asks("one?").slot)
    agent.is_lost()

    assert agent.asks("one?").verdict is LIVE


# --- what a person decides --------------------------------------------------------------------------------------------


def test_S35_the_first_decision_upon_a_call_counts_and_every_attempt_is_given_it(agent: Agent) -> None:
    asked = agent.uses("pay", kind="approval", again=False)
    agent.is_lost()
    waits = agent.uses("pay", kind="approval", again=False)

    first = agent.decides(asked.slot, {"approved": True, "actor": "ann"})
    second = agent.decides(asked.slot, {"approved": False, "actor": "bob"})

    assert (asked.verdict, waits.verdict, waits.slot) == (LIVE, CallVerdict.DOUBT, asked.slot)
    assert waits.waited_ms >= asked.waited_ms == 0
    assert first == (True, {"approved": True, "actor": "ann"})
    assert second == (False, {"approved": True, "actor": "ann"})
    agent.is_lost()
    for _ in range(2):
        replayed = agent.uses("pay", kind="approval", again=False)
        assert (replayed.verdict, replayed.answer) == (REPLAY, {"approved": True, "actor": "ann"})
        agent.is_lost()


def test_what_is_asked_of_people_is_no_call_that_was_paid(agent: Agent) -> None:
    agent.asked()
    agent.uses("pay", kind="approval", again=False)

    assert agent.usage().calls == 1


def test_there_is_nothing_to_decide_of_a_call_of_another_kind_or_of_none(agent: Agent) -> None:
    tool = agent.uses("pay")

    assert agent.decides(tool.slot, {}) is None
    assert agent.decides("77", {}) is None
    assert agent.journal.decide(f"{agent.id}~another", STEP, tool.slot, {}) is None


# --- diverged --------------------------------------------------------------------------------------------------------


def test_S35_it_is_known_how_often_the_same_was_asked_and_not_answered_also_by_earlier_attempts(agent: Agent) -> None:
    told = []
    for attempts in range(2):
        for _ in range(2):
            begun = agent.asks("question")
            told.append(begun.unanswered)
            agent.refuses(begun.slot)
        if not attempts:
            agent.is_lost()
    begun = agent.asks("question")
    again = agent.asks("question", number=agent.number)

    assert told == [0, 1, 2, 3]
    assert (begun.unanswered, again.unanswered, begun.verdict) == (4, 4, LIVE)
    assert [state for _, state in agent.states()] == ["unanswered"] * 4 + ["started"]
    agent.hears(begun, "at last")
    agent.refuses(begun.slot)
    assert agent.asks("question").unanswered == 0


def test_S35_a_call_that_no_attempt_has_made_while_answers_lie_there_is_said_to_diverge_once(agent: Agent) -> None:
    agent.asked("one?")
    agent.asked("two?")
    agent.is_lost()

    told = [agent.asks(text).diverged for text in ("one?", "other?", "another?")]

    assert told == [False, True, False]
    assert agent.asks("other?", number=2).diverged is True


def test_S35_the_first_call_past_the_recorded_ones_does_not_diverge(agent: Agent) -> None:
    agent.asked("one?")
    agent.asks("two?")
    agent.is_lost()

    assert [agent.asks(text, strict=True).diverged for text in ("one?", "two?", "three?")] == [False] * 3


def test_S35_who_wants_to_know_before_is_told_of_a_divergence_and_nothing_is_written(agent: Agent) -> None:
    agent.asked("one?")
    agent.is_lost()
    before = agent.kit.stored()

    told = agent.asks("other?", strict=True)

    assert (told.verdict, told.slot, told.diverged) == (CallVerdict.DIVERGED, "", True)
    assert agent.kit.stored() == before
    assert verdicts(agent.asks("one?", number=1, strict=True), agent.asks("other?", strict=True)) == ["replay", "live"]


def test_S35_answers_that_were_refused_are_none_to_diverge_from(agent: Agent) -> None:
    agent.refuses(agent.asked("one?").slot)
    agent.is_lost()

    assert agent.asks("other?", strict=True).verdict is LIVE


# --- whose attempt it is ---------------------------------------------------------------------------------------------


def test_S35_who_does_not_hold_the_attempt_begins_nothing(agent: Agent) -> None:
    agent.asked("one?")
    stranger = agent.journal
    before = agent.kit.stored()

    for correlation, owner in ((agent.correlation, "another"), (agent.of(2), agent.owner)):
        assert stranger.begin(correlation, owner, Call("lm", "h", 1)).verdict is CallVerdict.LOST
        assert stranger.open(correlation, owner, {"seed": "2"}) == Opened({"seed": "2"}, 0, lost=True)
        assert not stranger.refuse(correlation, owner, ["1"], "why not")

    assert agent.kit.stored() == before


def test_S35_what_a_zombie_is_answered_is_evidence_and_no_result(agent: Agent) -> None:
    begun = agent.asks("one?")
    zombie = agent.correlation, agent.owner
    agent.is_lost()

    late = [agent.journal.finish(*zombie, begun.slot, text, PAID) for text in ("late", "later")]

    assert late == [False, False]
    assert agent.asks("one?").verdict is AGAIN
    agent.hears("1", "new", PAID)
    found = [(record.state.name, record.attempt, record.answer) for record in agent.journal.calls(RUN)]
    assert found == [("ANSWERED", 2, "new"), ("EVIDENCE", 1, "late")]
    assert agent.usage().micro_usd == 2 * PAID.micro_usd
    assert agent.is_lost().asks("one?").answer == "new"


def test_of_late_answers_so_many_are_kept(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    patched(monkeypatch, "MAX_EVIDENCE", 2)
    slots = [agent.asks(f"{number}?").slot for number in range(3)]
    zombie = agent.correlation, agent.owner
    agent.is_lost()

    for slot in slots:
        agent.journal.finish(*zombie, slot, "late", PAID)

    assert [state for _, state in agent.states()].count("evidence") == 2


def test_an_answer_to_a_call_that_is_not_there_is_nothing(agent: Agent) -> None:
    assert agent.hears("7", "what?")
    assert not agent.journal.finish(agent.of(9), "x", "7", "what?")

    assert agent.journal.calls(RUN) == []


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_S35_a_tool_is_called_as_often_as_the_step_may_all_attempts_together(agent: Agent) -> None:
    bad = agent.uses(arguments="1", most=2)
    agent.hears(bad)
    agent.refuses(bad.slot)
    agent.hears(agent.uses(arguments="2", most=2))
    agent.is_lost()

    told = [agent.uses(arguments=text, most=2) for text in ("2", "1", "3")]

    assert verdicts(*told) == ["replay", "full", "full"]
    assert told[1] == Begun(CallVerdict.FULL, bound=2)
    assert agent.uses("book", most=2).verdict is LIVE
    assert agent.usage().calls == 3


def test_a_step_makes_so_many_calls_and_no_more(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    patched(monkeypatch, "MAX_CALLS", 2)
    agent.asked("one?")
    agent.asked("two?")

    assert agent.asks("three?") == Begun(CallVerdict.FULL, bound=2)


def patched(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    for where in ("memory", "redis"):
        monkeypatch.setattr(f"multiagents.state_store.{where}.journal.{name}", value)


# --- cancel and pause ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["stop", "held"])
def test_S20_S22_no_call_is_begun_or_replayed_in_a_run_that_is_to_stop_or_is_paused(agent: Agent, field: str) -> None:
    agent.asked("one?")
    agent.is_lost()
    agent.kit.store.commit(Commit(RUN, [], header={field: "1"}))

    told = [agent.asks("one?"), agent.asks("two?")]

    assert verdicts(*told) == ["stopped", "stopped"]
    assert {(each.cancelled, each.paused) for each in told} == {(field == "stop", field == "held")}
    assert agent.states() == [("1", "answered")]


def test_S20_what_was_under_way_when_the_run_was_to_stop_is_answered(agent: Agent) -> None:
    begun = agent.asks("one?")
    agent.kit.store.commit(Commit(RUN, [], header={"stop": "1"}))

    assert agent.asks("one?", number=1) == begun._replace(cancelled=True)
    assert agent.hears(begun)


def test_S20_an_undo_makes_its_calls_in_a_run_that_is_to_stop(kit: StoreKit) -> None:
    agent = Agent(kit, undo=True)
    kit.store.commit(Commit(RUN, [], header={"stop": "1"}))

    begun = agent.asks("one?")

    assert (begun.verdict, begun.cancelled) == (LIVE, True)
    agent.hears(begun, 1)
    assert [record.direction for record in agent.journal.calls(RUN)] == [Direction.UNDO]


# --- pins, and beginning afresh --------------------------------------------------------------------------------------


def test_S35_what_the_first_attempt_has_fixed_the_others_are_given(agent: Agent) -> None:
    assert agent.opens(seed="7", dspy="3.4") == Opened({"seed": "7", "dspy": "3.4"}, 0)
    agent.asked()
    agent.is_lost()

    assert agent.opens(seed="8", adapter="chat") == Opened({"seed": "7", "dspy": "3.4"}, 1)


def test_S35_a_step_that_begins_afresh_replays_nothing_and_what_there_was_stays_counted(agent: Agent) -> None:
    agent.opens(seed="7")
    agent.asked("one?", 1, PAID)
    agent.is_lost(taken=False)
    assert agent.journal.restart(RUN, STEP)
    assert agent.journal.restart(RUN, STEP)
    agent._take(sent=True)

    assert agent.opens(seed="8") == Opened({"seed": "8"}, 0)
    assert agent.asks("one?", strict=True) == Begun(LIVE, "2", occurrence=1)

    assert [(record.journal, record.slot, record.answer) for record in agent.journal.calls(RUN)] == [
        (1, "1", 1),
        (2, "2", None),
    ]
    assert (agent.usage().calls, agent.usage().micro_usd) == (2, PAID.micro_usd)


def test_a_step_that_somebody_holds_or_that_is_not_there_does_not_begin_afresh(agent: Agent) -> None:
    agent.asked("one?")

    assert not agent.journal.restart(RUN, STEP)
    assert not agent.journal.restart("nobody", STEP)
    assert agent.is_lost().asks("one?").verdict is REPLAY


# --- what it takes ---------------------------------------------------------------------------------------------------


def growing_list(number: int) -> str:
    messages = [{"content": "y" * 268 + f"{each:04}", "role": "user"} for each in range(number + 1)]
    return canonical({"messages": messages, "model": "small", "tail": "t" * 160})


def growing_message(number: int) -> str:
    said = "".join(f"{each:04}" + "y" * 296 for each in range(number + 1))
    return canonical({"messages": [{"content": said + "t" * 170, "role": "user"}], "model": "small"})


@pytest.mark.parametrize("grown", [growing_list, growing_message])
def test_S35_a_conversation_takes_the_space_that_it_has_once(agent: Agent, grown: Any) -> None:
    turns, answer = 200, "a" * 198
    before = stored_bytes(agent.kit)
    for number in range(turns):
        agent.asked(grown(number), answer)

    tail = 200
    assert len(grown(1)) - len(grown(0)) in (300, 301)
    assert stored_bytes(agent.kit) - before < 1.2 * turns * (300 + tail + len(answer) + 2)
    assert agent.journal.calls(RUN)[-1].request == json.loads(grown(turns - 1))


def stored_bytes(kit: StoreKit) -> int:
    """Of the journal, and of what lies apart: names and texts."""
    stored = kit.stored()
    return sum(len(text.encode()) for kind in ("journal", "blobs") for pair in stored[kind].items() for text in pair)


def test_S35_a_request_is_told_by_one_of_an_earlier_attempt(agent: Agent) -> None:
    agent.asked(growing_list(0))
    agent.asked(growing_list(1))
    agent.is_lost()

    for number in range(3):
        agent.asks(growing_list(number))

    assert [record.request for record in agent.journal.calls(RUN)] == [json.loads(growing_list(n)) for n in range(3)]


def test_a_call_takes_one_round_trip_and_its_answer_another(redis_kit: RedisKit) -> None:
    agent = Agent(redis_kit)
    agent.asked("warm?")
    redis_kit.client.config_resetstat()

    agent.asked("one?")
    agent.usage()

    stats = redis_kit.client.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 2
    assert "cmdstat_hgetall" not in stats


def test_what_steps_have_used_is_read_at_once_and_steps_without_calls_are_not_in_it(kit: StoreKit) -> None:
    agent = Agent(kit)
    agent.asked("one?", 1, PAID)
    agent.opens()

    assert list(kit.store.journal.usage(RUN, [STEP, "fraud", "never"])) == [STEP]
    assert kit.store.journal.usage(RUN, []) == kit.store.journal.usage("nobody", [STEP]) == {}
    assert kit.store.journal.calls("nobody") == []


def test_calls_are_shown_in_the_order_in_which_they_were_begun_and_of_one_step_if_asked(kit: StoreKit) -> None:
    agent = Agent(kit)
    for number in range(12):
        agent.asked(f"{number}?")

    assert [record.slot for record in agent.journal.calls(RUN)] == [str(number) for number in range(1, 13)]
    assert [record.request for record in agent.journal.calls(RUN, STEP)] == [f"{number}?" for number in range(12)]
    assert agent.journal.calls(RUN, "fraud") == []
    assert agent.journal.calls(RUN, last=3) == agent.journal.calls(RUN)[-3:]
    assert agent.journal.calls(RUN, last=0) == []


@pytest.mark.parametrize("step", ["research[3]", "research#2", "a.b:c@d-e"])
def test_the_calls_of_one_of_many_items_are_found_by_its_name(kit: StoreKit, step: str) -> None:
    kit.begin()
    journal, many = kit.store.journal, 700  # more than Redis keeps in one piece
    of = {name: Correlation(RUN, name, Direction.DO, 1) for name in (step, "research3")}
    held = [Dispatch(name, "d1", Delivery.CLAIMED, "owner-1", "w", delay_ms=60_000) for name in of]
    kit.store.commit(Commit(RUN, [], dispatches=held))
    for number in range(1, many):
        assert journal.begin(of["research3"], "owner-1", Call("tool", str(number), number)).verdict is LIVE
    assert journal.begin(of[step], "owner-1", Call("lm", "one", 1)).verdict is LIVE

    assert [(record.step, record.hash) for record in journal.calls(RUN, step)] == [(step, "one")]
    assert [len(journal.calls(RUN, name)) for name in ("research3", "research", None)] == [many - 1, 0, many]


# --- the form in which it is stored ----------------------------------------------------------------------------------

SECRET = "4111-1111"
POLICIES = {
    "plain": PayloadPolicy(),
    "encrypted": PayloadPolicy(codecs=(GzipCodec(least=0), AESGCMCodec({"2026": b"n" * 32}))),
    "apart": PayloadPolicy(claim_check_bytes=20),
    "encrypted-apart": PayloadPolicy(codecs=(AESGCMCodec({"2026": b"n" * 32}),), claim_check_bytes=20),
    "elsewhere": PayloadPolicy(claim_check_bytes=20, apart=InMemoryPayloadStore()),
    "redacted": PayloadPolicy(redact=redactor(["card"])),
}


@pytest.mark.parametrize("name", POLICIES)
def test_S35_a_replay_gives_the_true_answer_whatever_it_was_put_through(kit: StoreKit, name: str) -> None:
    kit.under(POLICIES[name])
    agent = Agent(kit)
    agent.opens(seed=SECRET)
    asked = canonical({"card": SECRET, "messages": ["!" * 40]})
    agent.asked("!hello", "short")
    agent.asked(asked, {"card": SECRET, "said": "x" * 40}, PAID)
    refused = agent.asked("!other", SECRET).slot
    agent.refuses(refused, why=f"!{SECRET}")
    agent.is_lost()

    assert agent.opens().pins == {"seed": SECRET}
    assert (agent.asks("!hello").answer, agent.asks(asked).answer) == ("short", {"card": SECRET, "said": "x" * 40})

    shown = agent.journal.calls(RUN)
    card = "[redacted]" if name == "redacted" else SECRET
    assert (shown[1].request["card"], shown[1].answer["card"], shown[2].why) == (card, card, f"!{SECRET}")
    assert (SECRET in repr(kit.stored()["journal"])) is (name not in ("encrypted", "encrypted-apart"))


def test_what_is_large_lies_apart_and_goes_with_the_run(kit: StoreKit) -> None:
    kit.under(PayloadPolicy(claim_check_bytes=200))
    agent = Agent(kit)
    agent.asked("q" * 300, "a" * 300)
    assert len(kit.stored()["blobs"]) == 2
    assert agent.journal.begin(agent.correlation, "another", Call("lm", "h", 9, request=Request(text="z" * 300)))
    assert len(kit.stored()["blobs"]) == 2

    kit.end()
    kit.store.forget(RUN)

    assert kit.stored() == {}


def test_S27_a_journal_that_was_damaged_is_named(agent: Agent) -> None:
    agent.asked("one?")

    agent.kit.spoil("journal", f"c|{STEP}|d|1", '["d"')

    with pytest.raises(DecodeError, match="the journal of run 'order-1' cannot be read"):
        agent.journal.calls(RUN)


# --- the run ---------------------------------------------------------------------------------------------------------


def forgotten(kit: StoreKit) -> None:
    kit.store.forget(f"{RUN}~old")


def deleted(kit: StoreKit) -> None:
    kit.store.delete(f"{RUN}~old", status=RunStatus.COMPLETED, tombstone="stone-1")


@pytest.mark.parametrize("goes", [forgotten, deleted, lambda _kit: None], ids=["forgotten", "deleted", "replaced"])
def test_S32_another_run_with_the_id_has_nothing_of_the_journal(kit: StoreKit, goes: Any) -> None:
    Agent(kit, nonce="old").asked("one?", 1)
    kit.end()
    goes(kit)

    new = Agent(kit, nonce="new", call="call-2", replaces=[RunStatus.COMPLETED])

    assert kit.store.journal.calls(RUN) == []
    assert kit.store.journal.usage(RUN, [STEP]) == {}
    assert new.asks("one?").verdict is LIVE


def test_a_journal_stays_as_long_as_the_run_that_is_over(agent: Agent) -> None:
    agent.asked("one?", 1)

    agent.kit.end()

    assert agent.states() == [("1", "answered")]
    assert not agent.hears("1", "late")


def test_S37_a_call_that_is_not_let_through_is_neither_counted_nor_made_twice_when_it_is(agent: Agent) -> None:
    first = agent.asks("hello?")
    assert agent.withholds(first)
    assert agent.states() == [("1", "withheld")]
    agent.is_lost()

    again = agent.asks("hello?", number=1)

    assert (again.verdict, again.slot, again.twice) == (LIVE, first.slot, False)
    agent.hears(again, "hi", PAID)
    assert (agent.usage().calls, agent.usage().possibly_paid_twice) == (1, 0)
    assert agent.states() == [("1", "answered")]


def test_S37_a_tool_that_may_have_been_called_before_is_in_doubt_whether_it_is_let_through_or_not(agent: Agent) -> None:
    agent.uses()
    agent.is_lost()
    agent.withholds(agent.uses(number=1))
    agent.is_lost()

    assert agent.uses(number=1).verdict is AGAIN

    assert agent.usage().possibly_paid_twice == 1


def test_S37_a_tool_that_was_not_let_through_was_not_called(agent: Agent) -> None:
    agent.withholds(agent.uses(again=False, most=1))
    agent.is_lost()

    assert agent.uses(again=False, most=1, number=1).verdict is LIVE


def test_only_who_holds_the_attempt_withholds_a_call(agent: Agent) -> None:
    begun = agent.asks("hello?")

    assert not agent.journal.withhold(agent.correlation, "another", begun.slot)

    assert agent.states() == [("1", "started")]


def test_S35_who_decides_upon_a_call_of_an_earlier_journal_is_told_that_nobody_waits_for_it(agent: Agent) -> None:
    pay = agent.uses("pay", kind="approval", again=False)
    agent.is_lost(taken=False)
    assert agent.journal.restart(RUN, STEP)
    assert agent.decides(pay.slot, {"approved": True}) is None
    agent._take(sent=True)
    agent.opens()

    assert agent.decides(pay.slot, {"approved": True}) is None
    assert not agent.asks("one?").diverged


# --- faults ----------------------------------------------------------------------------------------------------------

SITES = [site for site in WriteSite if site.name.startswith("JOURNAL_")]


def converse(agent: Agent, repeated: Any) -> Any:
    """All that an agent does with its journal, each repeated until it is answered; gives what there is to see of it."""
    said = [repeated(lambda: agent.opens(seed="7"))]
    one = repeated(lambda: agent.asks("one?", number=1))
    repeated(lambda: agent.hears(one, "hi", PAID))
    two = repeated(lambda: agent.asks("two?", number=2))
    repeated(lambda: agent.refuses(two.slot))
    agent.is_lost()
    said += [one, two, repeated(lambda: agent.opens(seed="8")), repeated(lambda: agent.asks("one?", number=1))]
    two = repeated(lambda: agent.asks("two?", number=2))
    said += [two, repeated(lambda: agent.withholds(two))]
    pay = repeated(lambda: agent.uses("pay", kind="approval", again=False, number=3))
    decided = repeated(lambda: agent.decides(pay.slot, {"approved": True}))
    said += [pay, decided.decision]
    agent.is_lost(taken=False)
    said.append(repeated(lambda: agent.journal.restart(agent.correlation.identity, STEP, agent.direction)))
    usage = agent.usage()._replace(latency=0)
    return said, usage, agent.states()


@pytest.mark.parametrize("is_made", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("site", SITES)
def test_G5_S35_who_never_hears_of_a_write_into_the_journal_repeats_it_and_nothing_is_different(
    redis_kit: RedisKit, site: WriteSite, is_made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = site.name.endswith("_UNDO")
    expected = converse(Agent(redis_kit, "order-5", undo=undo), lambda action: action())
    hit: list[WriteSite] = []

    def injector(at: WriteSite, action: Any) -> Any:
        if at is not site or len(hit) % 2:
            hit.extend([at] if at is site else [])
            return action()
        hit.append(at)
        if is_made:
            action()
        raise StateStoreError("nobody has heard of it")

    def repeated(action: Any) -> Any:
        try:
            return action()
        except StateStoreError:
            return action()

    agent = Agent(redis_kit, undo=undo)
    monkeypatch.setattr(failpoints, "injector", injector)

    assert converse(agent, repeated) == expected
    assert hit


def test_every_write_of_the_journal_has_a_site_for_each_direction() -> None:
    sites = {site.name for site in WriteSite if site.name.startswith("JOURNAL_")}

    going = {name.removesuffix("_UNDO") for name in sites} - BY_PEOPLE
    assert sites == going | {f"{name}_UNDO" for name in going} | BY_PEOPLE
