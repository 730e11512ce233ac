"""Names that nobody knows: workers, queues and definitions that runs of a workflow would wait for (rule S33).

A name may be right and its worker not be up yet, so nothing is refused: whoever starts a run, or is a worker, warns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from multiagents.exceptions import MultiAgentsError
from multiagents.orchestrator.dispatch import Dispatcher
from multiagents.state_store.records import Announced, Node
from multiagents.workflow.definition import Definition, StepDefinition, StepKind

__all__ = ["NameCheck", "is_unannounced", "missing_names", "shared_names"]

logger = logging.getLogger(__name__)

#: Options of a step that name a worker.
_WORKERS = ("worker", "compensation", "resolve_with")
#: How many contents are remembered that were looked at.
MAX_LOOKED = 1_000


class NameCheck:
    """Warns of what a workflow names and nobody has, at the first run of it that this process starts.

    Args:
        dispatcher: knows the workers of this process, and what others have announced.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._looked: set[str] = set()
        self._told_alone = False

    def look_at(self, definition: Definition) -> None:
        """Look once at each content, when it is known what there is."""
        if definition.content_hash in self._looked or not self._dispatcher.asks_others:
            return
        announced = self._dispatcher.announced(fresh=True)
        if self._dispatcher.node and not any(node.name == self._dispatcher.node for node in announced.nodes):
            return  # a worker that has just come up: what it has itself is not known yet
        if not announced.nodes:
            if not self._told_alone:
                self._told_alone = True
                logger.warning(
                    'no worker runs on this store: runs of workflow "%s" wait until one is started, with the same '
                    "broker, store and multiagents_key_prefix as here",
                    definition.name,
                )
            return
        if len(self._looked) == MAX_LOOKED:
            self._looked.clear()
        self._looked.add(definition.content_hash)
        try:
            warnings = [*missing_names(definition, self._dispatcher), *_missing_content(definition, announced)]
        except MultiAgentsError:
            logger.debug("the names in workflow %r could not be looked up", definition.name, exc_info=True)
            return
        for warning in warnings:
            logger.warning("%s", warning)


def missing_names(definition: Definition, dispatcher: Dispatcher) -> Iterator[str]:
    """What is to be said of workers and queues that a workflow names and nobody has announced.

    Args:
        definition: the workflow.
        dispatcher: knows the workers of this process, and what others have announced.
    """
    announced, here = dispatcher.announced(fresh=True), dispatcher.workers_here()
    where = f'workflow "{definition.name}" version "{definition.version}"'
    missing: dict[str, list[str]] = {}
    for place, name in _named_workers(definition):
        if is_unannounced(name, announced, dispatcher):
            missing.setdefault(name, []).append(place)
    for name, places in missing.items():
        alone = "is here, and " if name in here else ""
        yield (
            f'{where}: {" and ".join(places[:3])} is worker "{name}", which {alone}no worker process of this store has '
            f"announced{announced.near_worker(name, here)}; have the workers import the module that defines it"
        )
    for queue, steps in _queues(definition, dispatcher).items():
        if not announced.knows(queue):
            more = f" and {len(steps) - 3} more" if len(steps) > 3 else ""
            yield (
                f"{where}: {'step' if len(steps) == 1 else 'steps'} {', '.join(map(_quoted, steps[:3]))}{more} "
                f"{'goes' if len(steps) == 1 else 'go'} to queue \"{queue}\", which no worker of this store has ever "
                f"consumed{announced.near_queue(queue)}; start one with -Q {queue}"
            )


def is_unannounced(worker: str, announced: Announced, dispatcher: Dispatcher) -> bool:
    """Whether no worker process of the store has said that it has a worker; that this one has imported it is no matter.

    What is a plain Celery task here is announced by nobody, and judged where it is taken.
    """
    return worker not in announced.workers and (dispatcher.has_worker(worker) or not dispatcher.can_call(worker))


def _queues(definition: Definition, dispatcher: Dispatcher) -> dict[str, list[str]]:
    """Queue -> the steps that something of goes there."""
    found: dict[str, dict[str, None]] = {}
    for name, step in definition.steps.items():
        for part in (step, *([step.item] if step.item is not None else [])):
            for worker in _workers_of(part).values():
                if queue := dispatcher.queue_for(worker, part.queue):
                    found.setdefault(queue, {})[name] = None
    return {queue: list(steps) for queue, steps in found.items()}


def _quoted(name: str) -> str:
    return f'"{name}"'


def shared_names(known: Announced, node: Node, workers: Mapping[str, Any]) -> Iterator[str]:
    """What a worker that starts is to be told of another app on its store, whose default queue is another one.

    Args:
        known: what was announced before it.
        node: the worker that starts.
        workers: its workers.
    """
    for other in {(each.app, each.queue): each for each in known.nodes if each.queue != node.queue}.values():
        both = (name for name, facts in workers.items() if facts.get("home") == node.queue)
        if shared := sorted(name for name in both if known.workers.get(name, {}).get("home") == other.queue):
            yield (
                f'Celery app "{other.app}" ({other.name}) has the same store and multiagents_key_prefix as this one, '
                f'"{node.app}", the same workers ({", ".join(shared[:5])}) and another default queue ("{other.queue}", '
                f'here "{node.queue}"): each may send steps of the other to its own queue; give each a '
                f"multiagents_key_prefix of its own, or name the queues of these workers"
            )


def _named_workers(definition: Definition) -> Iterator[tuple[str, str]]:
    """Where a worker is named, in words, and its name."""
    if definition.on_end:
        yield "its on_end", definition.on_end
    for name, step in definition.steps.items():
        for part in (step, *([step.item] if step.item is not None else [])):
            for option, worker in _workers_of(part).items():
                yield f'the {option} of step "{name}"', worker


def _workers_of(step: StepDefinition) -> dict[str, str]:
    """Option -> the worker that it names."""
    return {
        option: worker
        for option in _WORKERS
        if (option != "worker" or _is_asked(step)) and (worker := getattr(step, option))
    }


def _is_asked(step: StepDefinition) -> bool:
    return step.kind is StepKind.WORK and not step.external


def _missing_content(definition: Definition, announced: Announced) -> Iterator[str]:
    if not any(step.has_code for step in definition.steps.values()):
        return
    if (found := announced.lacking(definition.content_hash)) is not None:
        yield (
            f"no worker that is running has this content of {named(definition)}"
            f"{f': {found}' if found else others(definition, announced)}; a run waits where the code of a step (when, "
            f"inputs, ...) is needed: deploy it to the workers"
        )


def named(definition: Definition) -> str:
    """A workflow and its version, for messages."""
    return f'workflow "{definition.name}" version "{definition.version}"'


def others(definition: Definition, announced: Announced) -> str:
    """What the workers that are there have in place of a content, as a clause."""
    prefix = f'"{definition.name}" version '
    found = sorted({label for node in announced.nodes for label in node.definitions.values()})
    of_it = [label.removeprefix(prefix) for label in found if label.startswith(prefix)]
    if f'"{definition.version}"' in of_it:
        return " (they have another content under this version)"
    return f" (they have version {', '.join(of_it)})" if of_it else " (they have no version of it)"
