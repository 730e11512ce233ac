"""Five transfers: one that goes well, one that is undone, and three that a person has to see through.

``python -m examples.money_transfer.main``, from the project's folder.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.text import Text

from examples._support.pictures import table
from examples._support.scene import Scene, run
from examples._support.world import NoAnswerError, RefusedError, UnavailableError
from examples.money_transfer.workers import check_transfer, settle_transfer
from examples.money_transfer.workflow import money_transfer
from multiagents import WorkflowBuilder
from multiagents.exceptions import DefinitionError

#: Cents of every transfer.
AMOUNT = 12_000
#: account -> cents before; all but the first are at the other bank
OPENING = {"H-ANN": 500_000, "O-BOB": 20_000, "O-SHOP": 0, "O-SLOW": 0}
#: account -> cents by which it is to have changed
MOVED = {"H-ANN": -4 * AMOUNT, "O-BOB": AMOUNT, "O-SHOP": 2 * AMOUNT, "O-SLOW": AMOUNT}


def story(scene: Scene) -> None:
    """Make the transfers one after the other, and show what became of each."""
    scene.print(money_transfer.diagram("ascii"))
    a_question_that_is_left_open(scene)
    all_goes_well(scene)
    undone_before_the_pivot(scene)
    repaired_behind_the_pivot(scene)
    done_by_hand_behind_the_pivot(scene)
    nobody_knows_at_the_pivot(scene)
    names = ["M-1", "M-2", "M-3", "M-4", "M-5"]
    scene.show_world(["debit", "credit", "report"], names)
    the_money_adds_up(scene, names)


def a_question_that_is_left_open(scene: Scene) -> None:
    """With ``strict=True``, a step that says neither how it is undone nor why it need not be does not build."""
    careless = WorkflowBuilder("careless", strict=True)
    careless.add_step("check", check_transfer).add_step("settle", settle_transfer, pivot=True)
    try:
        careless.build(register=False)
        said = ""
    except DefinitionError as error:
        said = str(error)
    scene.print(Text(f"Without a no_compensation=: {said}", style="dim"))
    scene.check("a step that does not say how it is undone does not build", "check" in said, "DefinitionError")


def all_goes_well(scene: Scene) -> None:
    transfer = start(scene, "M-1", "O-BOB")
    scene.end(transfer, "all goes well", "completed", debit="live", settle="live")


def undone_before_the_pivot(scene: Scene) -> None:
    scene.fail("credit", "M-2", RefusedError("the account was closed by its owner"))
    transfer = start(scene, "M-2", "O-CLOSED")
    about = "the other account is closed: before the pivot, so the money comes back"
    scene.end(transfer, about, "compensated", debit="undone")


def repaired_behind_the_pivot(scene: Scene) -> None:
    """A failure behind the pivot waits for a person; a cancel cannot turn it back."""
    scene.fail("report", "M-3", UnavailableError("the register answered 503"))
    transfer = start(scene, "M-3", "O-SHOP")
    waiting = until_paused(scene, transfer)
    scene.say(f"M-3 is {waiting.status}: the money has arrived, and {waiting.steps['report'].error.message}")
    transfer.cancel(actor="impatient", reason="takes too long")
    scene.say(f"somebody cancels it, and it is {transfer.status} still: behind the pivot nothing is undone")
    scene.mend("report", "M-3")
    scene.say("ann has the register repaired, and has the step tried again")
    transfer.retry("report", actor="ann", reason="the register is up again")

    about = "a failure behind the pivot, repaired and tried again"
    scene.end(transfer, about, "completed", debit="live", settle="live", report="live")
    check_who_asked(scene, transfer, [("cancel_requested", "impatient"), ("retry_requested", "ann")])
    check_nothing_undone(scene, transfer)


def done_by_hand_behind_the_pivot(scene: Scene) -> None:
    """Where a step cannot be done by its worker, a person does it by hand and supplies its result."""
    scene.fail("report", "M-4", UnavailableError("the register answered 503"))
    transfer = start(scene, "M-4", "O-SHOP")
    until_paused(scene, transfer)
    scene.say("M-4 is paused likewise; ben reports it by telephone and supplies what he was told")
    transfer.supply("report", {"report": "RG-by-telephone"}, actor="ben", reason="reported by telephone")

    about = "a failure behind the pivot, done by hand"
    seen = scene.end(transfer, about, "completed", debit="live", settle="live", report="live")
    check_who_asked(scene, transfer, [("result_supplied", "ben")])
    receipt = seen.context["receipt"]
    scene.check("M-4: later steps read what was supplied", "by-telephone" in receipt, receipt)


def nobody_knows_at_the_pivot(scene: Scene) -> None:
    """Nobody knows whether the pivot took effect: nothing is undone until somebody has looked."""
    scene.fail("credit", "M-5", NoAnswerError("the other bank did not answer in time"))
    transfer = start(scene, "M-5", "O-SLOW")
    waiting = until_paused(scene, transfer)
    scene.say(
        f"M-5 is {waiting.status}: {waiting.steps['settle'].error.message}; nobody knows whether it has the money"
    )
    debit, settle = waiting.effects["debit"], waiting.effects["settle"]
    waits = (debit, settle) == ("live", "unknown")
    scene.check("M-5 waits with its debit live", waits, f"debit {debit}, settle {settle}")
    arrived = any(effect.kind == "credit" for effect in scene.effects("M-5"))
    scene.say(f"ann asks the other bank, which says: it has {'arrived' if arrived else 'not arrived'}")
    transfer.supply("settle", {"settled": AMOUNT}, actor="ann", reason="the other bank confirms it")

    about = "a pivot whose outcome nobody knew"
    scene.end(transfer, about, "completed", debit="live", settle="live", report="live")
    check_nothing_undone(scene, transfer)


def the_money_adds_up(scene: Scene, names: list[str]) -> None:
    after = dict(OPENING)
    for effect in [each for name in names for each in scene.effects(name)]:
        if effect.status == "live" and effect.kind in ("debit", "credit"):
            after[effect.detail["account"]] += effect.amount if effect.kind == "credit" else -effect.amount
    rows = [(account, f"{OPENING[account] / 100:,.2f}", f"{after[account] / 100:,.2f}") for account in OPENING]
    scene.print(table("Accounts", ["", "before", "after"], rows))
    before, now = sum(OPENING.values()), sum(after.values())
    scene.check("no cent was made or lost", before == now, f"{before} cents before, {now} after")
    moved = {account: after[account] - OPENING[account] for account in OPENING}
    scene.check("four transfers moved money, and the undone one none", moved == MOVED, str(moved))


def start(scene: Scene, name: str, target: str) -> Any:
    return scene.start(money_transfer, name, source="H-ANN", target=target, amount=AMOUNT)


def until_paused(scene: Scene, transfer: Any) -> Any:
    return scene.until(transfer, lambda seen: seen.status == "paused", "a pause")


def check_who_asked(scene: Scene, transfer: Any, expected: list[tuple[str, str]]) -> None:
    asked = [(event.status, event.actor) for event in transfer.history() if event.type == "status" and event.actor]
    figures = ", ".join(f"{what} by {who}" for what, who in asked)
    scene.check(f"{transfer.transaction_id}: the history names who asked for what", asked == expected, figures)


def check_nothing_undone(scene: Scene, transfer: Any) -> None:
    undone = [event.step for event in transfer.history() if event.type == "compensation"]
    scene.check(f"{transfer.transaction_id}: nothing was undone", not undone, ", ".join(undone) or "nothing")


if __name__ == "__main__":
    sys.exit(run("money_transfer", story))
