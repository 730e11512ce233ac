"""Run the scripts on a Redis or Valkey, and put its errors into words."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from multiagents import failpoints
from multiagents.address import Address
from multiagents.exceptions import ConfigurationError, StateRefusedError, StateStoreError
from multiagents.failpoints import WriteSite
from multiagents.redis import (
    CLIENT_ERRORS,
    PATIENCE,
    Client,
    advice,
    is_configuration,
    is_refusal,
    patient_client,
    pooled,
)
from multiagents.state_store.redis.scripts import script


class ScriptServer:
    """A server that runs scripts, and whose clock is the only one.

    Args:
        address: where it is.
        client: how to reach it; it must decode responses. None: one made for the address.
        prefix: what the keys' tags start with, for advice about ACLs.
    """

    def __init__(self, address: Address, client: redis.Redis | None, prefix: str) -> None:
        self.address = address
        if client is None:
            client = patient_client(address)
        self.client = client if isinstance(client, Client) else pooled(client.connection_pool, PATIENCE)
        self._prefix = prefix
        #: the server's clock minus our monotonic one, in ms; None until the server has answered once
        self._offset: float | None = None

    @property
    def where(self) -> str:
        """Its address, as it may be shown."""
        return str(self.address)

    def run(self, site: WriteSite | None, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script by its SHA; a server that does not know it gets its text.

        Args:
            site: which write of the engine it is; None for a script that only reads.
            name: the script's.
            keys: its KEYS.
            args: its ARGV.
        """
        if failpoints.injector is not None and site is not None:
            return failpoints.injector(site, lambda: self.run(None, name, keys, args))
        text = script(name)
        try:
            try:
                return self.client.ask("EVALSHA", text.sha, len(keys), *keys, *args)
            except redis.exceptions.NoScriptError:
                return self.client.ask("EVAL", text.text, len(keys), *keys, *args)
        except CLIENT_ERRORS as error:
            raise self.mapped(error) from error

    def close(self) -> None:
        """Give all connections back."""
        self.client.close()

    def call(self, action: Callable[[], Any]) -> Any:
        """Do something with the client, and put its errors into words."""
        try:
            return action()
        except CLIENT_ERRORS as error:
            raise self.mapped(error) from error

    def heard(self, now_ms: int) -> None:
        """Set our idea of the server's clock by what it has just said."""
        self._offset = now_ms - time.monotonic() * 1000

    def now_ms(self) -> int:
        """The server's clock; it is asked only if it has never been heard."""
        if self._offset is None:
            seconds, micros = self.call(self.client.time)
            self.heard(seconds * 1000 + micros // 1000)
        assert self._offset is not None
        return round(time.monotonic() * 1000 + self._offset)

    def mapped(self, error: Exception) -> Exception:
        """An error of the client as one of ours, which says what to do."""
        message = f"the state store at {self.where} did not do what it was asked: {type(error).__name__}: {error}; "
        kind: type[Exception] = StateRefusedError if is_refusal(error) else StateStoreError
        if is_configuration(error):
            kind = ConfigurationError
        return kind(message + advice(error, self._prefix))
