"""The broker's side: messages as kombu's Redis transport keeps them, and producers for brokers of other kinds."""

from __future__ import annotations

import os
import threading
from bisect import bisect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from kombu import Connection, Producer
from kombu.pools import ProducerPool
from kombu.serialization import dumps as serialize
from kombu.serialization import prepare_accept_content
from kombu.utils.json import dumps as to_json

#: The content type of the engine's messages.
JSON = "application/json"
#: How many producers a process holds at most; whoever needs another one waits.
LIMIT = 10
#: What kombu's Redis transport puts between a queue's name and its priority.
SEPARATOR = "\x06\x16"
#: What starts a run, on Redis: there messages of priority 0 are consumed first, then those of 3, 6 and 9.
START_PRIORITY = 3


def is_accepted(accepted: Any) -> bool:
    """Whether workers take the engine's messages, which are JSON whatever ``task_serializer`` says.

    Args:
        accepted: ``accept_content``.
    """
    return JSON in (prepare_accept_content(accepted) or ())


class Producers:
    """The producers of a process, for a broker that commits cannot push to; a forked child makes its own.

    They are kept open: connecting costs more than a message.

    Args:
        connect: makes the connection that is cloned for each of them; it need not be open.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._pid = 0
        self._pool: ProducerPool | None = None

    def acquire(self) -> AbstractContextManager[Producer]:
        """A producer, to be used in a ``with`` block."""
        with self._lock:
            if self._pool is None or self._pid != os.getpid():
                self._pool = ProducerPool(self._connect().Pool(limit=LIMIT), limit=LIMIT)
                self._pid = os.getpid()
            pool = self._pool
        producer: AbstractContextManager[Producer] = pool.acquire(block=True)
        return producer


def serialized(body: Any) -> str:
    """A task's body as Celery's JSON."""
    _, _, data = serialize(body, "json")
    return data if isinstance(data, str) else data.decode()


def message(
    queue: str, priority: int | None, headers: dict[str, Any], properties: dict[str, Any], body: str, tag: str
) -> str:
    """A message of kombu's Redis transport, as `Celery.send_task` would have it pushed."""
    return str(
        to_json(
            {
                "body": body,
                "content-encoding": "utf-8",
                "content-type": JSON,
                "headers": headers,
                "properties": {
                    **properties,
                    "delivery_info": {"exchange": "", "routing_key": queue},
                    "priority": priority or 0,
                    "body_encoding": "base64",
                    "delivery_tag": tag,
                },
            }
        )
    )


def list_of(queue: str, priority: int | None, options: Mapping[str, Any]) -> str:
    """The Redis list that holds a queue's messages of a priority, as kombu's Redis transport names it.

    Args:
        queue: the queue's name.
        priority: 0-9; None is 0.
        options: ``broker_transport_options``.
    """
    steps = options.get("priority_steps", [0, 3, 6, 9])
    bucket = steps[max(0, bisect(steps, min(9, max(0, priority or 0))) - 1)]
    separator = options.get("sep", SEPARATOR)
    return f"{options.get('global_keyprefix', '')}{queue}{f'{separator}{bucket}' if bucket else ''}"


def start_priority(chosen: int | None, broker: Any) -> int | None:
    """The priority of what starts a run, where nothing else says one.

    Args:
        chosen: the setting; 0 is for no difference.
        broker: its URL, or several.
    """
    if chosen is None:
        url = broker if isinstance(broker, str) else next(iter(broker or ()), "")
        redis = str(url).partition("://")[0].lower() in ("redis", "rediss", "redis+socket", "sentinel")
        chosen = START_PRIORITY if redis else 0
    return chosen or None
