"""The event bus: the five events, the port, and its implementations. Begin with `base.EventBus`.

Importing this package is quick: redis-py is loaded when `RedisEventBus` is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from multiagents.event_bus.base import EventBus
from multiagents.event_bus.entry import DeadLetter
from multiagents.event_bus.subscription import BusLogger, BusMonitor, Subscription
from multiagents.events import CommandEvent, CompensationEvent, ErrorEvent, ResultEvent, StatusEvent

if TYPE_CHECKING:
    from multiagents.event_bus.memory import InMemoryEventBus
    from multiagents.event_bus.redis import RedisEventBus

__all__ = [
    "BusLogger",
    "BusMonitor",
    "CommandEvent",
    "CompensationEvent",
    "DeadLetter",
    "ErrorEvent",
    "EventBus",
    "InMemoryEventBus",
    "RedisEventBus",
    "ResultEvent",
    "StatusEvent",
    "Subscription",
]

_LAZY = {"InMemoryEventBus": "memory", "RedisEventBus": "redis"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
