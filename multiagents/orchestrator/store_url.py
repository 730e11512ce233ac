"""Where runs live, as an app's configuration says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiagents.exceptions import ConfigurationError
from multiagents.settings import Settings

if TYPE_CHECKING:
    from celery import Celery


def store_url(app: Celery, settings: Settings) -> str:
    """Where runs live: ``multiagents_redis_url``, else the Redis broker, else the Redis result backend.

    Celery's ``task_always_eager`` asks no broker for anything: without a URL, runs live in this process then.

    Raises:
        ConfigurationError: when none of them is a Redis.
    """
    conf = app.conf
    if conf.task_always_eager:
        return settings.redis_url or "memory://"
    candidates = (settings.redis_url, conf.broker_write_url or conf.broker_url, conf.result_backend)
    for url in candidates:
        if isinstance(url, str) and url.startswith(("redis://", "rediss://", "unix://", "memory://")):
            return url.partition(";")[0]
    raise ConfigurationError(
        f"Celery app {app.main!r} has no Redis to keep runs in: multiagents_redis_url is not set, and neither the "
        f"broker nor the result backend is a redis:// URL; set app.conf.multiagents_redis_url = 'redis://host:6379/0'"
    )
