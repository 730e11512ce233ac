"""Budgets: what is set aside before a call and settled after it; the same on every store."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from multiagents.keys import Keys
from multiagents.names import Correlation, Direction
from multiagents.state_store.records import (
    Account,
    Amount,
    Balance,
    Per,
    Reserved,
    ReserveVerdict,
    account_of,
)
from multiagents.state_store.records import budget as records
from multiagents.workflow.state import RunStatus
from tests.support.store_kit import RUN, MemoryKit, RedisKit, StoreKit

GRANTED, TAKEN, SPENT = ReserveVerdict.GRANTED, ReserveVerdict.TAKEN, ReserveVerdict.SPENT
DAY = account_of("tenant:acme", Per.DAY, datetime(2100, 1, 1, tzinfo=UTC))
CALL = Amount(40, 7)
PAID = Amount(5, 1)


def reserve(kit: StoreKit, call: str = "c1", account: Account = DAY, owner: str = "o1", **fields: Any) -> Reserved:
    given: dict[str, Any] = {"bound": CALL, "limit": Amount(100), "keep_ms": 60_000}
    answer: Reserved = kit.store.budgets.reserve(account, call, owner, **(given | fields))
    return answer


def settle(kit: StoreKit, call: str = "c1", used: Amount = PAID, owner: str = "o1") -> bool:
    done: bool = kit.store.budgets.settle(DAY, call, owner, used)
    return done


def test_what_is_set_aside_is_told_from_what_is_spent(kit: StoreKit) -> None:
    assert reserve(kit) == (GRANTED, Balance(reserved=CALL))
    assert reserve(kit, "c2").balance == Balance(reserved=Amount(80, 14))

    assert settle(kit)

    assert kit.store.budgets.balance(DAY) == Balance(Amount(5, 1), CALL)


def test_what_is_sent_twice_counts_once(kit: StoreKit) -> None:
    assert reserve(kit) == reserve(kit)
    assert settle(kit)
    assert not settle(kit)

    assert kit.store.budgets.balance(DAY) == Balance(Amount(5, 1))


def test_who_finds_too_little_left_waits_for_those_under_way_and_is_refused_once_it_is_spent(kit: StoreKit) -> None:
    reserve(kit, "c1")
    reserve(kit, "c2")

    assert reserve(kit, "c3").verdict is TAKEN
    settle(kit, "c1")
    assert reserve(kit, "c3").verdict is GRANTED
    settle(kit, "c2", Amount(40, 7))
    settle(kit, "c3", Amount(40, 7))
    assert reserve(kit, "c4") == (SPENT, Balance(Amount(85, 15)))
    assert kit.store.budgets.balance(DAY) == Balance(Amount(85, 15))


@pytest.mark.parametrize(
    ("limit", "bound", "verdict"),
    [
        (Amount(40, 0), Amount(40, 999), GRANTED),
        (Amount(39, 0), Amount(40, 999), SPENT),
        (Amount(0, 7), Amount(40, 7), GRANTED),
        (Amount(0, 7), Amount(40, 8), SPENT),
        (Amount(99, 7), Amount(40, 8), SPENT),
        (Amount(), Amount(10**12, 10**9), GRANTED),
    ],
)
def test_money_and_tokens_are_limited_each(
    kit: StoreKit, limit: Amount, bound: Amount, verdict: ReserveVerdict
) -> None:
    assert reserve(kit, bound=bound, limit=limit).verdict is verdict


def test_those_who_ask_at_once_set_no_more_aside_than_there_is(kit: StoreKit) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: reserve(kit, f"c{number}", bound=Amount(9)).verdict, range(40)))

    assert answers.count(GRANTED) == 11
    assert answers.count(TAKEN) == 29
    assert kit.store.budgets.balance(DAY) == Balance(reserved=Amount(99))


def test_what_one_who_died_had_set_aside_counts_as_spent_once_the_call_is_made_again(kit: StoreKit) -> None:
    reserve(kit, owner="dead")

    assert reserve(kit, owner="o2") == (GRANTED, Balance(CALL, CALL))
    assert not settle(kit, owner="dead")
    assert settle(kit, owner="o2")
    assert kit.store.budgets.balance(DAY) == Balance(Amount(45, 8))


def test_what_was_set_aside_long_ago_counts_as_spent_and_may_be_settled_still(
    kit_in_memory: StoreKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = kit_in_memory
    reserve(kit, "c1")
    kit.sleep(records.RESERVED_MS / 1000)

    assert reserve(kit, "c2", bound=Amount(61)).verdict is SPENT
    assert settle(kit, "c1")
    assert reserve(kit, "c2", bound=Amount(61)).verdict is GRANTED
    kit.sleep(records.FORGOTTEN_MS / 1000)
    assert reserve(kit, "c3", bound=Amount(1)) == (GRANTED, Balance(Amount(66, 1), Amount(1)))
    assert not settle(kit, "c2")


def test_the_same_holds_on_every_store_for_as_long_as_is_said(kit: StoreKit, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (records, pytest.importorskip("multiagents.state_store.redis.budgets")):
        monkeypatch.setattr(module, "RESERVED_MS", 200)
        monkeypatch.setattr(module, "FORGOTTEN_MS", 600)
    reserve(kit, "c1")
    kit.sleep(0.25)
    assert reserve(kit, "c2", bound=Amount(61)).verdict is SPENT
    kit.sleep(0.45)

    assert reserve(kit, "c2") == (GRANTED, Balance(CALL, CALL))

    assert not settle(kit, "c1")


@pytest.mark.parametrize("seed", range(5))
def test_both_stores_go_through_the_same_and_hold_the_same(redis_kit: RedisKit, seed: int) -> None:
    kits, chance = (MemoryKit(Keys()), redis_kit), random.Random(seed)
    for _ in range(150):
        call, owner = f"c{chance.randrange(6)}", f"o{chance.randrange(2)}"
        amount = Amount(chance.randrange(60), chance.randrange(9))
        if chance.random() < 0.6:
            limit = Amount(chance.choice([0, 1_500]), chance.choice([0, 200]))
            told = [reserve(kit, call, owner=owner, bound=amount, limit=limit) for kit in kits]
        else:
            told = [settle(kit, call, amount, owner) for kit in kits]
        assert told[0] == told[1]
    assert kits[0].store.budgets.balance(DAY) == kits[1].store.budgets.balance(DAY)


def test_days_and_months_and_keys_have_accounts_of_their_own(kit: StoreKit) -> None:
    new_year = datetime(2100, 12, 31, 23, 59, 59, tzinfo=UTC)
    eve, after = (account_of("a", Per.DAY, at) for at in (new_year, new_year + timedelta(seconds=1)))
    month, other = account_of("a", Per.MONTH, new_year), account_of("b", Per.DAY, new_year)

    for account in (eve, after, month, other):
        assert reserve(kit, account=account) == (GRANTED, Balance(reserved=CALL))

    assert (eve.period, after.period, month.period) == ("2100-12-31", "2101-01-01", "2100-12")
    assert eve.ends_ms == month.ends_ms == 4_133_980_800_000


def test_an_account_goes_some_time_after_its_period(kit: StoreKit) -> None:
    over = DAY._replace(ends_ms=int(kit.store.now().timestamp() * 1000) - 100)
    reserve(kit, account=over, keep_ms=500)
    assert kit.store.budgets.balance(over).reserved == CALL

    kit.sleep(0.5)

    assert kit.store.budgets.balance(over) == Balance()


def own(kit: StoreKit, per: Per = Per.RUN, step: str = "reserve", direction: Direction = Direction.DO) -> Account:
    return account_of("tenant", per, kit.store.now(), Correlation(RUN, step, direction, 1))


def test_a_run_has_an_account_of_its_own_and_each_of_its_steps_another(kit: StoreKit) -> None:
    kit.begin()
    accounts = [own(kit), own(kit, Per.STEP), own(kit, Per.STEP, "ship"), own(kit, Per.STEP, direction=Direction.UNDO)]

    for account in accounts:
        assert reserve(kit, account=account) == (GRANTED, Balance(reserved=CALL))

    assert own(kit, step="ship") == own(kit)
    assert kit.store.budgets.balance(own(kit)) == Balance(reserved=CALL)
    assert kit.store.journal.calls(RUN) == kit.store.journal.calls(RUN, "reserve") == []


def test_what_a_run_has_spent_is_gone_with_it_and_no_other_of_its_id_sees_it(kit: StoreKit) -> None:
    kit.begin()
    account = own(kit)
    reserve(kit, account=account)
    kit.end()

    kit.store.delete(RUN, status=RunStatus.COMPLETED, tombstone="stone", dead_letters=[])
    assert reserve(kit, account=account).verdict is ReserveVerdict.GONE
    kit.begin(nonce="2")

    assert reserve(kit, account=account).verdict is ReserveVerdict.GONE
    newer = account._replace(identity=f"{RUN}~2")
    assert kit.store.budgets.balance(newer) == Balance()
