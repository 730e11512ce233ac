"""What worker processes have announced of themselves: their workers, queues and definitions.

Each entry is JSON under a name that begins with what it is about, and says when it was last announced:

- ``node:<name>``: a worker process, as `Node` has it; written every `ANNOUNCED_EVERY`, and gone with it.
- ``worker:<name>``: what whoever sends its steps has to know; ``queue:<name>``: that it was consumed. Written when a
  process starts and every `REPEATED_EVERY`, and kept for `KEPT_FOR`: nobody has to be there now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic_core import from_json

from multiagents.exceptions import did_you_mean

#: Seconds between two announcements of a process that is there, and after how long without one it counts as gone.
ANNOUNCED_EVERY = 20.0
ALIVE_FOR = 70.0
#: Seconds between two announcements of what outlives the process, and for how long it is known after the last.
REPEATED_EVERY = 3_600.0
KEPT_FOR = 90 * 86_400.0


class Node(NamedTuple):
    """A worker process that is there.

    Attributes:
        name: its Celery node name.
        app: the name of its Celery app.
        queue: where the app sends what names no queue.
        queues: which it consumes.
        definitions: content hash -> workflow and version, of the definitions that it has built.
        lacks: content hash -> in words what it has in its place, of definitions that it has come upon and not built.
        holds: correlation ids of attempts whose message it has taken; those that it has not begun are unclaimed.
        holds_more: there are more of these than are named.
    """

    name: str
    app: str = ""
    queue: str = ""
    queues: tuple[str, ...] = ()
    definitions: Mapping[str, str] = {}
    lacks: Mapping[str, str] = {}
    holds: tuple[str, ...] = ()
    holds_more: bool = False

    def entry(self) -> dict[str, dict[str, Any]]:
        """It as it is announced."""
        return {f"node:{self.name}": self._asdict()}

    @classmethod
    def read(cls, name: str, told: Mapping[str, Any]) -> Node:
        """The inverse; what a later release has added is passed over."""
        known: dict[str, Any] = {field: told[field] for field in cls._fields if field in told}
        known |= {field: tuple(known[field]) for field in ("queues", "holds") if field in known}
        return cls(**known | {"name": name})


class Announced(NamedTuple):
    """All that is known from announcements.

    Attributes:
        workers: worker -> what was announced of it.
        queues: every queue that a worker has consumed.
        nodes: the worker processes that are there.
        stale: the names of entries whose time is over.
    """

    workers: Mapping[str, Mapping[str, Any]] = {}
    queues: frozenset[str] = frozenset()
    nodes: tuple[Node, ...] = ()
    stale: tuple[str, ...] = ()

    @classmethod
    def decode(cls, stored: Mapping[str, str], now_ms: int) -> Announced:
        """Read what is stored; of a kind that a later release has added nothing is read, and nothing is stale."""
        workers, queues, nodes, stale = {}, set(), [], []
        for name, text in stored.items():
            kind, _, about = name.partition(":")
            told = from_json(text)
            # What was announced in the future was so before the store's clock went back; who is there says it again.
            age = abs(now_ms - told.pop("seen", 0)) / 1000
            if kind == "node" and age < ALIVE_FOR:
                nodes.append(Node.read(about, told))
            elif kind == "node" or (kind in ("worker", "queue") and age > KEPT_FOR):
                stale.append(name)
            elif kind == "worker":
                workers[about] = told
            elif kind == "queue":
                queues.add(about)
        return cls(workers, frozenset(queues), tuple(nodes), tuple(stale))

    def knows(self, queue: str) -> bool:
        """Whether a worker has ever consumed a queue."""
        return queue in self.queues or self.is_consumed(queue)

    def is_consumed(self, queue: str) -> bool:
        """Whether a worker that is there consumes it."""
        return any(queue in node.queues for node in self.nodes)

    def is_held(self, correlation_id: str, queue: str) -> bool:
        """Whether a worker that is there has, or may have, the message of an attempt, and has not begun it yet."""
        return any(correlation_id in node.holds or (node.holds_more and queue in node.queues) for node in self.nodes)

    def near_queue(self, queue: str) -> str:
        """``; did you mean "..."?`` of a queue that nobody knows, or nothing."""
        known = self.queues.union(*(node.queues for node in self.nodes))
        return "" if queue in known else did_you_mean(queue, known)

    def near_worker(self, worker: str, here: Iterable[str] = ()) -> str:
        """The same of a worker.

        Args:
            worker: its name.
            here: workers of this process.
        """
        known = {*self.workers, *here}
        return "" if worker in known else did_you_mean(worker, known)

    def lacking(self, content_hash: str) -> str | None:
        """What workers have in place of a definition, if none of those that are there has built it; else None."""
        if not self.nodes or any(content_hash in node.definitions for node in self.nodes):
            return None
        return next((node.lacks[content_hash] for node in self.nodes if content_hash in node.lacks), "")


_NOTHING = Announced()


def of_workers(workers: Mapping[str, Mapping[str, Any]], known: Announced = _NOTHING) -> dict[str, dict[str, Any]]:
    """Workers as they are announced; of those that another app has, too, with the default queues of all of them.

    Args:
        workers: what is to be said of each.
        known: what was announced before.
    """
    return {
        f"worker:{name}": {**facts, **_homes(facts, known.workers.get(name, {}))} for name, facts in workers.items()
    }


def _homes(facts: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, list[str]]:
    if "home" not in facts:
        return {}
    homes = {facts["home"], before.get("home", facts["home"]), *before.get("homes", ())}
    return {"homes": sorted(homes)} if len(homes) > 1 else {}


def of_queues(queues: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Queues as they are announced."""
    return {f"queue:{name}": {} for name in queues}
