"""Rule S29: locks on business keys and limits by key, on real workers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from multiagents import CommandEvent, Limit, Step, WorkflowBuilder
from multiagents.names import Correlation, Direction
from multiagents.state_store.records import Delivery
from multiagents.testing import wait_until
from tests.support.apps import scripted
from tests.support.scenario import Scenario, events

# Locks --------------------------------------------------------------------------------------------------------------


def waits_for_lock(rules: Scenario, run: Any, step: str = "stock") -> None:
    def asking() -> bool:
        found = rules.store.load(run.transaction_id).in_flight.get(step)
        return found is not None and found.delivery is Delivery.LOCK

    wait_until(asking, 20, f"{step} to wait for its lock")


def holding(rules: Scenario, sku: str, **script: Any) -> Any:
    """A run that has the lock until it is told to go on."""
    run = rules.start(scripted.locking, {"sku": sku}, **script)
    wait_until(lambda: "go" in rules.store.load(run.transaction_id).in_flight, 20, "the run to have its lock")
    return run


def passing(rules: Scenario, sku: str) -> Any:
    """A run that goes on as soon as it has the lock."""
    run = rules.start(scripted.locking, {"sku": sku})
    run.signal("go")
    return run


def test_S29_one_run_at_a_time_works_on_a_key_and_the_next_has_a_larger_token(rules: Scenario) -> None:
    sku = f"{rules.deployment.mode}-one"
    first = holding(rules, sku)
    second = passing(rules, sku)
    other = rules.end(passing(rules, f"{sku}-other"))
    waits_for_lock(rules, second)

    first.signal("go")

    assert other.status == "completed"
    seen = [rules.end(run) for run in (first, second)]
    assert [each.steps["stock"].result["stock"]["key"] for each in seen] == [f"stock:{sku}"] * 2
    tokens = [each.steps["pick"].result["pick_saw"]["token"] for each in seen]
    assert tokens[0] < tokens[1]
    assert [event.step for event in events(second, CommandEvent)].count("stock") == 1


def test_S29_a_lock_is_held_until_the_undo_is_over(rules: Scenario) -> None:
    if rules.deployment.pool == "solo":
        pytest.skip("where steps run one at a time, an undo that waits keeps all others from being run")
    sku = f"{rules.deployment.mode}-undo"
    first = holding(rules, sku, ship=["terminal"], first__undo=["wait"])
    first.signal("go")
    rules.until_begun(first, "first.undo")
    second = passing(rules, sku)
    waits_for_lock(rules, second)
    held = rules.store.isolation.lock_of(f"stock:{sku}")
    assert held is not None
    assert held.holder.startswith(first.transaction_id)

    rules.open_gate(first, "first")

    assert rules.end(first).status == "compensated"
    assert rules.end(second).status == "completed"


def test_S29_after_its_lease_a_lock_goes_to_the_next_run(rules: Scenario) -> None:
    workflow = (
        WorkflowBuilder("leased").add_lock("stock", "leased:{sku}", lease=0.5).add_wait("go").build(register=False)
    )
    first, second = (rules.start(workflow, {"sku": rules.deployment.mode}) for _ in range(2))

    second.signal("go")

    taken = rules.end(second).context["stock"]["token"]
    first.signal("go")
    assert rules.end(first).context["stock"]["token"] < taken


def test_S29_who_waits_for_a_lock_too_long_fails_and_goes_back_or_goes_on_as_declared(rules: Scenario) -> None:
    def waiting(on_timeout: Any) -> Any:
        return (
            WorkflowBuilder(f"waiting-{on_timeout}")
            .add_step("first", "play", compensation="undo")
            .add_lock("stock", "busy:{sku}", timeout=0.5, on_timeout=on_timeout)
            .build(register=False)
        )

    sku = rules.deployment.mode
    holder = WorkflowBuilder("holder").add_lock("stock", "busy:{sku}").add_wait("go").build(register=False)
    first = rules.start(holder, {"sku": sku})
    assert rules.store.load(first.transaction_id).in_flight.keys() == {"go"}

    failed, went_on = rules.play(waiting("fail"), {"sku": sku}), rules.play(waiting("continue"), {"sku": sku})

    assert (failed.status, failed.error.type) == ("compensated", "LockTimeout")
    assert f"the lock on 'busy:{sku}' was not to be had within 0.5 s" in failed.error.message
    assert (went_on.status, went_on.steps["stock"].result) == ("completed", None)
    first.signal("go")
    rules.end(first)


@pytest.mark.full  # waits for what is not to happen
def test_S22_the_time_for_which_a_run_waits_for_a_lock_can_be_moved_and_stands_still_while_it_is_to(
    rules: Scenario,
) -> None:
    holder = WorkflowBuilder("holder").add_lock("stock", "timed:{sku}").add_wait("go").build(register=False)
    workflow = WorkflowBuilder("timed").add_lock("stock", "timed:{sku}", timeout=0.7).build(register=False)
    sku = rules.deployment.mode
    first = rules.start(holder, {"sku": sku})
    second, third = (rules.start(workflow, {"sku": sku}) for _ in range(2))
    waits_for_lock(rules, second)

    second.update_timer("stock", 600)
    third.pause(timers="stop")
    time.sleep(1.5)

    assert (second.status, third.status) == ("running", "paused")
    third.resume()
    assert rules.end(third).error.type == "LockTimeout"
    first.signal("go")
    assert rules.end(second).steps["stock"].result["stock"]["key"] == f"timed:{sku}"
    rules.end(first)


def test_S12_a_lock_that_was_not_to_be_had_behind_the_pivot_may_be_asked_for_again(rules: Scenario) -> None:
    holder = WorkflowBuilder("holder").add_lock("stock", "pivot:{sku}").add_wait("go").build(register=False)
    workflow = (
        WorkflowBuilder("forward")
        .add_step("pay", "play", pivot=True)
        .add_lock("stock", "pivot:{sku}", timeout=0.3)
        .add_step("ship", "play")
        .build(register=False)
    )
    sku = rules.deployment.mode
    first, second = rules.start(holder, {"sku": sku}), rules.start(workflow, {"sku": sku})
    wait_until(lambda: second.status == "paused", 20, "the run to wait for a person")

    first.signal("go")
    rules.end(first)
    second.retry("stock")

    assert rules.end(second).steps["stock"].result["stock"]["key"] == f"pivot:{sku}"


def test_S20_a_cancel_does_not_wait_for_a_lock(rules: Scenario) -> None:
    sku = f"{rules.deployment.mode}-cancel"
    first = holding(rules, sku)
    second = passing(rules, sku)
    waits_for_lock(rules, second)

    second.cancel()

    assert rules.end(second).status == "cancelled"
    first.signal("go")
    rules.end(first)


@pytest.mark.full  # waits until the paused run no longer counts as waiting
def test_S29_a_paused_run_that_waits_for_a_lock_lets_others_pass(rules: Scenario) -> None:
    sku = f"{rules.deployment.mode}-held"
    first = holding(rules, sku)
    second = passing(rules, sku)
    waits_for_lock(rules, second)
    second.pause()
    first.signal("go")
    rules.end(first)

    third = rules.end(passing(rules, sku))

    assert third.status == "completed"
    assert second.status == "paused"
    second.resume()
    assert rules.end(second).status == "completed"


def test_a_key_that_the_context_does_not_fill_fails_its_step_and_is_named(rules: Scenario) -> None:
    workflow = WorkflowBuilder("keyless").add_lock("stock", "stock:{sku}").build(register=False)

    seen = rules.play(workflow, {"sku_": 1})

    assert seen.status == "failed"
    assert "key= of step 'stock' raised" in seen.error.message
    assert 'did you mean "sku_"' in seen.error.message


# Limits -------------------------------------------------------------------------------------------------------------

MANY = [Step(f"pay{number}", "metered", compensation="metered") for number in range(6)]


def test_S29_no_more_than_the_limit_run_at_once_and_who_waits_costs_no_attempt(rules: Scenario) -> None:
    workflow = WorkflowBuilder("limited").add_parallel("all", MANY).build(register=False)
    run = rules.start(workflow, {"lane": rules.deployment.mode}, pay3=["fail"])
    other = rules.play(WorkflowBuilder("beside").add_step("play").build(register=False))

    seen = rules.end(run)

    assert seen.status == other.status == "completed"
    assert max(entry["now"] for entry in rules.journal(run)) <= 2
    assert [step.attempts for step in seen.steps.values()] == [1, 1, 1, 2, 1, 1]
    assert len(events(run, CommandEvent)) == 7
    slots = rules.orchestrator.keys.of_partition(0).slots(f"metered:{rules.deployment.mode}")
    # The last one is given back after the commit that ends the run.
    wait_until(lambda: rules.redis.zcard(slots) == 0, 10, "all slots to be free")


@pytest.mark.full  # as above, going back
def test_S29_undos_keep_to_the_limit_of_their_worker_and_all_come_to_pass(rules: Scenario) -> None:
    workflow = (
        WorkflowBuilder("limited-back")
        .add_parallel("all", [Step(f"pay{number}", "play", compensation="metered") for number in range(5)])
        .add_step("last", "play")
        .build(register=False)
    )
    run = rules.start(workflow, {"lane": f"{rules.deployment.mode}-undo"}, last=["terminal"])

    seen = rules.end(run)

    assert seen.status == "compensated"
    undos = [entry for entry in rules.journal(run) if entry["direction"] == "undo"]
    assert (len(undos), max(entry["now"] for entry in undos) <= 2) == (5, True)


def test_S29_attempts_begin_no_faster_than_the_rate_of_their_step(rules: Scenario) -> None:
    limit = Limit("rated:{lane}", rate=5)
    workflow = (
        WorkflowBuilder("rated")
        .add_parallel("all", [Step(f"pay{number}", "metered", limit=limit) for number in range(5)])
        .build(register=False)
    )
    run = rules.start(workflow, {"lane": f"{rules.deployment.mode}-rate"})

    rules.end(run)

    began = sorted(entry["at"] for entry in rules.journal(run))
    assert began[-1] - began[0] >= 0.65  # four intervals, half of one early


def test_S29_a_worker_that_is_killed_takes_its_slot_with_it_for_a_lease_at_most(rules: Scenario) -> None:
    if rules.deployment.pool != "prefork":
        pytest.skip("elsewhere the process that is killed is the whole worker: that is tested with the faults")
    limit = Limit("killed", concurrency=1)
    workflow = WorkflowBuilder("killed").add_step("pay", "play", limit=limit).build(register=False)

    seen = rules.play(workflow, pay=["kill"])

    assert (seen.status, seen.steps["pay"].attempts) == ("completed", 2)


def test_S20_a_cancel_does_not_wait_for_a_slot(rules: Scenario) -> None:
    if rules.deployment.pool == "solo":
        pytest.skip("where steps run one at a time, nobody else ever has the slot")
    limit = Limit(f"cancel-{rules.deployment.mode}", concurrency=1)
    workflow = WorkflowBuilder("slots").add_step("pay", "play", limit=limit).build(register=False)
    first = rules.start(workflow, pay=["wait"])
    rules.until_begun(first, "pay")
    second = rules.start(workflow)

    def turned_away() -> bool:
        return rules.store.load(second.transaction_id).in_flight["pay"].delivery is Delivery.TIMER

    wait_until(turned_away, 20, "the second to be turned away")
    second.cancel()

    assert rules.end(second).status == "cancelled"
    assert rules.began(second) == []
    rules.open_gate(first, "pay")
    rules.end(first)


def test_S29_a_local_step_that_is_turned_away_is_sent_later_like_any_other(rules: Scenario) -> None:
    limit = Limit(f"local-{rules.deployment.mode}", concurrency=1)
    workflow = (
        WorkflowBuilder("local")
        .add_step("first", "play")
        .add_step("near", "play", local=True, limit=limit)
        .add_step("last", "play", local=True)
        .build(register=False)
    )
    rules.store.isolation.take_slot(limit.key, Correlation("somebody", "a", Direction.DO, 1), concurrency=1)

    run = rules.start(workflow)

    seen = rules.end(run)
    assert (seen.status, seen.steps["near"].attempts) == ("completed", 1)
    assert rules.began(run) == ["first", "near", "last"]


def test_S29_the_items_of_a_map_keep_to_the_limit_of_their_worker(rules: Scenario) -> None:
    workflow = WorkflowBuilder("items").add_map("pay", "metered", over="of").build(register=False)
    run = rules.start(workflow, {"lane": f"{rules.deployment.mode}-map", "of": [1, 2, 3, 4]})

    assert rules.end(run).status == "completed"
    assert max(entry["now"] for entry in rules.journal(run)) <= 2


def test_a_limit_whose_key_the_context_does_not_fill_fails_its_step_at_once(rules: Scenario) -> None:
    seen = rules.play(WorkflowBuilder("unfilled").add_step("pay", "metered").build(register=False), {"line": 1})

    assert (seen.status, seen.steps["pay"].attempts) == ("failed", 1)
    assert "step 'pay' was not begun, for its limit is not known" in seen.error.message
    assert 'did you mean "line"' in seen.error.message
