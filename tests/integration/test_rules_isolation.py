"""Rule S29: locks on business keys and limits by key, on real workers."""

from __future__ import annotations

from typing import Any

import app_rules
from scenario import Scenario, events

from multiagents import CommandEvent, WorkflowBuilder
from multiagents.state_store.base import Via
from multiagents.testing import wait_until

# Locks --------------------------------------------------------------------------------------------------------------


def waits_for_lock(rules: Scenario, run: Any, step: str = "stock") -> None:
    def asking() -> bool:
        found = rules.store.load(run.transaction_id).in_flight.get(step)
        return found is not None and found.via is Via.LOCK

    wait_until(asking, 20, f"{step} to wait for its lock")


def test_S29_one_run_at_a_time_works_on_a_key_and_the_next_has_a_larger_token(rules: Scenario) -> None:
    sku = f"{rules.deployment.mode}-one"
    first = rules.start(app_rules.locking, {"sku": sku}, ship=["wait"])
    rules.until_begun(first, "ship")
    second = rules.start(app_rules.locking, {"sku": sku})
    other = rules.play(app_rules.locking, {"sku": f"{sku}-other"})
    waits_for_lock(rules, second)

    rules.open_gate(first, "ship")

    assert other.status == "completed"
    seen = [rules.end(run) for run in (first, second)]
    assert [each.steps["stock"].result["stock"]["key"] for each in seen] == [f"stock:{sku}"] * 2
    tokens = [each.steps["pick"].result["pick_saw"]["token"] for each in seen]
    assert tokens[0] < tokens[1]
    assert [event.step for event in events(second, CommandEvent)].count("stock") == 1


def test_S29_a_lock_is_held_until_the_undo_is_over(rules: Scenario) -> None:
    sku = f"{rules.deployment.mode}-undo"
    first = rules.start(app_rules.locking, {"sku": sku}, ship=["terminal"], first__undo=["wait"])
    rules.until_begun(first, "first.undo")
    second = rules.start(app_rules.locking, {"sku": sku})
    waits_for_lock(rules, second)
    held = rules.store.lock_of(f"stock:{sku}")
    assert held is not None
    assert held.holder.startswith(first.transaction_id)

    rules.open_gate(first, "first")

    assert rules.end(first).status == "compensated"
    assert rules.end(second).status == "completed"


def test_S29_after_its_lease_a_lock_goes_to_the_next_run(rules: Scenario) -> None:
    workflow = (
        WorkflowBuilder("leased")
        .add_lock("stock", "leased:{sku}", lease=0.5)
        .add_step("ship", "play")
        .build(register=False)
    )
    sku = rules.deployment.mode
    first = rules.start(workflow, {"sku": sku}, ship=["wait"])
    rules.until_begun(first, "ship")

    second = rules.play(workflow, {"sku": sku})

    assert second.status == "completed"
    rules.open_gate(first, "ship")
    token = rules.end(first).context["stock"]["token"]
    assert token < second.context["stock"]["token"]


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
    assert (went_on.status, went_on.steps["stock"].result) == ("completed", {})
    first.signal("go")
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
    first = rules.start(app_rules.locking, {"sku": sku}, ship=["wait"])
    rules.until_begun(first, "ship")
    second = rules.start(app_rules.locking, {"sku": sku})
    waits_for_lock(rules, second)

    second.cancel()

    assert rules.end(second).status == "cancelled"
    rules.open_gate(first, "ship")
    rules.end(first)


def test_S29_a_paused_run_that_waits_for_a_lock_lets_others_pass(rules: Scenario) -> None:
    sku = f"{rules.deployment.mode}-held"
    first = rules.start(app_rules.locking, {"sku": sku}, ship=["wait"])
    rules.until_begun(first, "ship")
    second = rules.start(app_rules.locking, {"sku": sku})
    waits_for_lock(rules, second)
    second.pause()
    rules.open_gate(first, "ship")
    rules.end(first)

    third = rules.play(app_rules.locking, {"sku": sku})

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
