"""Put an outcome down without deciding upon it: whoever decides next has it before him.

So it is for every outcome in queued mode, where the orchestrator's task decides; and for an item of a map whose run
goes back. Hundreds of these may come at once. None of them is to load the whole run, only to find that the next thing
is due when the last one has come: the first that lands decides for all that land until then.
"""

from __future__ import annotations

from multiagents.events import ErrorEvent, ResultEvent
from multiagents.failpoints import WriteSite
from multiagents.names import Direction
from multiagents.orchestrator.engine.commit_plan import build_commit, dead_letters_of
from multiagents.settings import Settings
from multiagents.state_store import StateStore
from multiagents.state_store.records import Claim, Commit
from multiagents.workflow.decider.decider import evolve
from multiagents.workflow.definition import map_of
from multiagents.workflow.state.run_state import RunStatus

__all__ = ["landing", "lands"]


def lands(claim: Claim) -> bool:
    """Whether the outcome of an attempt is put down first, in a process that could decide upon it itself."""
    return map_of(claim.correlation.step) is not None and claim.state.status is not RunStatus.RUNNING


def landing(
    store: StateStore,
    settings: Settings,
    event: ResultEvent | ErrorEvent,
    claim: Claim,
    answers: tuple[str, str],
    wake: tuple[str, str, str] | None,
) -> Commit:
    """The commit that puts an outcome down.

    Args:
        store: loads the run's data, if an undo is over and its letter has to tell of it.
        settings: the deployment's settings.
        event: the outcome.
        claim: the attempt.
        answers: the attempt's record, which has to be there.
        wake: the orchestrator's message, to be pushed along with it.
    """
    transaction_id, undo = claim.correlation.transaction_id, claim.correlation.direction is Direction.UNDO
    after = evolve(claim.definition, claim.state, event)
    return build_commit(
        claim.definition,
        claim.state,
        after,
        [event],
        (),
        site=WriteSite.LAND_UNDO if undo else WriteSite.LAND,
        dead_letters=dead_letters_of(
            claim.definition, claim.state, after, lambda: store.payloads(transaction_id), claim.generation
        ),
        retention=settings.retention,
        stored_results=claim.parts,
        answers=answers,
        epoch=claim.epoch,
        coalesces=True,
        wake=wake,
    )
