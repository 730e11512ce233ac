"""What an agent's function becomes: a worker's task that also tells what it has done, and has what it has learned."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from multiagents.agents import programs
from multiagents.agents.agent import agent_of
from multiagents.agents.extras import lacks
from multiagents.agents.tools import options_of
from multiagents.exceptions import ConfigurationError
from multiagents.plain_json import dumps
from multiagents.state_store.records import BUILT_IN
from multiagents.worker_sdk.registry import workers
from multiagents.worker_sdk.tasks import WorkerTask, task_of

if TYPE_CHECKING:
    from multiagents.agents.agent import Agent
    from multiagents.agents.programs import Program
    from multiagents.state_store.records import Example

#: What the history of executions tells of each.
_TOLD = (
    "transaction_id",
    "step",
    "at",
    "outcome",
    "edited",
    "score",
    "error",
    "attempt",
    "seconds",
    "models",
    "program",
)


class AgentTask(WorkerTask):
    """The worker that `dspy_worker` makes of a function.

    What it tells of its past is the same in every process whose Celery app is that of the runs.
    """

    __slots__ = ()
    # An instance has those of its function; a class body would hide that.
    __doc__ = vars(WorkerTask)["__doc__"]
    __module__ = vars(WorkerTask)["__module__"]

    def __init__(self, task: WorkerTask, agent: Agent) -> None:
        super().__init__(task.name, task._get_current_object)  # noqa: SLF001 - what a Proxy is made from
        object.__setattr__(self, "__agent__", agent)

    @classmethod
    def named(cls, name: str) -> AgentTask:
        """The task of an agent, by its name.

        Raises:
            WorkerNotFoundError: when no worker of the name is registered here.
            WorkerError: when it is no agent.
        """
        return cls(task_of(name), agent_of(workers[name]))

    @property
    def agent(self) -> Agent:
        """What `dspy_worker` was told."""
        found: Agent = object.__getattribute__(self, "__agent__")
        return found

    def orchestrator_of(self, app: Any = None) -> Any:
        """The orchestrator of the app whose runs are meant.

        Args:
            app: the Celery app; None is the current one.

        Raises:
            ConfigurationError: when the app has none.
        """
        chosen = self._get_current_object().app if app is None else app
        found = getattr(chosen, "multiagents", None)
        if found is None:
            main = getattr(chosen, "main", None) or "default"
            raise ConfigurationError(
                f'worker "{self.name}" was asked about its runs, and the Celery app "{main}" has no orchestrator: call '
                f"multiagents.init_app(app) in the module that makes the app, and import that here, or say which app "
                f"is meant with app="
            )
        return found

    def examples(self, limit: int | None = None, *, app: Any = None) -> Iterator[Example]:
        """What the worker has done, newest first, read page by page; also what has failed.

        Args:
            limit: so many of the newest; None: all.
            app: the Celery app whose runs are meant; None is the current one.

        Raises:
            ConfigurationError: when the app has no orchestrator.
        """
        orchestrator = self.orchestrator_of(app)
        keep_ms = round(orchestrator.settings.example_retention * 1000)
        examples: Iterator[Example] = orchestrator.store.examples.all(self.name, keep_ms, limit)
        return examples

    def get_optimization_data(self, limit: int | None = None, *, app: Any = None) -> dict[str, Any]:
        """What there is to learn from, as plain data.

        Args:
            limit: look at so many of the newest executions; None: at all that are kept.
            app: the Celery app whose runs are meant; None is the current one.

        Returns:
            ``training_examples``: of each answer ``inputs``, ``outputs``, ``trace``, ``outcome`` (the status of its
            run), ``edited``, ``score``, ``note`` and more; ``execution_history``: the same and those that failed, with
            ``status`` and ``error``; ``success_rate``: how many of those whose runs have ended are of completed ones,
            from 0 to 1, None while there are none; ``available_tools``: their names. Newest first.

        Raises:
            ConfigurationError: when the app has no orchestrator.
        """
        return optimization_data(self.agent, self.examples(limit, app=app))

    def export_examples(
        self, to: str | os.PathLike[str] | IO[str], *, limit: int | None = None, app: Any = None
    ) -> int:
        """Write the answers down as JSON Lines, newest first; what has failed is left out.

        ``dspy.Example(**line["inputs"], **line["outputs"]).with_inputs(*line["inputs"])`` is a line as DSPy has it.

        Args:
            to: the path of a file, which is written anew, or an open one.
            limit: look at so many of the newest executions; None: at all that are kept.
            app: the Celery app whose runs are meant; None is the current one.

        Returns:
            how many lines there are.

        Raises:
            ConfigurationError: when the app has no orchestrator.
            OSError: when the file cannot be written.
        """
        found = self.examples(limit, app=app)
        if isinstance(to, str | os.PathLike):
            with Path(to).open("w", encoding="utf-8") as file:
                return _write(file, found)
        return _write(to, found)

    # --- what it has learned -----------------------------------------------------------------------------------------

    def programs(self, *, app: Any = None) -> list[Program]:
        """What the agent has learned: its programs, oldest first, with where each stands and how it has scored.

        Args:
            app: the Celery app whose workers are meant; None is the current one.

        Raises:
            ConfigurationError: when the app has no orchestrator.

        >>> for program in classify.programs():  # doctest: +SKIP
        ...     print(program.version, program.state, program.share, program.scores)
        """
        return programs.programs(self.orchestrator_of(app).store, self.name)

    def promote(
        self,
        version: int,
        share: float = 1.0,
        *,
        reason: str | None = None,
        actor: str | None = None,
        app: Any = None,
    ) -> None:
        """Have the agent ask with a program, in all steps that begin from now on, or in a share of them (a canary).

        Worker processes know of it within a second or so, and need no restart. A step that has begun goes on with what
        it has begun with. Promoting what is in place already changes nothing.

        Args:
            version: the program's; 0 is the built-in one, which the code is.
            share: of how many steps, above 0 and up to 1; which ones, their idempotency keys say.
            reason: why, to be shown with the program.
            actor: who.
            app: the Celery app whose workers are meant; None is the current one.

        Raises:
            ProgramNotFoundError: when it is not kept.
            ProgramMismatchError: when it was made for another signature, other tools, another adapter or DSPy than the
                worker has here. (Where DSPy is not installed nobody can tell; the workers look themselves.)
            WorkerError: when the share is none.
            ConfigurationError: when the app has no orchestrator.

        >>> classify.promote(2, share=0.1, actor="ann")  # doctest: +SKIP
        """
        orchestrator = self.orchestrator_of(app)
        store = orchestrator.store
        if version != BUILT_IN:
            try:
                from multiagents.agents.dspy import check_fit
            except ModuleNotFoundError as error:
                if not lacks(error, "dspy"):
                    raise
            else:
                check_fit(self.agent, version, store, orchestrator.settings.lm)
        programs.promote(store, self.name, version, share, reason=reason, actor=actor)

    def rollback(self, *, reason: str | None = None, actor: str | None = None, app: Any = None) -> int:
        """Take back the last promotion: a canary if there is one, else the current program.

        Args:
            reason: why, to be shown with the program.
            actor: who.
            app: the Celery app whose workers are meant; None is the current one.

        Returns:
            the version that is current now; 0 is the built-in program.

        Raises:
            WorkerError: when there is nothing to roll back.
            ConfigurationError: when the app has no orchestrator.

        >>> classify.rollback(reason="too short", actor="ann")  # doctest: +SKIP
        1
        """
        return programs.rollback(self.orchestrator_of(app).store, self.name, reason=reason, actor=actor).current


def _write(file: IO[str], examples: Iterator[Example]) -> int:
    count = 0
    for example in examples:
        if is_answer(example):
            file.write(f"{dumps(example.as_dict())}\n")
            count += 1
    return count


def is_answer(example: Example) -> bool:
    """Whether there is something to train with: the attempt has answered a question, and has not failed."""
    return example.outputs is not None and not example.experience.error


def _tools_of(agent: Agent) -> list[str]:
    """What they are called; of a server that has yet to say so, where it is."""
    names = [options_of(tool).name for tool in agent.functions]
    for entry in agent.servers:
        names += [entry.options_of(name).name for name in entry.only] or [f"mcp:{entry.server.name}"]
    return names


def optimization_data(agent: Agent, examples: Iterator[Example]) -> dict[str, Any]:
    """Put together what `AgentTask.get_optimization_data` gives."""
    training: list[dict[str, Any]] = []
    history: list[dict[str, Any]] = []
    ended: list[bool] = []
    for example in examples:
        line = example.as_dict()
        if is_answer(example):
            training.append(line)
        status = "failed" if example.experience.error else "succeeded"
        history.append({"status": status} | {name: line[name] for name in _TOLD})
        if example.has_ended:
            ended.append(example.outcome == "completed")
    return {
        "worker": agent.name,
        "training_examples": training,
        "execution_history": history,
        "success_rate": sum(ended) / len(ended) if ended else None,
        "available_tools": _tools_of(agent),
    }
