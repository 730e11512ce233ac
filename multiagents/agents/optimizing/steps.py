"""The steps of an optimization: a saga like any other, whose effect is what is in place, and whose undo the way back.

None of its decisions is code of a workflow: each step that says no fails, for good and in words, and what was put in
place before it is taken out again. So any process that has the workers may move such a run on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Any

from multiagents.agents import programs
from multiagents.agents.agent import Agent, agent_of
from multiagents.agents.learning.metric import metric_of
from multiagents.agents.learning.options import Optimizer, Options, check_enough, chosen, parted
from multiagents.agents.optimizing.canary import Ruling, ruling, tallied
from multiagents.exceptions import ConfigurationError, TerminalError
from multiagents.plain_json import canonical
from multiagents.retry import RetryPolicy
from multiagents.state_store.records import Example, canary_target
from multiagents.worker_sdk.attempt import StepContext, current_step
from multiagents.worker_sdk.attempt.asked import GivenBack
from multiagents.worker_sdk.registry import workers
from multiagents.worker_sdk.worker import worker
from multiagents.workflow.builder import WorkflowBuilder
from multiagents.workflow.definition import Definition

#: The workflow's name, and what its workers' names begin with.
NAME = "multiagents.optimize"
#: Seconds between two looks at a canary, at least and at most.
SOONEST, LATEST = 1.0, 300.0

_RETRY = RetryPolicy(max_attempts=5, initial_interval=2.0, non_retryable=(ConfigurationError,))


def definition(
    queue: str | None, *, approve: bool, canary: bool, timeout: float, approval_timeout: float | None
) -> Definition:
    """The workflow of an optimization whose steps go to a queue.

    Its version says what is in it: the others of its name run on beside it.
    """
    form = {"queue": queue, "approve": approve, "canary": canary, "timeout": timeout, "approval": approval_timeout}
    version = f"1.{sha256(canonical(form).encode()).hexdigest()[:8]}"
    made = WorkflowBuilder(NAME, version=version)
    made.add_step("snapshot", f"{NAME}.snapshot", queue=queue, no_compensation="it only reads")
    made.add_step("compile", f"{NAME}.compile", queue=queue, timeout=timeout, no_compensation="it only asks")
    made.add_step("evaluate", f"{NAME}.evaluate", queue=queue, timeout=timeout, no_compensation="it only asks")
    made.add_step("keep", f"{NAME}.keep", queue=queue, no_compensation="a program that is in no place does nothing")
    if approve:
        made.add_approval("approve", timeout=approval_timeout)
    if canary:
        share = {"worker": "worker", "version": "version", "share": "options.canary_share"}
        made.add_step("canary", f"{NAME}.promote", compensation=f"{NAME}.withdraw", inputs=share, queue=queue)
        made.add_step("judge", f"{NAME}.judge", queue=queue, no_compensation="it only looks")
    whole = {"worker": "worker", "version": "version"}
    made.add_step("promote", f"{NAME}.promote", compensation=f"{NAME}.withdraw", inputs=whole, queue=queue)
    return made.build(register=False)


def _told(context: Mapping[str, Any]) -> tuple[Agent, Options, StepContext]:
    return agent_of(workers[context["worker"]]), Options.read(context["options"]), current_step()


@worker(f"{NAME}.snapshot", retry=_RETRY)
def snapshot(context: dict[str, Any]) -> dict[str, Any]:
    """Take down what is learned from, and what is in place; from now on nothing that happens changes that."""
    agent, options, step = _told(context)
    Optimizer.named(options.optimizer).check_installed()
    metric_of(options.metric)
    lines = context.get("examples")
    if lines is None:
        lines = (one.as_dict() for one in _of_this_worker(agent, step))
    found = chosen(lines, options)
    check_enough(agent.name, len(found))
    train, held_out = parted(found, options)
    current = step.store_here().programs.placement(agent.name).current
    return {"data": {"train": train, "held_out": held_out}, "current": current}


@worker(f"{NAME}.compile", retry=_RETRY)
def compile_(context: dict[str, Any]) -> dict[str, Any]:
    """Look for a better program; every call of a model is in the journal, so a worker that dies costs nothing twice."""
    from multiagents.agents.dspy.optimizing import compiled

    agent, options, step = _told(context)
    return compiled(agent, options, step, context["data"]["train"], context["current"])


@worker(f"{NAME}.evaluate", retry=_RETRY)
def evaluate(context: dict[str, Any]) -> dict[str, Any]:
    """See what the candidate and the current program come to with the examples that were held out.

    Raises:
        TerminalError: when the candidate is not better, or not by enough.
    """
    from multiagents.agents.dspy.optimizing import evaluated

    agent, options, step = _told(context)
    held_out = context["data"]["held_out"]
    scores = evaluated(agent, options, step, held_out, context["current"], context["candidate"])
    gain = scores["candidate"] - scores["current"]
    if gain <= 0 or gain < options.threshold:
        by = f" by {options.threshold:g}" if options.threshold > 0 else ""
        raise TerminalError(
            f'what was learned for worker "{agent.name}" is not better{by}, and is not put in place: on '
            f"{len(held_out)} held-out examples it scored {scores['candidate']:.3f}, and the current program "
            f"{scores['current']:.3f}"
        )
    return {"scores": scores}


@worker(f"{NAME}.keep", retry=_RETRY)
def keep(context: dict[str, Any]) -> dict[str, Any]:
    """Give the candidate a version, under which a person may look at it, and put it in place."""
    agent, options, step = _told(context)
    about = {
        "optimizer": options.optimizer,
        "optimized_by": step.transaction_id,
        "scores": context["scores"],
        "versions": context["versions"],
        "examples": {name: len(part) for name, part in context["data"].items()},
    }
    store = step.store_here()
    return {"version": store.programs.add(agent.name, context["candidate"], about, token=step.idempotency_key)}


@worker(f"{NAME}.promote", retry=_RETRY)
def promote(context: dict[str, Any]) -> dict[str, Any]:
    """Put a program in place, for a share of the steps or for all of them."""
    step = current_step()
    store = step.store_here()
    share = context.get("share", 1.0)
    programs.promote(store, context["worker"], context["version"], share, reason="optimized", actor=_actor(step))
    return {"since": store.now().timestamp()} if share < 1 else {}


@worker(f"{NAME}.withdraw", retry=_RETRY)
def withdraw(context: dict[str, Any]) -> None:
    """Take it out again."""
    step = current_step()
    reason = "the optimization was undone" if step.error is None else step.error.message
    programs.withdraw(step.store_here(), context["worker"], context["version"], reason=reason[:500], actor=_actor(step))


@worker(f"{NAME}.judge", retry=_RETRY)
def judge(context: dict[str, Any]) -> dict[str, Any]:
    """Wait until enough runs with the canary have ended, and see whether they have ended as well as the others'.

    No worker waits with it, and no attempt is used up.

    Raises:
        TerminalError: when they have not, so that the canary is taken back.
    """
    agent, options, step = _told(context)
    store, version = step.store_here(), context["version"]
    placed = store.programs.placement(agent.name)
    if placed.current == version:
        return {"canary": {"promoted": "by hand"}}
    if placed.canary != version:
        raise TerminalError(f'canary {version} of worker "{agent.name}" was taken out of place; its optimization ends')
    waited = store.now().timestamp() - context["since"]
    canary, others = tallied(_since(agent, step, context["since"]), version, placed.current)
    if others.rate is None:  # all there is was asked with the canary: what was before it has to do
        _, others = tallied(_of_this_worker(agent, step), version, placed.current)
    found = {"runs": len(canary), "rate": canary.rate, "compared": others.rate, "compared_runs": len(others)}
    match ruling(canary, others, wanted=options.canary_runs, tolerance=options.tolerance):
        case Ruling.GOOD:
            return {"canary": found}
        case Ruling.WORSE:
            raise TerminalError(
                f'canary {version} of worker "{agent.name}" does worse, and is taken back: of {len(canary)} runs with '
                f"it {canary.rate or 0:.0%} have ended well, and of {len(others)} others {others.rate or 0:.0%}"
            )
    if waited > options.canary_timeout:
        raise TerminalError(
            f'canary {version} of worker "{agent.name}" is taken back: {len(canary)} runs with it have ended in '
            f"{timedelta(seconds=round(waited))}, and it takes {options.canary_runs} to judge it"
        )
    why = f"the end of runs with canary {version}: {len(canary)} of {options.canary_runs} have ended"
    raise GivenBack(why, min(max(waited / 10, SOONEST), LATEST), target=canary_target(why))


def _actor(step: StepContext) -> str:
    return f"{NAME} {step.transaction_id}"


def _of_this_worker(agent: Agent, step: StepContext) -> Iterable[Example]:
    keep_ms = round(step.settings.example_retention * 1000)
    return step.store_here().examples.all(agent.name, keep_ms)


def _since(agent: Agent, step: StepContext, since: float) -> Iterable[Example]:
    for example in _of_this_worker(agent, step):
        if example.at.timestamp() < since:
            return
        yield example
