"""What `WorkflowBuilder` adds beside steps and blocks: choices, loops, waits, approvals, sleeps, save-points and
locks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

from multiagents.workflow.builder import validation as check
from multiagents.workflow.builder.elements import Approval, Choice, Element, Lock, Loop, Savepoint, Sleep, Wait


class Nodes:
    """The part of the builder that writes them down."""

    def __init__(self) -> None:
        self._elements: list[Element] = []

    def add_choice(
        self,
        name: str,
        chooser: Callable[[dict[str, Any]], str],
        branches: Mapping[str, Any],
        default: str | None = None,
        *,
        after: str | Sequence[str] | None = None,
        when: Callable[[dict[str, Any]], bool] | None = None,
        summary: str | None = None,
    ) -> Self:
        """Run exactly one of several branches; the steps of the others are skipped.

        Args:
            name: what the choice is called; its result is the label that was chosen. ``after=[name]`` waits for the
                branch that ran.
            chooser: called with the context; answers a label. It is asked once, and the answer is recorded. Where it
                raises, or answers a label that is not there, the choice fails for certain.
            branches: label -> a `Step`, a worker, or a list of these that run one after the other; ``[]`` for nothing.
            default: the label that counts where the answer is none of them.
            after: the steps or blocks it waits for; None is the one added before.
            when: called with the context; where it answers false, no branch runs.
            summary: a line for people.

        >>> from multiagents import WorkflowBuilder
        >>> check = (
        ...     WorkflowBuilder("check")
        ...     .add_step("classify")
        ...     .add_choice("route", lambda ctx: ctx["kind"], {"passport": "check_identity", "invoice": "check_sums"})
        ...     .build()
        ... )
        >>> check.steps["route"].branches["invoice"]
        ('check_sums',)
        """
        self._elements.append(Choice(name, chooser, branches, default, after=after, when=when, summary=summary))
        return self

    def add_loop(
        self,
        name: str,
        steps_or_worker: Any,
        until: Callable[[dict[str, Any]], bool],
        max_iterations: int,
        on_exhausted: Literal["continue", "fail"] = "continue",
        *,
        after: str | Sequence[str] | None = None,
    ) -> Self:
        """Run steps again and again until a condition holds, at most so many times.

        Every round has steps of its own: ``poll#1``, ``poll#2``, ... with idempotency keys of their own; rounds that
        were not needed show as skipped, and the others are undone newest first (rule S9). Behind a round stands the
        check ``<name>.until#<n>``, whose result is ``again`` or ``done``.

        Args:
            name: what the loop is called; ``after=[name]`` waits for its end.
            steps_or_worker: a worker (its rounds are named after the loop), a `Step`, or a list of these that run one
                after the other.
            until: called with the context after each round; true ends the loop.
            max_iterations: how many rounds there are at most, 1 to 100.
            on_exhausted: what it means that the condition still does not hold then: go on, or ``fail``.
            after: the steps or blocks it waits for; None is the one added before.

        >>> from multiagents import WorkflowBuilder
        >>> text = WorkflowBuilder("text").add_loop("write", ["draft", "review"], lambda ctx: ctx["good"], 3).build()
        >>> list(text.steps)[:3]
        ['draft#1', 'review#1', 'write.until#1']
        """
        given = steps_or_worker
        kept = list(given) if check.is_listing(given) else given
        self._elements.append(Loop(name, kept, until, max_iterations, on_exhausted, after=after))
        return self

    def add_wait(
        self,
        name: str,
        signal: str | None = None,
        schema: Any = None,
        timeout: float | None = None,
        on_timeout: Literal["fail", "continue"] = "fail",
        *,
        after: str | Sequence[str] | None = None,
        when: Callable[[dict[str, Any]], bool] | None = None,
        summary: str | None = None,
    ) -> Self:
        """Wait until a signal comes; its data is the step's result. A signal that came earlier is kept for it.

        Args:
            name: what the step is called.
            signal: the signal's name (``run.signal(name, data)``); None is the step's own.
            schema: a Pydantic model, or any type that Pydantic can validate, that the data has to fit; whoever gives a
                signal that does not fit is told so, and the run waits on.
            timeout: seconds to wait at most; None waits as long as it takes.
            on_timeout: ``fail`` the step, or ``continue`` without a result.
            after: the steps or blocks it waits for; None is the one added before.
            when: called with the context; the step is skipped where it answers false.
            summary: a line for people.

        >>> from multiagents import WorkflowBuilder
        >>> paid = WorkflowBuilder("paid").add_wait("paid", signal="payment", timeout=86_400).add_step("ship").build()
        >>> paid.steps["paid"].signal
        'payment'
        """
        self._elements.append(Wait(name, signal, schema, timeout, on_timeout, after=after, when=when, summary=summary))
        return self

    def add_approval(
        self,
        name: str,
        timeout: float | None = None,
        on_timeout: Literal["reject", "continue"] = "reject",
        *,
        signal: str | None = None,
        schema: Any = None,
        after: str | Sequence[str] | None = None,
        when: Callable[[dict[str, Any]], bool] | None = None,
        summary: str | None = None,
    ) -> Self:
        """Wait until a person says yes: ``run.signal(name, {"approved": True}, actor="ann")``.

        A no (``approved`` is false) fails the step for certain, so that the run goes back. Who decided, and why, is in
        the history.

        Args:
            name: what the step is called, and its signal.
            timeout: seconds to wait at most; None waits as long as it takes.
            on_timeout: what it means that nobody decided: ``reject``, or ``continue`` without a result.
            signal: another name for the signal.
            schema: a model that the data has to fit; None asks for ``approved`` alone.
            after: the steps or blocks it waits for; None is the one added before.
            when: called with the context; the step is skipped where it answers false.
            summary: a line for people.
        """
        self._elements.append(
            Approval(name, timeout, on_timeout, signal=signal, schema=schema, after=after, when=when, summary=summary)
        )
        return self

    def add_sleep(
        self,
        name: str,
        seconds: float | Callable[[dict[str, Any]], float],
        *,
        after: str | Sequence[str] | None = None,
        when: Callable[[dict[str, Any]], bool] | None = None,
        summary: str | None = None,
    ) -> Self:
        """Let time pass: seconds or months, through any restart. No process waits meanwhile.

        Args:
            name: what the step is called.
            seconds: how long; or a callable that says so, asked once with the context.
            after: the steps or blocks it waits for; None is the one added before.
            when: called with the context; the step is skipped where it answers false.
            summary: a line for people.

        >>> from multiagents import WorkflowBuilder
        >>> WorkflowBuilder("trial").add_sleep("trial_period", 14 * 86_400).add_step("charge").build().entries
        ('trial_period',)
        """
        self._elements.append(Sleep(name, seconds, after=after, when=when, summary=summary))
        return self

    def add_savepoint(
        self,
        name: str,
        retries: int = 1,
        *,
        after: str | Sequence[str] | None = None,
        summary: str | None = None,
    ) -> Self:
        """Mark a point to go back to: when a step behind it fails for good, only what stands behind it is undone.

        Then the run goes forward again from here, so many times at most; after that a failure undoes the whole run, or
        leads to the save-point before. Steps of a later pass are steps of their own, ``charge#2``, with idempotency
        keys of their own (rule S15). The context says which pass it is, and why, so that a choice, a ``when`` or
        ``inputs`` can take another way: ``{name: {"attempt": 2, "error": {"type": ..., "message": ...}}}``. A cancel,
        and the deadline, still undo everything.

        Args:
            name: what the save-point is called.
            retries: how often a run may go back to it, at least 1.
            after: the steps or blocks it waits for; None is the one added before.
            summary: a line for people.

        >>> from multiagents import WorkflowBuilder
        >>> parcel = (
        ...     WorkflowBuilder("parcel")
        ...     .add_step("pack")
        ...     .add_savepoint("packed")
        ...     .add_choice("way", lambda ctx: str(ctx["packed"]["attempt"]), {"1": "by_air", "2": "by_road"})
        ...     .add_step("send", compensation="fetch_back")
        ...     .build()
        ... )
        >>> [name for name in parcel.laid_out({}, ["packed"]).steps if name.endswith("#2")]
        ['way#2', 'by_air#2', 'by_road#2', 'send#2']
        """
        self._elements.append(Savepoint(name, retries, after=after, summary=summary))
        return self

    def add_lock(
        self,
        name: str,
        key: str | Callable[[dict[str, Any]], str],
        *,
        lease: float | None = None,
        timeout: float | None = None,
        on_timeout: Literal["fail", "continue"] = "fail",
        after: str | Sequence[str] | None = None,
        when: Callable[[dict[str, Any]], bool] | None = None,
        summary: str | None = None,
    ) -> Self:
        """Wait until the run has the lock on a business key, so that no other run works on the same thing (rule S29).

        It is held until the run is over, undo included, or until the lease is. Whoever waits gets it in the order of
        asking. The step's result is ``{name: {"key": ..., "token": n}}``: the token grows with every grant of that key,
        so that whoever keeps the thing itself can refuse a holder of a lease that is over. No process waits meanwhile.

        Args:
            name: what the step is called.
            key: what is locked, with ``{field}`` or ``{field.field}`` for what the context says; or a callable that
                says it, asked once with the context. A run that asks for the same key again has it already.
            lease: seconds after which others may have the lock; None is when the run is over.
            timeout: seconds to wait at most; None waits as long as it takes.
            on_timeout: ``fail`` the step, or ``continue`` without the lock, and without a result.
            after: the steps or blocks it waits for; None is the one added before.
            when: called with the context; the step is skipped where it answers false.
            summary: a line for people.

        >>> from multiagents import WorkflowBuilder
        >>> pick = WorkflowBuilder("pick").add_lock("stock", "stock:{sku}", timeout=60).add_step("reserve").build()
        >>> pick.steps["stock"].key
        'stock:{sku}'
        """
        self._elements.append(
            Lock(
                name, key, lease=lease, timeout=timeout, on_timeout=on_timeout, after=after, when=when, summary=summary
            )
        )
        return self
