"""Four subscriptions at once: a whole term, a notice after two reminders, a dead card, and a withdrawal.

``python -m examples.subscription_billing.main``, from the project's folder. A month takes less than a second.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.table import Table

from examples.books import Line, keys_twice
from examples.scene import Scene, run
from examples.subscription_billing.provider import Provider

#: Cents a month.
PRICE = 990


def play(scene: Scene) -> list[Line]:
    """Start the four, give notice for one, withdraw another, and show what became of each."""
    from examples.subscription_billing.workflow import MONTH, TERM, subscription_billing

    world = Provider.from_environment()
    scene.say(f"four subscriptions of {TERM} months at most; a month takes {MONTH:g} s here")
    ada = scene.start(subscription_billing, "S-ada", price=PRICE, token="tok_visa")
    ben = scene.start(subscription_billing, "S-ben", price=PRICE, token="tok_short")
    cleo = scene.start(subscription_billing, "S-cleo", price=PRICE, token="tok_dead")
    dan = scene.start(subscription_billing, "S-dan", price=PRICE, token="tok_visa")

    scene.until(ben, lambda seen: seen.steps["charge#2"].attempts > 1, "a reminder")
    answer = ben.signal("notice", {"ended": "notice given"}, actor="ben", reason="too many reminders")
    scene.say(f"ben's card was declined, he was reminded, and gives notice: it is {answer} until the month is over")
    scene.until(dan, lambda seen: seen.steps["charge#2"].status == "succeeded", "the second month")
    dan.cancel(actor="dan", reason="withdrawal within the legal period")
    scene.say("dan withdraws from the contract: everything is refunded, newest first")
    ends = [(each, scene.end(each)) for each in (ada, ben, cleo, dan)]

    scene.print()
    titles = ("the whole term", "notice", "the card is dead", "withdrawn")
    for (each, _), about in zip(ends, titles, strict=True):
        scene.show(each, about, only_begun=True)
    scene.print(_bills(ends, world))
    return [
        _ends(ends[0], "completed", "the term is over"),
        _ends(ends[1], "completed", "notice given"),
        _ends(ends[2], "completed", "unpaid"),
        _ends(ends[3], "cancelled", "withdrawn"),
        _paid(ends[0], world, months=TERM, refused=0),
        _paid(ends[1], world, months=_month_of_notice(ben), refused=2),
        _paid(ends[2], world, months=1, refused=3),
        _paid(ends[3], world, months=0, refused=0),
        _newest_first(dan),
        _nobody_is_in(ends, world),
        keys_twice(world),
    ]


def _month_of_notice(subscription: Any) -> int:
    """The month at whose end a notice was taken: as a rule the one it came in."""
    taken = [event.step for event in subscription.history() if getattr(event, "status", "") == "received"]
    return int(taken[0].partition("#")[2]) if taken else 0


def _why(seen: Any) -> str:
    if seen.status == "cancelled":
        return "withdrawn"
    return str(seen.context.get("ended", "the term is over"))


def _ends(end: tuple[Any, Any], status: str, why: str) -> Line:
    subscription, seen = end
    name = subscription.transaction_id
    return Line(f"{name} ends: {why}", (seen.status, _why(seen)) == (status, why), f"{seen.status}, {_why(seen)}")


def _paid(end: tuple[Any, Any], world: Provider, *, months: int, refused: int) -> Line:
    """What the world has charged and kept is what the run says is live, and what was to be paid."""
    subscription, seen = end
    name = subscription.transaction_id
    live = [effect for effect in world.effects(name) if (effect.kind, effect.status) == ("charge", "live")]
    said = [step for step, effect in seen.effects.items() if step.startswith("charge") and effect == "live"]
    unpaid = 1 if _why(seen) == "unpaid" else 0  # that month succeeded without a charge
    holds = len(live) == months == len(said) - unpaid and world.refused(name) == refused
    figures = f"{len(live)} x {PRICE} cents kept, {world.refused(name)} times declined"
    return Line(f"{name} pays what was due: months paid {months}, cards declined {refused}", holds, figures)


def _newest_first(subscription: Any) -> Line:
    undone = [event.step for event in subscription.history() if event.type == "compensation"]
    charges = [step for step in undone if step.startswith("charge")]
    right = [f"charge#{number}" for number in range(len(charges), 0, -1)]
    holds = len(charges) >= 2 and undone == [*right, "access"]
    return Line(f"{subscription.transaction_id} is refunded newest first", holds, ", ".join(undone))


def _nobody_is_in(ends: list[tuple[Any, Any]], world: Provider) -> Line:
    names = [subscription.transaction_id for subscription, _ in ends]
    still_in = [
        effect.subject
        for effect in world.effects()
        if effect.subject in names and (effect.kind, effect.status) == ("access", "live")
    ]
    return Line("who is no customer any more is let in no more", not still_in, ", ".join(still_in) or "nobody is in")


def _bills(ends: list[tuple[Any, Any]], world: Provider) -> Table:
    table = Table(title="Bills", title_justify="left", title_style="bold", box=None, padding=(0, 1), pad_edge=False)
    for heading in ("", "charged", "declined", "refunded", "kept", "ended because"):
        table.add_column(heading, no_wrap=True, justify="right" if heading not in ("", "ended because") else "left")
    for subscription, seen in ends:
        effects = [each for each in world.effects(subscription.transaction_id) if each.kind == "charge"]
        refunded = sum(each.status == "undone" for each in effects)
        kept = f"{sum(each.amount for each in effects if each.status == 'live') / 100:.2f}"
        declined = str(world.refused(subscription.transaction_id))
        table.add_row(subscription.transaction_id, str(len(effects)), declined, str(refunded), kept, _why(seen))
    return table


if __name__ == "__main__":
    sys.exit(run("subscription_billing", play))
