"""`optimize`: what is looked at before the run is started, so that nothing is paid that comes to nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from multiagents.agents.agent import Agent, agent_of
from multiagents.agents.budget import Budget
from multiagents.agents.learning.metric import named
from multiagents.agents.learning.options import Optimizer, Options, check_enough, chosen
from multiagents.agents.optimizing.steps import definition
from multiagents.agents.tools import options_of
from multiagents.exceptions import ConfigurationError
from multiagents.plain_json import plain
from multiagents.worker_sdk.registry import workers

if TYPE_CHECKING:
    from multiagents.agents.agent_task import AgentTask
    from multiagents.orchestrator.api import Run

#: Seconds that looking for a program, and measuring it, may take each.
TIMEOUT = 86400.0


def optimize(
    worker: AgentTask | str,
    *,
    metric: Any,
    optimizer: str = Optimizer.BOOTSTRAP,
    budget: int | Budget | None = None,
    threshold: float = 0.0,
    approve: bool = False,
    approval_timeout: float | None = None,
    examples: Sequence[Mapping[str, Any]] | None = None,
    holdout: float = 0.3,
    seed: int = 0,
    min_score: float = 0.5,
    max_examples: int = 200,
    model: str | None = None,
    canary_share: float = 0.1,
    canary_runs: int = 50,
    canary_timeout: float = 7 * 86400.0,
    tolerance: float = 0.05,
    call_tools: bool = False,
    timeout: float = TIMEOUT,
    transaction_id: str | None = None,
    app: Any = None,
) -> Run:
    """Have an agent learn from what it has done: start a saga that looks for a better program, and puts it in place.

    Its steps: ``snapshot`` the examples, ``compile`` (look for a program, under the journal: a worker that dies repeats
    nothing that was paid), ``evaluate`` it and the current one with examples that were held out, ``keep`` it as a
    version, ``approve`` (a person, if asked for), ``canary`` and ``judge`` (a share of the steps asks with it until
    enough of their runs have ended), ``promote``. A step that says no fails in words; what was in place before is then
    in place again. They run where the worker's steps do, on its queue.

    Args:
        worker: the agent, or its name.
        metric: how good an answer is: ``"package.module:function"``, or a function that can be imported so, called as
            ``metric(example, prediction, trace=None)``, for a number from 0 to 1, a bool, or ``score`` and
            ``feedback``; or the name of a worker, whose context has ``example`` and ``prediction`` (for an agent, whose
            signature cannot have that field, also as ``answer``).
        optimizer: ``"bootstrap"`` shows the model examples that were answered well; ``"gepa"`` has it reflect on what
            went wrong and write better instructions; ``"mipro"`` tries instructions and examples (needs optuna).
        budget: how many calls of a model looking for a program may take, at most; None: where the optimizer itself
            stops. Measuring takes two more for each held-out example, or as many as the agent makes. Or a `Budget`,
            which takes ``max_tokens=`` of the agent; its own budgets are not asked.
        threshold: by how much the score has to be better, from 0 to 1; it has to be better in any case.
        approve: a person has to approve it (``run.approve("approve")``), with the scores in ``describe()``.
        approval_timeout: seconds after which nobody's approval is a rejection; None waits for ever.
        examples: what to learn from, as ``get_optimization_data()["training_examples"]`` has it: ``inputs``,
            ``outputs``. None: what the agent has done in runs that have completed, or that got a high score.
        holdout: which part of them is held out to measure with, between 0 and 1.
        seed: of all chance: what is held out, what is tried.
        min_score: what an example's feedback must be at least, if it has any.
        max_examples: how many are used at most, the newest.
        model: what the optimizer itself asks, and has answer for examples: a stronger model; None: the agent's.
        canary_share: of how many steps it is asked with at first; 0 or 1 puts it in place at once.
        canary_runs: how many runs with it have to end before it is judged; 0 puts it in place at once.
        canary_timeout: seconds after which it is taken back if fewer have.
        tolerance: by how much it may do worse than the current program, from 0 to 1: 0.05 are five points.
        call_tools: the agent's tools may really be called while it is optimized, many times; needed if it has any that
            are not ``idempotent=True``, or that wait for approval.
        timeout: seconds that looking, and measuring, may take each.
        transaction_id: the run's; made up if left out.
        app: the Celery app; None is the current one.

    Returns:
        the run; its result has ``scores`` and the ``version``.

    Raises:
        ConfigurationError: when an argument is not what it must be, a package is missing, the metric cannot be found,
            there are too few examples, or the app has no orchestrator. Nothing was paid.
        WorkerNotFoundError: when no worker of the name is registered here.
        WorkerError: when it is no agent.

    >>> run = optimize("classify", metric="shop.metrics:exact", threshold=0.02)  # doctest: +SKIP
    >>> run.result()["scores"]  # doctest: +SKIP
    {'candidate': 0.9, 'current': 0.7}
    """
    from multiagents.agents.agent_task import AgentTask

    name = worker if isinstance(worker, str) else worker.name
    found = workers[name]
    agent = agent_of(found)
    options = Options(
        metric=named(metric),
        optimizer=Optimizer.named(optimizer).value,
        budget=None if isinstance(budget, Budget) else budget,
        spend=asdict(budget) if isinstance(budget, Budget) else None,
        threshold=threshold,
        holdout=holdout,
        seed=seed,
        min_score=min_score,
        max_examples=max_examples,
        model=model,
        canary_share=canary_share,
        canary_runs=canary_runs,
        canary_timeout=canary_timeout,
        tolerance=tolerance,
        call_tools=call_tools,
    )
    _check(agent, options)
    task = worker if isinstance(worker, AgentTask) else AgentTask.named(name)
    orchestrator = task.orchestrator_of(app)
    given: dict[str, Any] = {"worker": name, "options": options.told}
    if examples is not None:
        given["examples"] = lines = plain(list(examples), "examples of optimize()")
        check_enough(name, len(chosen(lines, options)))
    else:
        check_enough(name, len(chosen((one.as_dict() for one in task.examples(app=app)), options)))
    workflow = definition(
        found.queue,
        approve=approve,
        canary=options.has_canary,
        timeout=timeout,
        approval_timeout=approval_timeout,
    )
    run: Run = orchestrator.start(workflow, given, transaction_id, attributes={"worker": name})
    return run


def _check(agent: Agent, options: Options) -> None:
    if agent.signature is None and agent.module is None:
        raise ConfigurationError(
            f'worker "{agent.name}" has neither signature= nor module=, so there is no program to make better'
        )
    if agent.servers:
        raise ConfigurationError(
            f'worker "{agent.name}" has tools of MCP servers, which differ from step to step, so a program cannot be '
            f"made for them"
        )
    dangerous = [one.name for one in map(options_of, agent.functions) if one.idempotent is not True or one.approval]
    if dangerous and not options.call_tools:
        raise ConfigurationError(
            f'optimizing worker "{agent.name}" would call its tools many times, and {", ".join(dangerous)} may not be '
            f"called for nothing; declare them idempotent=True if they do no harm, or say call_tools=True"
        )
    Optimizer.named(options.optimizer).check_installed()
