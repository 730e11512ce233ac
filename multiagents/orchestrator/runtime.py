"""What all the runs of an app have in common: its settings, where they live, and what sends and advances them."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from functools import cached_property
from typing import Any

from multiagents.address import Address
from multiagents.exceptions import ConfigurationError
from multiagents.keys import Keys
from multiagents.orchestrator.addresses import key_prefix_at, store_address
from multiagents.orchestrator.dispatch.celery import CeleryDispatcher
from multiagents.orchestrator.dispatch.eager import EagerDispatcher
from multiagents.orchestrator.engine import EagerEngine, Engine
from multiagents.settings import DEFAULT_KEY_PREFIX, Settings
from multiagents.state_store import StateStore, open_store
from multiagents.state_store.payloads import PayloadPolicy, policy_of

logger = logging.getLogger(__name__)


class Runtime:
    """Settings, keys, store, dispatcher and engine of an app; each is made when it is first asked for, then kept.

    So nothing is connected and no setting is read before, and a fork is harmless: what holds a connection opens one of
    its own in each process.

    Args:
        app: the Celery app.
        settings: settings that win over the app's configuration and the environment; or all of them, as `Settings`.
    """

    def __init__(self, app: Any, settings: Any = None) -> None:
        self.app = app
        self._overrides = settings
        self._lock = threading.Lock()
        self._checked = False

    @cached_property
    def settings(self) -> Settings:
        """The settings in force."""
        given = self._overrides
        read = given if isinstance(given, Settings) else Settings.load(self.app.conf, overrides=given)
        return replace(read, key_prefix=key_prefix_at(store_address(self.app.conf, read), read))

    @cached_property
    def keys(self) -> Keys:
        """The names of the keys in Redis."""
        return Keys(self.settings.key_prefix or DEFAULT_KEY_PREFIX, self.settings.partitions)

    @cached_property
    def address(self) -> Address:
        """Where runs live: ``multiagents_redis_url``, else the Redis broker, else the Redis result backend.

        With ``task_always_eager`` no broker is asked for anything: the memory of this process, if no URL is set.

        Raises:
            ConfigurationError: when none of them is a Redis.
        """
        found = store_address(self.app.conf, self.settings)
        if found is None:
            raise ConfigurationError(
                f"Celery app {self.app.main!r} has no Redis to keep runs in: multiagents_redis_url is not set, and "
                f"neither the broker nor the result backend is a redis:// URL; set app.conf.multiagents_redis_url = "
                f"'redis://host:6379/0'"
            )
        return found

    @cached_property
    def payload_policy(self) -> PayloadPolicy:
        """In what form the data of runs is stored: codecs, what is kept apart, what is redacted."""
        return policy_of(self.settings)

    @cached_property
    def store(self) -> StateStore:
        """Where runs live."""
        return self.new_store()

    def new_store(self) -> StateStore:
        """The same store, with connections of its own."""
        return open_store(self.address, keys=self.keys, lease=self.settings.lease, policy=self.payload_policy)

    def check_store(self) -> None:
        """Look at the server's version and settings, once for each process; what is merely risky is logged."""
        with self._lock:
            if not self._checked:
                for finding in self.store.check():
                    logger.warning("state store: %s", finding)
                self._checked = True

    @cached_property
    def dispatcher(self) -> CeleryDispatcher:
        """How attempts go out."""
        return CeleryDispatcher(self.app, self.settings, self.address, self.keys, self.store.announced)

    @property
    def engine(self) -> Engine:
        """What advances runs: in this process from start to end with ``task_always_eager``, which may change."""
        return self._eager_engine if self.app.conf.task_always_eager else self._engine

    @cached_property
    def _engine(self) -> Engine:
        return Engine(self.store, self.dispatcher, self.settings)

    @cached_property
    def _eager_engine(self) -> Engine:
        return EagerEngine(self.store, EagerDispatcher(self.dispatcher), self.settings)
