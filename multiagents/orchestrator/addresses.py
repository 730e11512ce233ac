"""Where an app has a Redis: its broker, its result backend, and so its runs.

What kombu and Celery take for Redis is taken over from where they read it, because whoever has told it to Celery has
told it once. `tests/unit/orchestrator/test_addresses.py` compares with what kombu itself connects to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from multiagents.address import Address, Kind
from multiagents.exceptions import ConfigurationError
from multiagents.settings import DEFAULT_KEY_PREFIX, KEY_PREFIX, Settings

OWN = "multiagents_redis_url"
#: What kombu does for ``rediss://`` without options, with a warning.
_UNCHECKED = {"ssl_cert_reqs": "none"}


def broker_address(conf: Any) -> Address | None:
    """The broker as kombu's Redis transport finds it; None for a broker of another kind.

    Args:
        conf: ``app.conf``.

    Raises:
        ConfigurationError: when it is a Redis, and its URL or an option cannot be read.
    """
    urls = conf.broker_write_url or conf.broker_url or ""
    url = urls if isinstance(urls, str) else ";".join(urls)
    scheme = _scheme(url)
    if scheme not in ("redis", "rediss", "redis+socket", "sentinel", "memory"):
        return None
    given = conf.broker_use_ssl
    tls = given if isinstance(given, Mapping) and given else None
    return Address.parse(
        url,
        "broker_url",
        tls=_UNCHECKED if tls is None and scheme == "rediss" else tls,
        options=conf.broker_transport_options,
        username=conf.get("broker_user"),
        password=conf.get("broker_password"),
        strict=False,
    )


def backend_address(conf: Any) -> Address | None:
    """The result backend, as Celery's finds it; None for one of another kind.

    Args:
        conf: ``app.conf``.

    Raises:
        ConfigurationError: when it is a Redis, and its URL or an option cannot be read.
    """
    url = conf.result_backend
    if not isinstance(url, str) or _scheme(url) not in ("redis", "rediss", "redis+socket", "sentinel"):
        return None
    found = Address.parse(
        url,
        "result_backend",
        tls=conf.get("redis_backend_use_ssl") or None,
        options=conf.get("result_backend_transport_options"),
        username=conf.get("redis_username"),
        password=conf.get("redis_password"),
        strict=False,
    )
    provider = conf.get("redis_backend_credential_provider")
    return replace(found, options={"credential_provider": provider, **found.options}) if provider else found


def store_address(conf: Any, settings: Settings) -> Address | None:
    """Where runs live: ``multiagents_redis_url``, else the Redis broker, else the Redis result backend; or nowhere.

    A ``multiagents_redis_url`` that is the broker's database (or the backend's) need not repeat its options.

    Args:
        conf: ``app.conf``.
        settings: the deployment's settings.

    Raises:
        ConfigurationError: when what is there cannot be read, or says too little.
    """
    if conf.task_always_eager:  # no broker is asked for anything
        return Address.parse(settings.redis_url, OWN).checked(OWN) if settings.redis_url else Address(Kind.MEMORY)
    broker, backend = broker_address(conf), backend_address(conf)
    if settings.redis_url:
        own = Address.parse(settings.redis_url, OWN)
        for other in (broker, backend):
            if other is not None and own.is_same_database(other):
                own = own.completed_by(other)
        return own.checked(OWN)
    if broker is not None:
        # Of several servers kombu takes whichever answers; runs stay with the first.
        first = broker.hosts[:1] if broker.kind is Kind.SERVER else broker.hosts
        return replace(broker, hosts=first).checked("broker_url")
    if backend is not None:
        return backend.checked("result_backend")
    return None


def key_prefix_at(address: Address | None, settings: Settings) -> str:
    """What all keys begin with: ``multiagents_key_prefix``, else ``ma`` behind that place's ``global_keyprefix``.

    Args:
        address: where runs live.
        settings: the deployment's settings.

    Raises:
        ConfigurationError: when keys cannot begin with that ``global_keyprefix``.
    """
    if settings.key_prefix is not None:
        return settings.key_prefix
    prefix = (address.key_prefix if address is not None else "") + DEFAULT_KEY_PREFIX
    if not KEY_PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            f"the transport option global_keyprefix is {prefix.removesuffix(DEFAULT_KEY_PREFIX)!r}, and the keys of "
            f"runs cannot begin with it: expected characters of A-Z a-z 0-9 . _ : - ; set multiagents_key_prefix to "
            f"what they are to begin with"
        )
    return prefix


def _scheme(url: str) -> str:
    return url.partition(";")[0].partition("://")[0].strip().lower()
