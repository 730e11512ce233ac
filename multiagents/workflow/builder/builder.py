"""Write workflows down: `WorkflowBuilder` and `Step`.

Nothing is checked while a workflow is being written, so that steps may name later ones; `WorkflowBuilder.build` checks
everything at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from multiagents.exceptions import DefinitionError
from multiagents.retry import RetryPolicy
from multiagents.workflow.builder import nested
from multiagents.workflow.builder import validation as check
from multiagents.workflow.builder.assembly import assembled
from multiagents.workflow.builder.elements import Child, Lock, Map, Parallel, Step
from multiagents.workflow.builder.layout import Layout
from multiagents.workflow.builder.lock_options import check_lock
from multiagents.workflow.builder.nesting import Nesting
from multiagents.workflow.builder.nodes import Nodes
from multiagents.workflow.builder.probe_options import check_options
from multiagents.workflow.definition.definition import Definition, definitions
from multiagents.workflow.definition.rate_limit import Limit


class WorkflowBuilder(Nodes, Nesting):
    """Describe a workflow step by step; every method but `build` returns the builder.

    Args:
        name: the workflow's name.
        version: raise it whenever a workflow that is in use changes.
        deadline: seconds a run may take in all before it is undone; None is without limit.
        retention: seconds a finished run is kept; None is the setting ``multiagents_retention``.
        strict: refuse steps that say neither how they are undone nor why they need not be (rule S14); a pivot, and what
            comes behind it, need not say it.
        compensate_in: the order in which steps are undone; None is the reverse of their completion (rule S6).
        on_end: a worker that is run when a run has ended, once for each end, with what became of it:
            ``transaction_id``, ``workflow``, ``version``, ``status``, ``error`` (type and message, or None) and
            ``context``. It is a run of its own, ``<run>:on_end:<time of the end in ms>``, of ``<name>.on_end``. Of an
            end that is taken back at once (`Run.compensate`) it may not be told.

    >>> order = (
    ...     WorkflowBuilder("order", version="1")
    ...     .add_step("reserve", "reserve_stock", compensation="release_stock")
    ...     .add_parallel("risk", [Step("fraud", "check_fraud"), [Step("credit", "check_credit"), "set_limit"]])
    ...     .add_step("charge", "charge_card", compensation="refund_card")
    ...     .build()
    ... )
    >>> print(order.diagram("ascii"))
    order · version 1
    │
    ● reserve         reserve_stock   ⤺ release_stock
    │
    ├─┬─ risk
    │ ├─● fraud       check_fraud
    │ │
    │ ╰─● credit      check_credit
    │   │
    │   ● set_limit   set_limit
    │
    ● charge          charge_card     ⤺ refund_card
    """

    def __init__(
        self,
        name: str,
        version: str = "1",
        *,
        deadline: float | None = None,
        retention: float | None = None,
        strict: bool = False,
        compensate_in: Sequence[str] | None = None,
        on_end: Any = None,
    ) -> None:
        self.name = name
        self.version = version
        self._deadline = deadline
        self._retention = retention
        self._strict = strict
        self._compensate_in = compensate_in
        self._on_end = on_end
        super().__init__()

    def add_step(
        self,
        name: str,
        worker: Any = None,
        *,
        compensation: Any = None,
        after: str | Sequence[str] | None = None,
        when: Callable[[dict[str, Any]], bool] | None = None,
        inputs: Callable[[dict[str, Any]], Any] | Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
        undo_retry: RetryPolicy | None = None,
        timeout: float | None = None,
        schedule_to_start: float | None = None,
        schedule_to_close: float | None = None,
        heartbeat_timeout: float | None = None,
        cancel_safe: bool = False,
        resolve_with: Any = None,
        external: bool = False,
        pivot: bool = False,
        reread: Any = None,
        on_unknown: str = "compensate",
        compensate_on_failure: bool = False,
        no_compensation: str | None = None,
        local: bool = False,
        queue: str | None = None,
        priority: int | None = None,
        limit: Limit | None = None,
        summary: str | None = None,
    ) -> WorkflowBuilder:
        """Add a step. Without ``after`` it follows the step or block added before it.

        Args:
            name: what the step is called in this workflow.
            worker: a worker's name, a decorated function or a Celery task; None is the step's own name.
            compensation: the worker that undoes the step, given likewise.
            after: the steps or blocks it waits for, also later ones; ``[]`` for none.
            when: called with the context; the step is skipped where it answers false.
            inputs: what the worker gets in place of the context: a mapping of argument to dotted path
                (``{"amount": "order.total"}``), or a callable that makes it from the context.
            retry: how failed attempts are retried; None leaves it to the worker.
            undo_retry: the same for the compensation; None is long and capped (rule S16).
            timeout: seconds an attempt may take; None is the setting ``multiagents_step_timeout``, 0 is no limit.
            schedule_to_start: seconds an attempt may wait until a worker takes it.
            schedule_to_close: seconds that all attempts may take together.
            heartbeat_timeout: seconds that may pass between two heartbeats of the worker.
            cancel_safe: the step may be undone while an attempt might still be running (rule S5).
            resolve_with: with ``on_unknown="resolve"``: the worker that finds out whether the step took effect, its
                probe; given like ``worker``. It is asked once the outcome is unknown for good, with the step's input,
                and answers with a `Resolution`. Where it cannot tell, or fails beyond its own retry policy, the step
                waits for a person.
            external: somebody else does the step and reports its result; it is never dispatched again.
            pivot: the point of no return: once the step has succeeded, nothing is undone any more, and what fails then
                waits for a person (rule S12). Of a pivot whose outcome is unknown a person decides, too (rule S13),
                after its probe if it has one.
            reread: of a pivot: a worker that looks once more, right before it, whether all is as the run takes it to
                be; a step of its own, ``<name>.reread``, with the pivot's ``when`` and ``inputs``. If it fails, the run
                goes back: the pivot has not been done yet (rule S29).
            on_unknown: what to do about an unknown outcome: ``compensate``, ``resolve`` it by asking ``resolve_with``,
                or ``park`` it for a person (rule S3).
            compensate_on_failure: undo the step also when it failed for certain.
            no_compensation: why the step needs no compensation, in words.
            local: a step of milliseconds: the process that has run the step before it runs this one, too, with a commit
                and without a message, if it knows the worker. Where a step is the first, is one of several that are due
                at once, or is tried again, and with ``multiagents_orchestration = "queued"``, it is sent like others.
            queue: the Celery queue of its messages.
            priority: the priority of its messages, 0-9.
            limit: how many attempts to do it run at once, or begin in a time, over all workers; None leaves it to the
                worker. Its undo has the limit of its own worker.
            summary: a line for people.
        """
        self._elements.append(
            Step(
                name,
                worker,
                compensation=compensation,
                after=after,
                when=when,
                inputs=inputs,
                retry=retry,
                undo_retry=undo_retry,
                timeout=timeout,
                schedule_to_start=schedule_to_start,
                schedule_to_close=schedule_to_close,
                heartbeat_timeout=heartbeat_timeout,
                cancel_safe=cancel_safe,
                resolve_with=resolve_with,
                external=external,
                pivot=pivot,
                reread=reread,
                on_unknown=on_unknown,
                compensate_on_failure=compensate_on_failure,
                no_compensation=no_compensation,
                local=local,
                queue=queue,
                priority=priority,
                limit=limit,
                summary=summary,
            )
        )
        return self

    def add_parallel(
        self,
        name: str,
        branches: Iterable[Any],
        on_failure: Literal["wait", "cancel"] = "wait",
        *,
        after: str | Sequence[str] | None = None,
    ) -> WorkflowBuilder:
        """Add branches that run side by side; what follows waits for the last step of each.

        Args:
            name: what ``after=`` of other steps may call the block.
            branches: each a `Step`, a worker, or a list of these that run one after the other. A list inside such a
                list is more of the same sequence.
            on_failure: when a step of a branch is over without success, no further step starts. ``wait`` until what
                runs in the other branches has come to its own end before anything is undone, or ``cancel`` it: its
                worker is asked to stop, and a step that is ``cancel_safe`` is not waited for (rules S5, S7).
            after: the steps or blocks that every branch waits for; None is the one added before.

        >>> checks = WorkflowBuilder("checks").add_parallel("risk", ["check_fraud", "check_credit"]).build()
        >>> checks.entries
        ('check_fraud', 'check_credit')
        """
        # An iterator is read now: build() may be called twice.
        kept = list(branches) if check.is_listing(branches) else branches
        self._elements.append(Parallel(name, kept, on_failure, after=after))
        return self

    def build(self, *, register: bool = True) -> Definition:
        """Check the workflow and make its definition.

        Args:
            register: make it known to this process, so that runs can be started by its name.

        Returns:
            the definition; the builder may be added to and built again.

        Raises:
            DefinitionError: when something does not fit; the message names the step and what was expected. Also when
                another content is registered under this name and version.

        Warns:
            UserWarning: for a step with ``timeout=0``, as a hung worker then holds its run for ever.
        """
        check.workflow_name(self.name, self.version)
        layout = Layout(self.name)
        layout.sequence(self._elements, ())
        if not layout.placed:
            raise DefinitionError(f'workflow "{self.name}" has no steps; add one with add_step("name", "worker")')
        for name in layout.blocks:
            if name in layout.placed:
                raise DefinitionError(
                    f'workflow "{self.name}" has a step and a parallel block named "{name}"; `after` could mean '
                    f"either: rename one of them"
                )
        for each in layout.placed.values():
            if isinstance(each.step, Step):
                check.step_options(self.name, each.step)
                check_options(self.name, each.step)
            elif isinstance(each.step, Child):
                nested.check_child(self.name, each.step)
            elif isinstance(each.step, Map):
                nested.check_map(self.name, each.step)
            elif isinstance(each.step, Lock):
                check_lock(self.name, each.step)
            else:
                check.node(self.name, each.step)
        steps = assembled(layout)
        options = check.workflow_options(
            self.name, steps, self._deadline, self._retention, self._strict, self._compensate_in, self._on_end
        )
        definition = Definition(name=self.name, version=self.version, steps=steps, blocks=layout.blocks, **options)
        check.pivots(definition)
        check.strictness(definition)
        for name, step in steps.items():
            if step.timeout == 0:
                warnings.warn(
                    f'workflow "{self.name}" step "{name}" has timeout=0, which is no limit: a worker that hangs in it '
                    f"holds the run until somebody cancels it; give a number of seconds, or leave timeout out",
                    UserWarning,
                    stacklevel=2,
                )
        return definitions.register(definition) if register else definition

    def __repr__(self) -> str:
        names = ", ".join(repr(element.name) for element in self._elements) or "no steps yet"
        return f"<WorkflowBuilder {self.name!r} version {self.version!r}: {names}>"
