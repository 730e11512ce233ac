"""What the calls of one attempt may cost: set aside before each of them, and settled after it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from multiagents.exceptions import BudgetExceededError, LMNotConfiguredError, MultiAgentsError, StateStoreError
from multiagents.state_store.records import Account, Amount, Balance, Begun, Per, Reserved, ReserveVerdict
from multiagents.worker_sdk.attempt.asked import GivenBack

if TYPE_CHECKING:
    from multiagents.agents.budget import Budget
    from multiagents.state_store.budgets import Budgets
    from multiagents.worker_sdk.attempt import StepContext

logger = logging.getLogger(__name__)


class Bound(NamedTuple):
    """What a call costs at most.

    Attributes:
        model: what is asked.
        tokens: asked and answered together; None: nobody knows, as the answer has no limit.
        micro_usd: in millionths of a US dollar; None: nobody knows.
    """

    model: str
    tokens: int | None
    micro_usd: int | None


class Held(NamedTuple):
    """What is set aside for one call.

    Attributes:
        call: its name in the accounts.
        bound: how much.
        accounts: where.
    """

    call: str
    bound: Amount
    accounts: Sequence[Account]


class Spending:
    """The budgets of one attempt.

    Args:
        step: the attempt.
        worker: the agent's name, for words.
        budgets: what limits it.
        context: what fills their keys.
        outer: of the agent that has called this one, which spends, too.

    Raises:
        TerminalError: when a key cannot be filled.
    """

    def __init__(
        self,
        step: StepContext,
        worker: str,
        budgets: Sequence[Budget],
        context: Mapping[str, Any],
        *,
        outer: Spending | None = None,
    ) -> None:
        self._step = step
        self._worker = worker
        #: with what fills their keys
        self.budgets: list[tuple[Budget, Mapping[str, Any]]] = [*(() if outer is None else outer.budgets)]
        self.budgets += [(budget, context) for budget in budgets]
        for budget, about in self.budgets:
            self._account(budget, about)

    def reserve(self, begun: Begun, bound: Bound) -> Held:
        """Set aside what a call costs at most, in every budget.

        Args:
            begun: the call.
            bound: what it costs at most.

        Raises:
            LMNotConfiguredError: when nobody knows what it costs at most.
            BudgetExceededError: when there is not enough left.
            GivenBack: when there is not, while calls of others are under way.
        """
        correlation = self._step.claim.correlation
        direction = correlation.direction.value
        call = f"{correlation.identity}/{correlation.step}/{direction}/{begun.slot}"
        amount = self._checked(bound)
        held: list[Account] = []
        for budget, context in self.budgets:
            account = self._account(budget, context)
            if budget.per == Per.CALL:
                answer = Reserved(ReserveVerdict.GRANTED if amount.within(budget.limit) else ReserveVerdict.SPENT)
            else:
                answer = self._store.reserve(
                    account,
                    call,
                    self._step.claim.owner,
                    bound=amount,
                    limit=budget.limit,
                    keep_ms=round(self._step.settings.retention * 1000),
                    direction=correlation.direction,
                )
            if answer.verdict is not ReserveVerdict.GRANTED:
                self.settle(Held(call, amount, held), Amount())
                raise self._refusal(budget, account, answer, amount, bound.model)
            if budget.per != Per.CALL:
                held.append(account)
        return Held(call, amount, held)

    def settle(self, held: Held, used: Amount) -> None:
        """Say what a call has cost; if that fails, what was set aside for it counts as spent."""
        claim = self._step.claim
        for account in held.accounts:
            try:
                self._store.settle(account, held.call, claim.owner, used, claim.correlation.direction)
            except StateStoreError as error:
                logger.warning("what %s has cost is not known to budget %r: %s", held.call, account.key, error)

    @property
    def _store(self) -> Budgets:
        return self._step.store_here().budgets

    def _account(self, budget: Budget, context: Mapping[str, Any]) -> Account:
        # Each time: a day may have gone by since the attempt began.
        return budget.account(context, self._step.claim.correlation, self._step.store_here().now())

    def _checked(self, bound: Bound) -> Amount:
        """What a call costs at most, if that is known as far as it is limited."""
        if self.budgets and bound.tokens is None:
            raise LMNotConfiguredError(
                f'worker "{self._worker}" has a budget, and asks {bound.model} without saying how long the answer may '
                f"be, so nobody knows what it may cost; nothing was asked; give the worker max_tokens="
            )
        if bound.micro_usd is None and any(budget.usd is not None for budget, _ in self.budgets):
            raise LMNotConfiguredError(
                f'worker "{self._worker}" has a budget in dollars, and nobody knows the price of {bound.model}; '
                f"nothing was asked; say it in the settings: multiagents_lm_prices = {{{bound.model!r}: {{"
                f'"input": ..., "output": ...}}}}, dollars for a million tokens'
            )
        return Amount(bound.micro_usd or 0, bound.tokens or 0)

    def _refusal(
        self, budget: Budget, account: Account, answer: Reserved, amount: Amount, model: str
    ) -> MultiAgentsError | GivenBack:
        (spent, reserved), limit = answer.balance, budget.limit
        named = f'budget "{account.key}" of {_words(limit, limit)} per {budget.per}'
        if answer.verdict is ReserveVerdict.TAKEN:
            why = (
                f"{named} has {_words(spent, limit)} spent and {_words(reserved, limit)} set aside for calls under way"
            )
            return GivenBack(why, target=account.key)
        step = self._step.step
        if budget.per == Per.CALL:
            found = f"a call of {model} may cost up to {_words(amount, limit)}"
            then = "give it more, or make the call smaller: max_tokens=, a shorter question"
        else:
            when = f" ({account.period}, UTC)" if account.period else ""
            next_call = f"the next call of {model} may cost up to {_words(amount, limit)}"
            found = f"{_words(spent, limit)} spent{when}, and {next_call}"
            wait = f", wait for the next {budget.per}" if account.period else ""
            then = f"give it more{wait}, or make the call smaller with max_tokens=; then run.retry({step!r})"
        return BudgetExceededError(
            f'worker "{self._worker}": {named}: {found}; it was not made; {then}',
            details=_details(budget, account, answer.balance, amount),
        )


def _details(budget: Budget, account: Account, balance: Balance, amount: Amount) -> dict[str, Any]:
    return {
        "budget": account.key,
        "per": str(budget.per),
        "period": account.period,
        "limit": {"usd": budget.usd, "tokens": budget.tokens},
        "spent": {"usd": balance.spent.usd, "tokens": balance.spent.tokens},
        "next": {"usd": amount.usd, "tokens": amount.tokens},
    }


def _words(amount: Amount, limit: Amount) -> str:
    """Dollars and tokens, whichever of them is limited, for people."""
    parts = []
    if limit.micro_usd:
        parts.append(f"${amount.usd:,.6f}".rstrip("0").rstrip("."))
    if limit.tokens:
        parts.append(f"{amount.tokens:,} tokens")
    return " and ".join(parts)
