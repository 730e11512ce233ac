"""The journal in memory and on Redis go through the same random calls, and hold the same (rule S35)."""

from __future__ import annotations

import random
from typing import Any

import pytest

from multiagents.keys import Keys
from multiagents.state_store.records import Begun, CallState, CallVerdict, Usage
from multiagents.state_store.records.journal_fields import Evidence, Head, StoredCall
from tests.support.journaled import Agent
from tests.support.store_kit import RUN, STEP, MemoryKit, RedisKit, StoreKit

ANSWERED = (CallState.ANSWERED, CallState.FAILED)


class Play:
    """One agent that does what chance says: equal and different calls, some answered, refused or sent twice."""

    def __init__(self, kit: StoreKit, seed: int) -> None:
        self.chance = random.Random(seed)
        self.agent = Agent(kit)
        self.open: list[str] = []
        self.slots: list[str] = []
        self.waiting: list[str] = []
        #: call -> the first decision upon it
        self.decided: dict[str, Any] = {}
        self.zombies: list[tuple[Any, str, str]] = []
        self.told: list[Any] = []

    def step(self) -> None:
        doing = self.chance.choices(
            [
                self.asks,
                self.answers,
                self.refuses,
                self.withholds,
                self.repeats,
                self.is_lost,
                self.speaks_late,
                self.begins_afresh,
                self.asks_a_person,
                self.a_person_decides,
            ],
            [10, 8, 1, 1, 2, 1, 1, 0.3, 3, 3],
        )[0]
        self.told.append((doing.__name__, doing()))

    def asks(self) -> Any:
        chance, agent = self.chance, self.agent
        text = chance.choice(["one?", "two?", "three?", "long " * chance.randrange(1, 4)])
        strict, again, idempotent = (chance.random() < 0.2 for _ in range(3))
        fields: Any = {"strict": strict, "again": not again, "idempotent": idempotent}
        begun = agent.uses(arguments=text, most=6, **fields) if chance.random() < 0.4 else agent.asks(text, **fields)
        if begun.verdict in (CallVerdict.LIVE, CallVerdict.AGAIN):
            self.open.append(begun.slot)
        if begun.slot:
            self.slots.append(begun.slot)
        return begun

    def asks_a_person(self) -> Any:
        amount = self.chance.choice(["5", "50", "500"])
        begun = self.agent.uses("pay", amount, kind="approval", again=False)
        if begun.verdict is CallVerdict.REPLAY:
            assert begun.answer == self.decided[begun.slot], "every attempt goes by the first decision"
        if begun.slot:
            self.waiting.append(begun.slot)
        return begun

    def a_person_decides(self) -> Any:
        """Some person, of some call: of one that waits, or was decided upon before."""
        if not self.waiting:
            return None
        slot = self.chance.choice(self.waiting)
        decision = {"approved": self.chance.random() < 0.5, "by": len(self.told)}
        told = self.agent.decides(slot, decision)
        if told is not None:
            assert told.is_new is (slot not in self.decided)
            assert told.decision == self.decided.setdefault(slot, decision)
        return told

    def answers(self) -> Any:
        if not self.open:
            return None
        slot = self.open.pop(self.chance.randrange(len(self.open)))
        failed = self.chance.random() < 0.2
        usage = Usage(self.chance.randrange(9), 2, 3, self.chance.choice(["", "small", "large"]))
        return self.agent.hears(slot, f"answer {len(self.told)}", usage, failed=failed)

    def refuses(self) -> Any:
        return self.agent.refuses(self.chance.choice(self.slots)) if self.slots else None

    def withholds(self) -> Any:
        return self.agent.withholds(self.open.pop(self.chance.randrange(len(self.open)))) if self.open else None

    def repeats(self) -> Any:
        if not self.agent.number:
            return None
        number = self.chance.randrange(1, self.agent.number + 1)
        return self.agent.asks(self.chance.choice(["one?", "two?"]), number=number).verdict

    def is_lost(self) -> Any:
        agent = self.agent
        self.zombies += [(agent.correlation, agent.owner, slot) for slot in self.open]
        self.open = []
        agent.is_lost()
        return agent.opens(seed=str(self.chance.random()))

    def speaks_late(self) -> Any:
        if not self.zombies:
            return None
        correlation, owner, slot = self.chance.choice(self.zombies)
        return self.agent.journal.finish(correlation, owner, slot, "late", Usage(1, 1, 1))

    def begins_afresh(self) -> Any:
        agent = self.agent
        self.zombies += [(agent.correlation, agent.owner, slot) for slot in self.open]
        self.open = []
        agent.is_lost(taken=False)
        told = agent.journal.restart(RUN, STEP)
        agent._take(sent=True)
        return told


def kept(kit: StoreKit) -> dict[str, Any]:
    """What is stored, without what follows the clock."""
    forms: dict[str, Any] = {
        "j": lambda text: Head.decode(text)._replace(latency=0),
        "c": lambda text: StoredCall.decode(text)._replace(begun=0, after=0, took=0),
        "e": lambda text: Evidence.decode(text)._replace(at=0),
    }
    return {name: forms.get(name[0], str)(text) for name, text in kit.stored()["journal"].items()}


def timeless(told: tuple[str, Any]) -> tuple[str, Any]:
    """What was told, but for how long it has waited: each store has a clock of its own."""
    what, answer = told
    return what, answer._replace(waited_ms=0) if isinstance(answer, Begun) else answer


@pytest.mark.parametrize("seed", range(20))
def test_S35_both_stores_tell_the_same_and_keep_the_same(redis_kit: RedisKit, seed: int) -> None:
    plays = [Play(MemoryKit(Keys()), seed), Play(redis_kit, seed)]
    for _ in range(80):
        for play in plays:
            play.step()
        assert timeless(plays[0].told[-1]) == timeless(plays[1].told[-1])

    in_memory, on_redis = (play.agent.kit for play in plays)
    assert kept(in_memory) == kept(on_redis)


@pytest.mark.parametrize("seed", range(100, 130))
def test_S35_the_sums_are_those_of_all_calls_and_what_is_left_is_what_can_be_replayed(seed: int) -> None:
    play = Play(MemoryKit(Keys()), seed)
    for _ in range(200):
        play.step()
    agent = play.agent.is_lost()
    recorded = agent.opens().recorded
    records = [record for record in agent.journal.calls(RUN) if record.state is not CallState.EVIDENCE]
    [head] = [Head.decode(text) for name, text in agent.kit.stored()["journal"].items() if name.startswith("j|")]
    good = [each for each in records if each.journal == head.journal and each.state in ANSWERED]

    made = [each for each in records if each.state is not CallState.WITHHELD and each.kind != "approval"]
    assert agent.usage().calls == len(made)
    assert agent.usage().replayed == sum(record.replayed for record in records)
    assert agent.usage().possibly_paid_twice == sum(record.twice for record in records)
    assert recorded == head.recorded == head.left == len(good)
