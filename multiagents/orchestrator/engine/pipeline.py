"""The steps that every decision goes through, whoever makes it.

::

    view -> decide -> commit -> publish -> follow-ups

A *view* is what is known of the run (`multiagents.orchestrator.engine.view`). *Deciding* is the pure core's, with user
code to answer its questions. The *commit* is one script that applies all of it or refuses it whole. What the script
could not push is *published*, and what concerns other runs is handed back as *follow-ups*.

Where what is in hand is not enough to decide, the event is *recorded*: put down as it is, for a decision over the whole
run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from multiagents.events import Event
from multiagents.orchestrator.dispatch import Dispatcher
from multiagents.orchestrator.engine.commit_plan import commit_of
from multiagents.orchestrator.engine.follow_ups import Advance, FollowUp
from multiagents.orchestrator.engine.name_check import NameCheck
from multiagents.orchestrator.engine.outbox import Outbox
from multiagents.orchestrator.engine.user_code import Answers, CodeElsewhere
from multiagents.orchestrator.engine.version_check import Versions
from multiagents.orchestrator.engine.view import RunView, SnapshotView
from multiagents.settings import Settings
from multiagents.state_store import StateStore
from multiagents.state_store.records import Claim, Commit, Committed, Dispatch, Snapshot, Verdict
from multiagents.workflow.decider import advancing, answered, concerns_others
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunState

__all__ = ["Decided", "Outcome", "Pipeline"]


class Decided(NamedTuple):
    """A decision, before it is committed.

    Attributes:
        definition: what the run follows, expanded as it is after it.
        after: the run after it.
        events: the event that came, and those that follow from it.
        elsewhere: a step that is due and whose code is in another process.
        pending: more is due than it says.
        concerns_others: the run's parent, or its children, are to be told of it.
    """

    definition: Definition
    after: RunState
    events: Sequence[Event]
    elsewhere: str | None = None
    pending: bool = False
    concerns_others: bool = False


class Outcome(NamedTuple):
    """What became of an event.

    Attributes:
        verdict: of its commit.
        after: the run after it, if it was applied.
        events: the event, and those that followed from it.
        links: Celery signatures that the task is to carry as its links.
        follow_ups: what is left to be done.
        held: an attempt that is claimed for this process already, which is to run it now.
        elsewhere: nothing was decided: what is due takes the code of this step, which is in another process.
    """

    verdict: Verdict
    after: RunState
    events: Sequence[Event] = ()
    links: Sequence[Any] = ()
    follow_ups: Sequence[FollowUp] = ()
    held: Claim | None = None
    elsewhere: str | None = None


@dataclass(frozen=True)
class Pipeline:
    """What deciding and committing need, in one value.

    Attributes:
        store: where runs live.
        outbox: gets out what is decided.
        settings: the deployment's settings.
        elsewhere: remembers which steps wait for code that this process lacks.
        versions: warns of two contents under one version.
        names: warns of names that nobody knows.
    """

    store: StateStore
    outbox: Outbox
    settings: Settings
    elsewhere: CodeElsewhere
    versions: Versions
    names: NameCheck

    @classmethod
    def of(cls, store: StateStore, dispatcher: Dispatcher, settings: Settings) -> Pipeline:
        """Put one together."""
        return cls(
            store,
            Outbox(dispatcher, settings),
            settings,
            CodeElsewhere(settings),
            Versions(store),
            NameCheck(dispatcher),
        )

    @property
    def dispatcher(self) -> Dispatcher:
        """How attempts go out."""
        return self.outbox.dispatcher

    def of_snapshot(self, snapshot: Snapshot) -> SnapshotView:
        """A run as it was loaded."""
        return SnapshotView(snapshot, partial(self.store.payloads, snapshot.state.transaction_id))

    def decide(
        self,
        view: RunView,
        state: RunState,
        events: Sequence[Event],
        answers: Answers,
        now: datetime,
        *,
        near: Collection[str] | None = None,
        unclaimed: Collection[str] = (),
        begun: Collection[str] = (),
    ) -> Decided:
        """Say what follows, as far as the code that this process has goes.

        Args:
            view: the run.
            state: the run after the events that have come.
            events: these events.
            answers: answers the questions of the core.
            now: the time of the decision.
            near: look at these steps only; None is all of them.
            unclaimed: steps in flight that no worker has taken.
            begun: those of them that one has had, and given back.
        """
        how: dict[str, Any] = {"near": near, "unclaimed": unclaimed, "begun": begun, "projected": not view.whole}
        turn = advancing(view.definition, state, now=now, **how)
        after, following, left, more = answered(turn, answers)
        definition = view.definition.expanded(after.sizes, after.rollbacks, after.called)
        coded = [step for step in left if definition.steps[step].lacks_code] if left else ()
        return Decided(
            definition,
            after,
            [*events, *following],
            coded[0] if coded else None,
            more or len(left) > len(coded),
            concerns_others(definition, view.state, after),
        )

    def plan(
        self,
        view: RunView,
        decided: Decided,
        dispatches: Sequence[Dispatch],
        *,
        first: bool = False,
        hand_over: bool = False,
        decides: bool = False,
        **fences: Any,
    ) -> Commit:
        """The commit that applies a decision, or is refused whole.

        Args:
            view: the run that was decided upon.
            decided: the decision.
            dispatches: how its commands go out.
            first: the run is started by it, and is no child.
            hand_over: what is pending is decided by the orchestrator's task.
            decides: this is the decision that was pending.
            fences: ``site``, ``answers``, ``epoch``, ``version``, ... of the `Commit`.
        """
        pending = decided.pending or decided.elsewhere is not None or decided.concerns_others
        message = None
        if decided.elsewhere is not None or (hand_over and decided.pending):
            message = self.outbox.dispatcher.orchestration(decided.after.transaction_id, first=first)
        return commit_of(
            view,
            decided.definition,
            decided.after,
            decided.events,
            dispatches,
            retention=self.settings.retention,
            pending=pending,
            decided=decides and not pending,
            orchestration=message,
            **fences,
        )

    def commit(self, view: RunView, decided: Decided, dispatches: Sequence[Dispatch], **how: Any) -> Committed:
        """Apply a decision, or have it refused; the arguments are those of `plan`."""
        return self.store.commit(self.plan(view, decided, dispatches, **how))

    def record(self, view: RunView, after: RunState, event: Event, *, coalesces: bool, **fences: Any) -> bool | Verdict:
        """Put an event down as it is.

        Args:
            view: the run.
            after: the run after the event.
            event: what has come.
            coalesces: many come at once: only the first who records until somebody decides has the run decided.
            fences: ``site``, ``answers``, ``epoch``, ... of the `Commit`.

        Returns:
            whether whoever asks is to have the run decided; or the verdict, if it was refused.
        """
        commit = commit_of(
            view,
            view.definition,
            after,
            (event,),
            (),
            retention=self.settings.retention,
            coalesces=coalesces,
            pending=not coalesces,
            **fences,
        )
        committed = self.store.commit(commit)
        if committed.verdict is not Verdict.APPLIED:
            return committed.verdict
        return committed.decision_due or not coalesces

    def publish(
        self, decided: Decided, dispatches: Sequence[Dispatch], *, first: bool = False, hand_over: bool = False
    ) -> list[FollowUp]:
        """Get out what an applied commit could not push itself; the arguments are those of `plan`.

        Returns:
            what is left to be done.
        """
        transaction_id, outbox = decided.after.transaction_id, self.outbox
        follow_ups = outbox.publish(decided.definition, decided.after, dispatches, first=first)
        if not outbox.dispatcher.atomic and (decided.elsewhere is not None or (hand_over and decided.pending)):
            outbox.orchestrate(transaction_id, first=first)
        if decided.concerns_others or (decided.pending and not hand_over):
            follow_ups.append(Advance(transaction_id))
        return follow_ups
