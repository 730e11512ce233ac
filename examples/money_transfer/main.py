"""Five transfers: one that goes well, one that is undone, and three that a person has to see through.

``python -m examples.money_transfer.main``, from the project's folder.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.table import Table
from rich.text import Text

from examples.books import Line, effects_table, keys_twice
from examples.money_transfer.banks import CLOSED, OPENING, REGISTER, SLOW, Banks
from examples.scene import Scene, run
from multiagents.exceptions import DefinitionError

#: Cents of every transfer.
AMOUNT = 12_000
IDS = ("M-1", "M-2", "M-3", "M-4", "M-5")


def play(scene: Scene) -> list[Line]:
    """Make the transfers one after the other, and show what became of each."""
    from examples.money_transfer.workflow import money_transfer

    world = Banks.from_environment()
    before = world.balances()
    scene.print(money_transfer.diagram("ascii"))
    lines = [_refused(scene)]
    lines += [_goes_well(scene), _undone(scene)]
    lines += [*_retried(scene, world), *_supplied(scene, world), *_settled_by_a_person(scene, world)]
    ids = [scene.id(name) for name in IDS]
    scene.print(effects_table("What the world has", world.effects(), ["debit", "credit", "report"], ids))
    scene.print(_accounts(before, world.balances()))
    return [*lines, *_money(before, world.balances()), keys_twice(world)]


def _refused(scene: Scene) -> Line:
    """A definition that leaves a question open does not build."""
    from examples.money_transfer.workflow import transfer

    try:
        transfer(explained=False).build(register=False)
    except DefinitionError as error:
        scene.print(Text(f"Without its no_compensation=: {error}", style="dim"))
        return Line(
            "a step that does not say how it is undone does not build", "check" in str(error), "DefinitionError"
        )
    return Line("a step that does not say how it is undone does not build", holds=False, detail="it was built")


def _goes_well(scene: Scene) -> Line:
    transfer = _start(scene, "M-1", "O-BOB")
    seen = scene.end(transfer)
    scene.show(transfer, "all goes well")
    return _ends("M-1", seen, "completed", {"debit": "live", "settle": "live"})


def _undone(scene: Scene) -> Line:
    transfer = _start(scene, "M-2", CLOSED)
    seen = scene.end(transfer)
    scene.show(transfer, "the other account is closed: before the pivot, so the money comes back")
    return _ends("M-2", seen, "compensated", {"debit": "undone"})


def _retried(scene: Scene, world: Banks) -> list[Line]:
    """A failure behind the pivot waits for a person; a cancel cannot turn it back."""
    world.set_fact(REGISTER, "down")
    transfer = _start(scene, "M-3", "O-SHOP")
    waiting = scene.until(transfer, lambda seen: seen.status == "paused", "a pause")
    scene.say(f"M-3 is {waiting.status}: the money has arrived, and the register is down ({_error(waiting, 'report')})")
    transfer.cancel(actor="impatient", reason="takes too long")
    scene.say(f"somebody cancels it, and it is {transfer.status} still: behind the pivot nothing is undone")
    world.set_fact(REGISTER, "up")
    scene.say("ann has the register repaired, and has the step tried again")
    transfer.retry("report", actor="ann", reason="the register is up again")
    seen = scene.end(transfer)
    scene.show(transfer, "a failure behind the pivot, repaired and tried again")
    return [
        _ends("M-3", seen, "completed", {"debit": "live", "settle": "live", "report": "live"}),
        _asked("M-3", transfer, [("cancel_requested", "impatient"), ("retry_requested", "ann")]),
        _nothing_undone("M-3", transfer),
    ]


def _supplied(scene: Scene, world: Banks) -> list[Line]:
    """Where a step cannot be done by its worker, a person does it by hand and supplies its result."""
    world.set_fact(REGISTER, "down")
    transfer = _start(scene, "M-4", "O-SHOP")
    scene.until(transfer, lambda seen: seen.status == "paused", "a pause")
    scene.say("M-4 is paused likewise; ben reports it by telephone and supplies what he was told")
    transfer.supply("report", {"report": "RG-by-telephone"}, actor="ben", reason="reported by telephone")
    seen = scene.end(transfer)
    world.set_fact(REGISTER, "up")
    scene.show(transfer, "a failure behind the pivot, done by hand")
    return [
        _ends("M-4", seen, "completed", {"debit": "live", "settle": "live", "report": "live"}),
        _asked("M-4", transfer, [("result_supplied", "ben")]),
        Line(
            "M-4: later steps read what was supplied",
            "by-telephone" in seen.context["receipt"],
            seen.context["receipt"],
        ),
    ]


def _settled_by_a_person(scene: Scene, world: Banks) -> list[Line]:
    """Nobody knows whether the pivot took effect: nothing is undone until somebody has looked."""
    transfer = _start(scene, "M-5", SLOW)
    waiting = scene.until(transfer, lambda seen: seen.status == "paused", "a pause")
    scene.say(f"M-5 is {waiting.status}: nobody knows whether the money has arrived ({_error(waiting, 'settle')})")
    debit, settle = waiting.effects["debit"], waiting.effects["settle"]
    arrived = any(effect.kind == "credit" for effect in world.effects(transfer.transaction_id))
    scene.say(f"ann asks the other bank, which says: it has {'arrived' if arrived else 'not arrived'}")
    transfer.supply("settle", {"settled": AMOUNT}, actor="ann", reason="the other bank confirms it")
    seen = scene.end(transfer)
    scene.show(transfer, "a pivot whose outcome nobody knew")
    return [
        Line(
            "M-5 waits with its debit live", (debit, settle) == ("live", "unknown"), f"debit {debit}, settle {settle}"
        ),
        _ends("M-5", seen, "completed", {"debit": "live", "settle": "live", "report": "live"}),
        _nothing_undone("M-5", transfer),
    ]


def _start(scene: Scene, name: str, target: str) -> Any:
    from examples.money_transfer.workflow import money_transfer

    return scene.start(money_transfer, name, source="H-ANN", target=target, amount=AMOUNT)


def _error(seen: Any, step: str) -> str:
    return str(seen.steps[step].error.message)


def _ends(name: str, seen: Any, status: str, effects: dict[str, str]) -> Line:
    held = {step: effect for step, effect in seen.effects.items() if step in effects or effect != "live"}
    figures = ", ".join(f"{step} {effect}" for step, effect in held.items())
    return Line(f"{name} ends as {status}", (seen.status, held) == (status, effects), f"{seen.status}: {figures}")


def _asked(name: str, transfer: Any, expected: list[tuple[str, str]]) -> Line:
    """Who asked for what is in the history."""
    asked = [(event.status, event.actor) for event in transfer.history() if event.type == "status" and event.actor]
    figures = ", ".join(f"{what} by {who}" for what, who in asked)
    return Line(f"{name}: the history names who asked for what", asked == expected, figures)


def _nothing_undone(name: str, transfer: Any) -> Line:
    undone = [event.step for event in transfer.history() if event.type == "compensation"]
    return Line(f"{name}: nothing was undone", not undone, ", ".join(undone) or "nothing")


def _accounts(before: dict[str, int], after: dict[str, int]) -> Table:
    table = Table(title="Accounts", title_justify="left", title_style="bold", box=None, padding=(0, 1), pad_edge=False)
    for heading in ("", "before", "after"):
        table.add_column(heading, justify="right" if heading else "left")
    for account in OPENING:
        table.add_row(account, f"{before[account] / 100:,.2f}", f"{after[account] / 100:,.2f}")
    return table


def _money(before: dict[str, int], after: dict[str, int]) -> list[Line]:
    moved = {account: after[account] - before[account] for account in OPENING}
    expected = {"H-ANN": -4 * AMOUNT, "O-BOB": AMOUNT, "O-SHOP": 2 * AMOUNT, "O-SLOW": AMOUNT}
    total = f"{sum(before.values())} cents before, {sum(after.values())} after"
    return [
        Line("no cent was made or lost", sum(before.values()) == sum(after.values()), total),
        Line("four transfers moved money, and the undone one none", moved == expected, str(moved)),
    ]


if __name__ == "__main__":
    sys.exit(run("money_transfer", play))
