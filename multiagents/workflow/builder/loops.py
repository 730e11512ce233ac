"""The rounds of a loop: what they are called, and what the check behind each of them answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from inspect import isawaitable
from typing import Any, ClassVar

from multiagents.workflow.builder.elements import (
    Approval,
    Choice,
    Element,
    Loop,
    Map,
    Parallel,
    Step,
    Wait,
)
from multiagents.workflow.builder.workers import is_listing, worker_name

#: What the check behind a round of a loop answers.
AGAIN, DONE = "again", "done"


@dataclass(frozen=True)
class RoundCheck:
    """The chooser of the check behind a round.

    Attributes:
        until: the loop's; called with the context.
        last: how many rounds there are, if this is behind the last one, and the loop has to be done by then.
        parameter: how its user calls it: an error names it.
    """

    until: Callable[[dict[str, Any]], bool]
    last: int | None = None
    parameter: ClassVar[str] = "until"

    def __call__(self, context: dict[str, Any]) -> Any:
        """Say whether the loop is done; what is no answer is handed on to whoever judges answers."""
        answer = self.until(context)
        if isawaitable(answer):
            return answer
        if answer:
            return DONE
        if self.last is not None:
            raise RuntimeError(f"the loop is not done after {self.last} rounds, and on_exhausted is 'fail'")
        return AGAIN


def holds_steps(loop: Loop) -> bool:
    """Whether a loop was given steps; a worker instead is one step, which is named after the loop."""
    return isinstance(loop.steps_or_worker, Element) or is_listing(loop.steps_or_worker)


def _held(element: Element) -> list[Any]:
    """The elements that an element holds; a worker that stands there is none."""
    match element:
        case Parallel():
            return list(element.branches) if is_listing(element.branches) else []
        case Choice():
            return list(element.branches.values()) if isinstance(element.branches, Mapping) else []
        case Loop() if holds_steps(element):
            return [element.steps_or_worker]
    return []


def names_in(elements: Any) -> Iterator[str]:
    """The names that elements have, and all that they hold."""
    for each in elements:
        if isinstance(each, Element):
            yield each.name
            yield from names_in(_held(each))
        elif is_listing(each):
            yield from names_in(each)
        elif (name := worker_name(each)) is not None:
            yield name


def renamed(element: Any, suffix: str, inside: set[str]) -> Any:
    """An element, and all that it holds, under the names of one round of the loop whose names are ``inside``."""
    if not isinstance(element, Element):
        if is_listing(element):
            return [renamed(each, suffix, inside) for each in element]
        name = worker_name(element)
        return element if name is None else Step(name + suffix, element)
    changes: dict[str, Any] = {"name": f"{element.name}{suffix}", "after": _after(element.after, suffix, inside)}
    match element:
        case Step():
            changes["worker"] = element.worker or element.name
        case Map():
            changes["worker_or_workflow"] = element.worker_or_workflow or element.name
        case Loop() if holds_steps(element):
            changes["steps_or_worker"] = renamed(element.steps_or_worker, suffix, inside)
        case Parallel() if is_listing(element.branches):
            changes["branches"] = [renamed(each, suffix, inside) for each in element.branches]
        case Choice() if isinstance(element.branches, Mapping):
            changes["branches"] = {label: renamed(each, suffix, inside) for label, each in element.branches.items()}
        case Wait() | Approval():
            changes["signal"] = element.signal or element.name
    return replace(element, **changes)


def _after(given: Any, suffix: str, inside: set[str]) -> Any:
    if isinstance(given, str):
        return given + suffix if given in inside else given
    return [_after(each, suffix, inside) for each in given] if is_listing(given) else given
