"""A fork: a new run of the same definition that takes over what another one has done, up to a step (rule S22).

It is started by the script that starts any run, so it is there with all that it takes over, or not at all. The run
that it is made of is only read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from multiagents.events import Event, StatusEvent
from multiagents.exceptions import WorkflowAlreadyExistsError, WorkflowError, WorkflowNotEndedError
from multiagents.names import origin_of
from multiagents.orchestrator.engine.commit_plan import digest
from multiagents.orchestrator.engine.user_code import asker, settled
from multiagents.state_store.payloads import Payloads, dumps
from multiagents.state_store.records import Snapshot
from multiagents.workflow.decider.commands import LAID_OUT, TAKEN_OVER
from multiagents.workflow.decider.decider import Ask, evolve
from multiagents.workflow.decider.fork import Takeover, takeover
from multiagents.workflow.definition import Definition, item_name, map_of
from multiagents.workflow.state.run_state import ActivityStatus, RunState, StepStatus

if TYPE_CHECKING:
    from multiagents.orchestrator.engine.engine import Engine


def fork(
    engine: Engine,
    transaction_id: str,
    from_step: str,
    input: Mapping[str, Any] | None,
    identity: str,
    *,
    reason: str | None = None,
    actor: str | None = None,
) -> None:
    """Start a run that begins where another one was; safe to repeat with the same ``identity``.

    Raises:
        WorkflowNotFoundError: when there is no such run.
        WorkflowNotEndedError: when it is not over.
        UnknownStepError: when its workflow has no such step.
        WorkflowAlreadyExistsError: when there is another run with this ``identity``.
        WorkflowError: when a fork cannot begin there, or the input cannot be used.
    """
    snapshot = engine.store.load(transaction_id)
    if not snapshot.state.status.is_end:
        raise WorkflowNotEndedError(transaction_id, snapshot.state.status.value, "fork")
    payloads = engine.store.payloads(transaction_id)
    given = _merged(transaction_id, payloads.input, input)
    taken = takeover(snapshot.definition, snapshot.state, from_step, payloads.results)
    plan = Fork(snapshot, payloads, taken, from_step, given, reason, actor)
    definition = snapshot.definition.expanded({})
    started = engine.start(definition, identity, given, attributes=snapshot.attributes, fork=plan)
    if (started.definition_hash, started.input_digest) != (definition.content_hash, plan.digest):
        raise WorkflowAlreadyExistsError(identity, "origin, step or input")


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
        return {step: self.known.results[step] for step in self.taken.steps if step in self.known.results}

    @property
    def digest(self) -> str:
        """What tells a start of this fork from that of another run."""
        origin = origin_of(self.of.state.transaction_id, self.of.generation)
        return digest({"forked_from": origin, "step": self.from_step, "input": self.input})

    def context_of(self, definition: Definition, step: str) -> dict[str, Any]:
        """The context of a step of the fork."""
        return Payloads(self.input, {}, self.results, {}).of(definition, step)

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
            whole = map_of(step)
            if whole is not None and whole not in maps:
                maps.add(whole)
                facts.append(self._laid_out(begun, whole))
            facts.append(self._taken_over(begun, step, is_item=whole is not None))
        return facts

    def _laid_out(self, begun: StatusEvent, name: str) -> StatusEvent:
        count, inputs = self.of.state.sizes[name], self.known.inputs
        items = [inputs[item_name(name, index)]["item"] for index in range(count)]
        return settled(name, begun, LAID_OUT, payload={"count": count, "items": items, "shared": inputs[name]})

    def _taken_over(self, begun: StatusEvent, step: str, *, is_item: bool) -> StatusEvent:
        state = self.of.state.step(step)
        outcome = StepStatus.SKIPPED if state.do.status is ActivityStatus.SKIPPED else StepStatus.SUCCEEDED
        facts: dict[str, Any] = {"outcome": outcome.value, "result": self.known.results.get(step)}
        if outcome is StepStatus.SUCCEEDED:
            facts["origin"] = state.origin or origin_of(self.of.state.transaction_id, self.of.generation)
        if step in self.known.inputs and not is_item and step not in self.of.state.sizes:
            facts["input"] = self.known.inputs[step]
        return settled(step, begun, TAKEN_OVER, payload=facts)


def beginning(
    definition: Definition, before: RunState, begun: StatusEvent, input: Mapping[str, Any], fork: Fork | None
) -> tuple[RunState, list[Event], Ask]:
    """How a run begins, before anything of it is sent out: its state, its first facts, and who answers for its code.

    Args:
        definition: what the run follows.
        before: the run when nothing is known of it.
        begun: its first fact.
        input: what it is started with.
        fork: what it takes over, if it is a fork.
    """
    if fork is None:
        return evolve(definition, before, begun), [begun], asker(definition, lambda _definition, _step: dict(input))
    state, facts = before, fork.facts(begun)
    for fact in facts:
        state = evolve(definition, state, fact)
    return state, facts, asker(definition, fork.context_of, results=lambda: fork.results)


def _merged(transaction_id: str, original: dict[str, Any], given: Any) -> dict[str, Any]:
    """The input of a fork: that of the original, with what is given on top."""
    if given is None:
        return original
    if not isinstance(given, dict):
        raise WorkflowError(
            f"run {transaction_id!r} was forked with input={given!r:.80}; expected a dict: it is merged over the "
            f"original input"
        )
    merged = {**original, **given}
    try:
        dumps(merged)
    except (TypeError, ValueError) as error:
        raise WorkflowError(
            f"run {transaction_id!r} was forked with an input that cannot be written as JSON: {error}; use str, int, "
            f"float, bool, None, lists and dicts"
        ) from None
    return merged
