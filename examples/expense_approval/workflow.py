"""Two sagas with an approval: a claim has two weeks for it, petty cash a second."""

from __future__ import annotations

from pydantic import BaseModel, PositiveInt

from examples.expense_approval.workers import hold_budget, pay_claim, release_budget
from multiagents import Definition, WorkflowBuilder

#: Seconds that a person has to decide about a claim, and about petty cash.
TWO_WEEKS = 14 * 86_400
ONE_SECOND = 1.0


class Decision(BaseModel):
    """What the person who decides has to say; anything else is refused, and the run waits on."""

    approved: bool
    #: cents
    granted: PositiveInt | None = None


def expense(name: str, deadline: float) -> Definition:
    """A claim that somebody has to decide about within so many seconds."""
    return (
        WorkflowBuilder(name, version="1")
        .add_step("budget", hold_budget, compensation=release_budget)
        .add_approval("decision", timeout=deadline, on_timeout="reject", schema=Decision)
        .add_step("payment", pay_claim, no_compensation="nothing can fail behind it")
        .build()
    )


expense_claim = expense("expense_claim", TWO_WEEKS)
petty_cash = expense("petty_cash", ONE_SECOND)
