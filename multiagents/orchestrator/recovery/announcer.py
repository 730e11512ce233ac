"""What a worker process says of itself to all others, again and again while it is there."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection

from multiagents.orchestrator.engine import Engine, missing_names, shared_names
from multiagents.state_store.records import ANNOUNCED_EVERY, REPEATED_EVERY, Node, of_queues, of_workers
from multiagents.workflow.definition import definitions

logger = logging.getLogger(__name__)

#: Seconds after the start at which names are looked up: the others of a deployment come up at the same time.
SETTLED_AFTER = 3.0


class Announcer:
    """Announces this process, its queues, workers and definitions.

    Args:
        engine: knows the store and the workers of this process.
        about: this process as it is now: its names and the queues that it consumes.
    """

    def __init__(self, engine: Engine, about: Callable[[], Node]) -> None:
        self._engine = engine
        self._about = about
        self._node = Node("")
        self._next_at = self._all_at = -math.inf
        self._check_at = math.inf
        self._checked = False

    def announce(self) -> None:
        """Say what there is to say now, which is mostly nothing."""
        now = time.monotonic()
        if now >= self._check_at:
            self._check_at, self._checked = math.inf, True
            self._look_up()
            self._all_at = self._next_at = now  # with what others have said that came up at the same time
        elsewhere = self._engine.pipeline.elsewhere
        while elsewhere.unsaid:
            logger.warning("%s", elsewhere.unsaid.pop(0))
        if now < self._next_at and self._lacks() == self._node.lacks:
            return
        node = self._about()._replace(definitions=_built(), lacks=self._lacks())
        entries = node.entry()
        stale: list[str] = []
        if now >= self._all_at or node.queues != self._node.queues:
            workers = self._engine.dispatcher.workers_here()
            known = self._engine.store.announced()
            if not self._checked and self._check_at == math.inf:
                self._check_at = now + min(SETTLED_AFTER, self._engine.settings.lease)
                for warning in shared_names(known, node, workers):
                    logger.warning("%s", warning)
            entries = {**entries, **of_workers(workers, known), **of_queues(node.queues)}
            stale = [name for name in known.stale if name not in entries]
            self._all_at = now + REPEATED_EVERY
        self._say(entries, stale)
        # What it holds has to be known when others come to look: a lease after they have sent it.
        self._node, self._next_at = node, now + min(ANNOUNCED_EVERY, self._engine.settings.lease * 2 / 3)

    def again(self) -> None:
        """Say all of it again: the server was away, and may have forgotten it."""
        self._next_at = self._all_at = -math.inf

    def withdraw(self) -> None:
        """This process goes."""
        if self._node.name:
            self._say({}, list(self._node.entry()))

    def _say(self, entries: dict[str, dict[str, object]], gone: Collection[str]) -> None:
        self._engine.store.announce(entries, gone)

    def _lacks(self) -> dict[str, str]:
        return dict(self._engine.pipeline.elsewhere.lacks)

    def _look_up(self) -> None:
        """Warn of names in the definitions of this process that nobody knows."""
        dispatcher = self._engine.dispatcher
        for name in definitions.names():
            for version in definitions.versions(name):
                for warning in missing_names(definitions.get(name, version), dispatcher):
                    logger.warning("%s", warning)


def _built() -> dict[str, str]:
    return {
        definitions.get(name, version).content_hash: f'"{name}" version "{version}"'
        for name in definitions.names()
        for version in definitions.versions(name)
    }
