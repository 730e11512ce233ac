"""Pools of connections to a server, made for its address: plain, with TLS, by a socket, or by asking Sentinels."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from multiagents.address import Address, Kind
from multiagents.exceptions import ConfigurationError

__all__ = ["pool_of"]

#: Seconds that one Sentinel may take to say where the master is; then the next one is asked.
SENTINEL_TIMEOUT = 1.0


def pool_of(address: Address, **arguments: Any) -> redis.ConnectionPool:
    """Make a pool; nothing is connected.

    Args:
        address: where the server is.
        arguments: of each connection, as redis-py has them; they win over what the address says.

    Raises:
        ConfigurationError: when the installed redis-py cannot do what the address says.
    """
    _check_tls(address)
    given = {**address.options, "db": address.database, **_credentials(address), **arguments}
    if address.kind is Kind.SENTINEL:
        return _behind_sentinels(address, given)
    if address.kind is Kind.SOCKET:
        for option in ("socket_keepalive", "socket_keepalive_options"):
            given.pop(option, None)
        given.update(path=address.path, connection_class=redis.UnixDomainSocketConnection)
    else:
        (host, port), *_ = address.hosts
        given.update(host=host, port=port)
        if address.tls is not None:
            given.update(address.tls, connection_class=redis.SSLConnection)
    return redis.ConnectionPool(**given)


def _behind_sentinels(address: Address, given: dict[str, Any]) -> redis.ConnectionPool:
    # redis-py would ask a Sentinel that is away eleven times over, while the next one knows the answer.
    asking = {
        "socket_timeout": SENTINEL_TIMEOUT,
        "socket_connect_timeout": SENTINEL_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        **address.sentinel_options,
    }
    sentinels = _Sentinels(address.hosts, address.min_other_sentinels, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    tls = {} if address.tls is None else {"ssl": True, **address.tls}
    pool: redis.ConnectionPool = sentinels.master_for(address.master, **given, **tls).connection_pool  # type: ignore[no-untyped-call]
    return pool


class _Sentinels(Sentinel):
    """Those who know which server is the master."""

    def discover_master(self, service_name: str) -> Any:
        """Ask one after the other for the master's host and port."""
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError:
            # redis-py's own words are a page for each Sentinel that did not answer.
            raise MasterNotFoundError(
                f"none of the {len(self.sentinels)} Sentinels named a master {service_name!r}"
            ) from None


def _check_tls(address: Address) -> None:
    """Refuse options of TLS that the installed redis-py is too old for; it would say so at the first connection."""
    missing = sorted((address.tls or {}).keys() - inspect.signature(redis.SSLConnection.__init__).parameters.keys())
    if missing:
        raise ConfigurationError(
            f"the address {address} has options that redis-py {redis.__version__}, which is installed here, does not "
            f"know: {', '.join(missing)}; leave them out, or install a newer one (and a kombu that takes it)"
        )


def _credentials(address: Address) -> dict[str, Any]:
    provider = address.options.get("credential_provider")
    if provider is None:
        return {"username": address.username, "password": address.password}
    if isinstance(provider, str):
        module, _, name = provider.replace(":", ".").rpartition(".")
        try:
            provider = getattr(import_module(module), name)()
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigurationError(
                f"credential_provider names {provider!r}, which cannot be imported: {error}; expected the dotted path "
                f"of a class beneath redis.CredentialProvider"
            ) from error
    if not isinstance(provider, CredentialProvider):
        raise ConfigurationError(
            f"credential_provider is a {type(provider).__name__}; expected a redis.CredentialProvider, or the dotted "
            f"path of a class beneath it"
        )
    return {"credential_provider": provider}
