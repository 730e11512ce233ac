"""A fork: a new run of the same definition that takes over what another one has done, up to a step (rule S22).

It is started by the script that starts any run, so it is there with all that it takes over, or not at all. The run
that it is made of is only read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from multiagents.events import Event, StatusEvent
from multiagents.exceptions import WorkflowError, WorkflowNotEndedError
from multiagents.names import origin_of
from multiagents.orchestrator.engine.user_code import settled
from multiagents.plain_json import check_words, digest, plain
from multiagents.state_store import StateStore
from multiagents.state_store.payloads import Payloads
from multiagents.state_store.records import Snapshot
from multiagents.workflow.decider import Fact, Takeover, all_results, takeover
from multiagents.workflow.definition import Definition, item_name, map_of
from multiagents.workflow.state import ActivityStatus, StepStatus


def plan_fork(
    store: StateStore,
    transaction_id: str,
    from_step: str,
    input: Mapping[str, Any] | None,
    max_bytes: int,
    *,
    reason: str | None = None,
    actor: str | None = None,
) -> Fork:
    """What a run has to start with that begins where another one was.

    Raises:
        WorkflowNotFoundError: when there is no such run.
        WorkflowNotEndedError: when it is not over.
        UnknownStepError: when its workflow has no such step.
        WorkflowError: when a fork cannot begin there, or the input cannot be used.
    """
    check_words(reason=reason, actor=actor)
    snapshot = store.load(transaction_id)
    if not snapshot.state.status.is_end:
        raise WorkflowNotEndedError(transaction_id, snapshot.state.status.value, "fork")
    payloads = store.payloads(transaction_id)
    given = _merged(transaction_id, payloads.input, input, max_bytes)
    taken = takeover(snapshot.definition, snapshot.state, from_step, payloads.results)
    return Fork(snapshot, payloads, taken, from_step, given, reason, actor)


@dataclass(frozen=True)
class Fork:
    """What a start has to know to begin where another run was.

    Attributes:
        of: the run that it is made of.
        known: the data of that run.
        taken: what is taken over.
        from_step: where it begins.
        input: its input.
        reason: why, for the history.
        actor: who, for the history.
    """

    of: Snapshot
    known: Payloads
    taken: Takeover
    from_step: str
    input: dict[str, Any]
    reason: str | None
    actor: str | None

    @cached_property
    def results(self) -> dict[str, Any]:
        """The results that are taken over."""
        known = all_results(self.of.definition, self.of.state, self.known.results)
        return {step: known[step] for step in self.taken.steps if step in known}

    @property
    def digest(self) -> str:
        """What tells a start of this fork from that of another run."""
        origin = origin_of(self.of.state.transaction_id, self.of.generation)
        return digest({"forked_from": origin, "step": self.from_step, "input": self.input})

    @property
    def definition(self) -> Definition:
        """What it follows: that of the original, as it was built."""
        return self.of.definition.expanded({})

    def facts(self, begun: StatusEvent) -> list[Event]:
        """The first facts of the fork: of which run it is one, and each step that it takes over.

        Args:
            begun: the first fact of any run of this definition.
        """
        forked = {"transaction_id": self.of.state.transaction_id, "step": self.from_step, **self.taken.to_dict()}
        payload = {**begun.payload, "forked": forked}
        update = {"payload": payload, "reason": self.reason, "actor": self.actor}
        facts: list[Event] = [begun.model_copy(update=update)]
        maps = set()
        for step in self.taken.steps:
            whole = None if step in self.of.state.called else map_of(step)
            if whole is not None and whole not in maps:
                maps.add(whole)
                facts.append(self._expanded(begun, whole))
            facts.append(self._taken_over(begun, step, is_item=whole is not None))
        return facts

    def _expanded(self, begun: StatusEvent, name: str) -> StatusEvent:
        count, inputs = self.of.state.sizes[name], self.known.inputs
        given = [inputs[item_name(name, index)] for index in range(count)]
        facts = {"count": count, "items": [own["item"] for own in given], "shared": inputs[name], "given": given}
        return settled(name, begun, Fact.EXPANDED, payload=facts)

    def _taken_over(self, begun: StatusEvent, step: str, *, is_item: bool) -> StatusEvent:
        state = self.of.state.step(step)
        outcome = StepStatus.SKIPPED if state.do.status is ActivityStatus.SKIPPED else StepStatus.SUCCEEDED
        if state.called is not None and state.outcome != "succeeded":
            outcome = StepStatus.UNKNOWN
        facts: dict[str, Any] = {"outcome": outcome.value, "result": self.results.get(step)}
        if outcome is not StepStatus.SKIPPED:
            facts["origin"] = state.origin or origin_of(self.of.state.transaction_id, self.of.generation)
        if step in self.known.inputs and not is_item and step not in self.of.state.sizes:
            facts["input"] = self.known.inputs[step]
        fact = settled(step, begun, Fact.TAKEN_OVER, payload=facts)
        return fact if state.called is None else fact.model_copy(update={"compensation": state.called.compensation})


def _merged(transaction_id: str, original: dict[str, Any], given: Any, max_bytes: int) -> dict[str, Any]:
    """The input of a fork: that of the original, with what is given on top."""
    if given is None:
        return original
    if not isinstance(given, dict):
        raise WorkflowError(
            f"run {transaction_id!r} was forked with input={given!r:.80}; expected a dict: it is merged over the "
            f"original input"
        )
    what = f"run {transaction_id!r} was not forked: its input"
    merged: dict[str, Any] = plain({**original, **given}, what, max_bytes=max_bytes)
    return merged
