"""What `WorkflowBuilder` adds that holds other work: runs of other workflows, and maps over a list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

from multiagents.retry import RetryPolicy
from multiagents.workflow.builder.elements import Child, Element, Map


class Nesting:
    """The part of the builder that writes them down."""

    _elements: list[Element]

    def add_child(
        self,
        name: str,
        workflow: Any,
        inputs: Callable[[dict[str, Any]], Any] | Mapping[str, str] | None = None,
        compensation: Any = None,
        detached: bool = False,  # noqa: FBT001, FBT002 - as users would write it
        on_failure: Literal["fail", "continue"] = "fail",
        *,
        no_compensation: str | None = None,
        undo_retry: RetryPolicy | None = None,
        after: str | Sequence[str] | None = None,
        when: Callable[[dict[str, Any]], bool] | None = None,
        summary: str | None = None,
    ) -> Self:
        """Run another workflow as a step: it has its own run, journal and undo.

        The child's run is called ``<run>:<name>``. When it is completed, what its steps have returned is the step's
        result. When it has failed, it has undone what it did, and the step has failed. A completed child is undone as a
        unit, by its own journal; a running one is cancelled and undoes what it did before its parent goes on (rule
        S11). A child with a pivot is a pivot.

        Args:
            name: what the step is called.
            workflow: a definition, or the name of one that was built before; the run is pinned to it.
            inputs: the child's input: a mapping of name to dotted path or a callable, as for a step; None is the
                context.
            compensation: a worker that undoes the completed child in place of its own journal.
            detached: start it and go on; whatever becomes of either run, the other is left alone.
            on_failure: what it means for this run that the child has failed, and has undone what it did: it has
                failed, too, or it goes on, and the step counts as skipped (rule S10).
            no_compensation: why the completed child is not undone with its parent, in words.
            undo_retry: how failed attempts of ``compensation`` are retried.
            after: the steps or blocks it waits for; None is the one added before.
            when: called with the context; the child is not run where it answers false.
            summary: a line for people.

        >>> from multiagents import WorkflowBuilder
        >>> pay = WorkflowBuilder("pay").add_step("charge", compensation="refund").build()
        >>> order = WorkflowBuilder("order-with-pay").add_step("reserve").add_child("payment", pay).build()
        >>> order.steps["payment"].workflow
        <Definition 'pay' version '1': 1 step, 0e8a59b3>
        """
        self._elements.append(
            Child(
                name,
                workflow,
                inputs,
                compensation,
                detached,
                on_failure,
                no_compensation=no_compensation,
                undo_retry=undo_retry,
                after=after,
                when=when,
                summary=summary,
            )
        )
        return self

    def add_map(
        self,
        name: str,
        worker_or_workflow: Any = None,
        over: str | Callable[[dict[str, Any]], Any] = "items",
        max_concurrency: int | None = None,
        compensation: Any = None,
        compensate_each: bool = True,  # noqa: FBT001, FBT002 - as above
        *,
        undo_retry: RetryPolicy | None = None,
        after: str | Sequence[str] | None = None,
        when: Callable[[dict[str, Any]], bool] | None = None,
        summary: str | None = None,
    ) -> Self:
        """Run the same for each item of a list, as many as there are when the run gets there.

        Each item is a step of its own, ``<name>[0]``, ``<name>[1]``, ..., with its own attempts, idempotency key and
        undo. Its context is the run's without the list, with ``item`` and ``index`` added. The map's result is the list
        of the items' results in order; it is in the context under ``name``. When an item fails for good, no further one
        starts, and what was done is undone (rule S8).

        Args:
            name: what the map is called.
            worker_or_workflow: what is run for each item: a worker, or a definition, and then each is a run of it. A
                `Step` or a `Child` gives it options of its own (its ``inputs`` narrow the context that items share).
                None is the map's name.
            over: dotted path of the list in the context, or a callable that answers it.
            max_concurrency: how many items run at once; None is all of them. Item i waits for item i - n, so that of n
                rows each goes its own way.
            compensation: the worker that undoes an item; with ``compensate_each=False`` all of them in one go: its
                ``current_step().result`` is the list of results, None for an item that has none.
            compensate_each: whether each item is undone by itself.
            undo_retry: how failed attempts of ``compensation`` are retried.
            after: the steps or blocks it waits for; None is the one added before.
            when: called with the context; no item is run where it answers false.
            summary: a line for people.

        >>> from multiagents import WorkflowBuilder
        >>> album = WorkflowBuilder("album").add_map("resize", over="images", max_concurrency=20).build()
        >>> list(album.laid_out({"resize": 2}).steps)
        ['resize[0]', 'resize[1]', 'resize']
        """
        self._elements.append(
            Map(
                name,
                name if worker_or_workflow is None else worker_or_workflow,
                over,
                max_concurrency,
                compensation,
                compensate_each,
                undo_retry=undo_retry,
                after=after,
                when=when,
                summary=summary,
            )
        )
        return self
