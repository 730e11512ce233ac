"""Get out what a decision says: as part of its commit, or right after it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from multiagents.events import CommandEvent, CompensationEvent, Event
from multiagents.failpoints import WriteSite, write
from multiagents.names import Correlation
from multiagents.orchestrator.dispatch import Dispatcher, plan_dispatches
from multiagents.orchestrator.engine.follow_ups import AskForLock, FollowUp, TendChildren
from multiagents.settings import Settings
from multiagents.state_store.records import Delivery, Dispatch, parse_attempt_key
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import RunState

logger = logging.getLogger(__name__)


class Outbox:
    """Turns commands into dispatches, links, messages and follow-ups.

    Args:
        dispatcher: how attempts go out.
        settings: the deployment's settings.
    """

    def __init__(self, dispatcher: Dispatcher, settings: Settings) -> None:
        self.dispatcher = dispatcher
        self._settings = settings

    def dispatches(
        self,
        definition: Definition,
        state: RunState,
        facts: Iterable[Event],
        *,
        may_link: bool = False,
        first: bool = False,
    ) -> list[Dispatch]:
        """How the commands among these facts go out."""
        # What the same decision took back, because the run turned meanwhile, or settled, because its signal is there
        # already, does not go out at all.
        commands = [
            event
            for event in facts
            if isinstance(event, CommandEvent | CompensationEvent) and _is_in_flight(state, event)
        ]
        if not commands:
            return []
        return plan_dispatches(
            self.dispatcher,
            definition,
            state,
            commands,
            now=commands[0].at,
            default_timeout=self._settings.step_timeout,
            may_link=may_link,
            first=first,
        )

    def links(self, definition: Definition, facts: Iterable[Event], home: str | None = None) -> list[Any]:
        """The next undo as a link for the task of the one before, if there is just one."""
        undos = [event for event in facts if isinstance(event, CompensationEvent)]
        if len(undos) != 1 or undos[0].delay:
            return []
        correlation = Correlation.parse(undos[0].correlation_id)._replace(nonce=undos[0].nonce or "")
        if definition.own(correlation.step).is_undone_as_child:
            return []  # no task does it
        return [self.dispatcher.link(definition, correlation, home=home)]

    def orchestrate(self, transaction_id: str, *, first: bool = False) -> None:
        """Publish the orchestrator's message for a run."""
        write(WriteSite.ORCHESTRATE, lambda: self.dispatcher.send_orchestration(transaction_id, first=first))

    def publish(
        self, definition: Definition, after: RunState, dispatches: Sequence[Dispatch], *, first: bool = False
    ) -> list[FollowUp]:
        """What the commit could not push itself goes out now; if this process dies first, the sweep does it.

        Returns:
            what is to be done by others than workers.
        """
        follow_ups: list[FollowUp] = []
        children = [dispatch.step for dispatch in dispatches if dispatch.delivery is Delivery.CHILD]
        if children:
            follow_ups.append(TendChildren(after.transaction_id, children))
        for dispatch in dispatches:
            if dispatch.delivery is Delivery.OUTBOX:
                self._publish(definition, after, dispatch, first=first)
            elif dispatch.delivery is Delivery.LOCK:
                follow_ups.append(AskForLock(after.transaction_id, dispatch.step))
        return follow_ups

    def _publish(self, definition: Definition, after: RunState, dispatch: Dispatch, *, first: bool) -> None:
        correlation = after.correlation(dispatch.step, *parse_attempt_key(dispatch.attempt_key))
        probe = after.is_probe(correlation)
        try:
            publish = partial(
                self.dispatcher.publish, definition, correlation, dispatch.target, probe=probe, first=first
            )
            write(WriteSite.PUBLISH, publish)
        except Exception:
            logger.warning("%s was not published; the sweep will publish it", correlation, exc_info=True)


def _is_in_flight(state: RunState, event: CommandEvent | CompensationEvent) -> bool:
    step = state.step(event.step or "")
    return (step.undo if isinstance(event, CompensationEvent) else step.do).in_flight
