"""Write workflows down: `WorkflowBuilder`.

Nothing is checked while a workflow is being written, so that steps may name later ones; `WorkflowBuilder.build` checks
everything at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, Signature, signature
from typing import Any, Concatenate, ParamSpec, TypeVar

from multiagents.clock import Duration, in_seconds
from multiagents.exceptions import DefinitionError, UndoMissingWarning
from multiagents.plain_json import plain
from multiagents.workflow.builder.compiler import compiled
from multiagents.workflow.builder.elements import (
    Approval,
    Child,
    Choice,
    Element,
    Lock,
    Loop,
    Map,
    Parallel,
    Savepoint,
    Sleep,
    Step,
    Wait,
)
from multiagents.workflow.builder.layout import Layout
from multiagents.workflow.builder.option_checks import check_workflow
from multiagents.workflow.builder.saga_checks import (
    check_depth,
    check_passes,
    check_saga,
    quoted,
    steps_left_live,
    undo_order,
)
from multiagents.workflow.builder.workers import worker_name
from multiagents.workflow.definition import Definition, definitions

__all__ = ["WorkflowBuilder"]

_Arguments = ParamSpec("_Arguments")
_Builder = TypeVar("_Builder", bound="WorkflowBuilder")


def _adds(element: Callable[_Arguments, Element]) -> Callable[Concatenate[_Builder, _Arguments], _Builder]:
    """Make the method that adds an element: its name, arguments and docstring are the element's.

    Type checkers see the arguments through the types here; ``help`` and the like through what is set below.
    """

    def add(self: _Builder, /, *args: _Arguments.args, **named: _Arguments.kwargs) -> _Builder:
        self._elements.append(element(*args, **named))
        return self

    add.__name__ = f"add_{element.__name__.lower()}"
    add.__qualname__ = f"WorkflowBuilder.{add.__name__}"
    add.__doc__ = element.__doc__
    myself = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
    shown = Signature([myself, *signature(element).parameters.values()], return_annotation="WorkflowBuilder")
    add.__signature__ = shown  # type: ignore[attr-defined]  # what `inspect` and editors show
    return add


class WorkflowBuilder:
    """Describe a workflow step by step; every method but `build` returns the builder.

    Args:
        name: the workflow's name.
        version: raise it whenever a workflow that is in use changes.
        deadline: seconds a run may take in all before it is undone, or a timedelta; None is without limit.
        retention: seconds a finished run is kept, or a timedelta; None is the setting ``multiagents_retention``.
        strict: refuse steps that say neither how they are undone nor why they need not be (rule S14); a pivot, and what
            comes behind it, need not say it.
        compensate_in: the order in which steps are undone; None is the reverse of their completion (rule S6).
        on_end: a worker that is run when a run has ended, once for each end, with what became of it:
            ``transaction_id``, ``workflow``, ``version``, ``status``, ``error`` (type and message, or None) and
            ``context``. It is a run of its own, ``<run>:on_end:<time of the end in ms>``, of ``<name>.on_end``. Of an
            end that is taken back at once (`Run.compensate`) it may not be told.
        model: what its agents ask that name no ``model=`` themselves: a name such as ``"gemini/gemini-3.8-flash"``, a
            dict with ``model`` and more (``api_base``, ``temperature``, ``max_tokens``, ``adapter``), or a list of
            these, each asked where those before it cannot be. It is stored with the workflow, so it has no key, which
            comes from the environment of the workers. None is the setting ``multiagents_lm``.

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
        deadline: Duration | None = None,
        retention: Duration | None = None,
        strict: bool = False,
        compensate_in: Sequence[str] | None = None,
        on_end: Any = None,
        model: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self._deadline: float | None = in_seconds(deadline)
        self._retention: float | None = in_seconds(retention)
        self._strict = strict
        self._compensate_in = compensate_in
        self._on_end = on_end
        self._model = model
        self._elements: list[Element] = []

    # What they take, and what they do, stands with the elements.
    add_step = _adds(Step)
    add_parallel = _adds(Parallel)
    add_choice = _adds(Choice)
    add_loop = _adds(Loop)
    add_map = _adds(Map)
    add_child = _adds(Child)
    add_wait = _adds(Wait)
    add_approval = _adds(Approval)
    add_sleep = _adds(Sleep)
    add_lock = _adds(Lock)
    add_savepoint = _adds(Savepoint)

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
            UndoMissingWarning: for the steps that have neither ``compensation=`` nor ``no_compensation="reason"``, once
                one step of the workflow is undone. Of a step behind a pivot nothing need be said.
        """
        check_workflow(
            self.name,
            self.version,
            deadline=self._deadline,
            retention=self._retention,
            strict=self._strict,
            on_end=self._on_end,
            model=self._model,
        )
        layout = Layout(self.name, self._elements)
        steps = compiled(layout)
        definition = Definition(
            name=self.name,
            version=self.version,
            steps=steps,
            blocks=layout.blocks,
            deadline=self._deadline,
            retention=self._retention,
            strict=self._strict,
            compensate_in=undo_order(self.name, steps, self._compensate_in),
            on_end=worker_name(self._on_end),
            model=plain(self._model, f'the model of workflow "{self.name}"', error=DefinitionError),
        )
        check_saga(definition)
        check_passes(definition)
        check_depth(definition)
        for name, step in steps.items():
            if step.timeout == 0:
                warnings.warn(
                    f'workflow "{self.name}" step "{name}" has timeout=0, which is no limit: a worker that hangs in it '
                    f"holds the run until somebody cancels it; give a number of seconds, or leave timeout out",
                    UserWarning,
                    stacklevel=2,
                )
        if silent := steps_left_live(definition):
            warnings.warn(
                f'workflow "{self.name}" undoes what it did when it fails, but not {quoted(silent)}, which '
                f"{'says' if len(silent) == 1 else 'say'} nothing of it; give each a compensation=\"worker\", or say "
                f'why there is nothing to undo: no_compensation="it only reads"',
                UndoMissingWarning,
                stacklevel=2,
            )
        return definitions.register(definition) if register else definition

    def __repr__(self) -> str:
        names = ", ".join(repr(element.name) for element in self._elements) or "no steps yet"
        return f"<WorkflowBuilder {self.name!r} version {self.version!r}: {names}>"
