"""Four subscriptions at once: a whole term, a notice after two reminders, a dead card, and a withdrawal.

``python -m examples.subscription_billing.main``, from the project's folder. A month takes less than a second.
"""

from __future__ import annotations

import sys
from typing import Any

from examples._support.pictures import table
from examples._support.scene import Scene, run
from examples._support.world import UnavailableError, World
from examples.subscription_billing.workflow import MONTH, TERM, subscription_billing

#: Cents a month.
PRICE = 990


def story(scene: Scene) -> None:
    """Start the four, give notice for one, withdraw another, and show what became of each."""
    scene.say(f"four subscriptions of {TERM} months at most; a month takes {MONTH:g} s here")
    declined = UnavailableError("the card is declined")
    scene.fail("charge", "S-ben", declined, after=1, times=2)
    scene.fail("charge", "S-cleo", declined, after=1)
    names = ("S-ada", "S-ben", "S-cleo", "S-dan")
    ada, ben, cleo, dan = (scene.start(subscription_billing, name, price=PRICE) for name in names)

    scene.until(ben, lambda seen: seen.steps["charge#2"].attempts > 1, "a reminder")
    answer = ben.signal("notice", {"ended": "notice given"}, actor="ben", reason="too many reminders")
    scene.say(f"ben's card was declined, he was reminded, and gives notice: it is {answer} until the month is over")
    scene.until(dan, lambda seen: seen.steps["charge#2"].status == "succeeded", "the second month")
    dan.cancel(actor="dan", reason="withdrawal within the legal period")
    scene.say("dan withdraws from the contract: everything is refunded, newest first\n")

    bills = [
        bill(scene, ada, "the whole term", "completed", "the term is over", months=TERM),
        bill(scene, ben, "notice", "completed", "notice given", months=month_of_notice(scene, ben), declined=2),
        bill(scene, cleo, "the card is dead", "completed", "unpaid", months=1, declined=3),
        bill(scene, dan, "withdrawn", "cancelled", "withdrawn", months=0),
    ]
    scene.print(table("Bills", ["", "charged", "declined", "refunded", "kept", "ended because"], bills))

    undone = [event.step for event in dan.history() if event.type == "compensation"]
    charges = [step for step in undone if step.startswith("charge")]
    newest_first = [f"charge#{number}" for number in range(len(charges), 0, -1)]
    right = len(charges) >= 2 and undone == [*newest_first, "access"]
    scene.check(f"{dan.transaction_id} is refunded newest first", right, ", ".join(undone))
    still_in = [
        each for name in names for each in scene.effects(name) if (each.kind, each.status) == ("access", "live")
    ]
    scene.check("who is no customer any more is let in no more", not still_in, "nobody is in" if not still_in else "")
    scene.checks.append(World().check_keys())


def month_of_notice(scene: Scene, subscription: Any) -> int:
    """The month at whose end a notice was taken: as a rule the one it came in."""
    scene.until(subscription, lambda seen: seen.status.is_end, "its end")
    taken = [event.step for event in subscription.history() if getattr(event, "status", "") == "received"]
    return int(taken[0].partition("#")[2]) if taken else 0


def bill(
    scene: Scene, subscription: Any, about: str, status: str, why: str, *, months: int, declined: int = 0
) -> list[str]:
    """Show how a subscription ended, and check that what it paid is what was due; its line of the table.

    Args:
        scene: the scene.
        subscription: the run.
        about: what is special about it.
        status: the status it is to end with.
        why: why it is to end.
        months: how many months are to be paid.
        declined: how often its card is to be declined.
    """
    name = subscription.transaction_id
    seen = scene.until(subscription, lambda seen: seen.status.is_end, "its end")
    scene.show(subscription, about)
    ended = "withdrawn" if seen.status == "cancelled" else str(seen.context.get("ended", "the term is over"))
    scene.check(f"{name} ends: {why}", (seen.status, ended) == (status, why), f"{seen.status}, {ended}")

    charges = [effect for effect in World().effects(name) if effect.kind == "charge"]
    kept = [effect for effect in charges if effect.status == "live"]
    said = [step for step, effect in seen.effects.items() if step.startswith("charge") and effect == "live"]
    unpaid = 1 if ended == "unpaid" else 0  # that month succeeded without a charge
    refused = sum(call["answer"].startswith("refused") for call in World().journal(name, "charge"))
    scene.check(
        f"{name} pays what was due: months paid {months}, cards declined {declined}",
        len(kept) == months == len(said) - unpaid and refused == declined,
        f"{len(kept)} x {PRICE} cents kept, {refused} times declined",
    )
    money = f"{sum(effect.amount for effect in kept) / 100:.2f}"
    return [name, str(len(charges)), str(refused), str(len(charges) - len(kept)), money, ended]


if __name__ == "__main__":
    sys.exit(run("subscription_billing", story))
