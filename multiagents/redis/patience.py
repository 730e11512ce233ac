"""How long a call tries again: so often, and not longer than so long, however deep it is in others that do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from weakref import ref

from redis.backoff import AbstractBackoff, NoBackoff
from redis.retry import Retry

_calls = threading.local()


class _Call:
    """A call that tries again, as long as it is under way."""


class Patience(Retry):
    """Try again, but begin no attempt when some seconds are over.

    redis-py tries a command again, in which it tries again to connect, in which it asks Sentinels again, each as often
    as it is told and for as long as that takes. Here all that is one attempt of the call that began it.

    Args:
        backoff: the pauses between attempts.
        retries: how often one is made again.
        seconds: after which none is.
        supported_errors: those upon which one is.
    """

    def __init__(
        self,
        backoff: AbstractBackoff,
        retries: int,
        seconds: float,
        supported_errors: tuple[type[Exception], ...],
    ) -> None:
        super().__init__(backoff, retries, supported_errors)
        self._seconds = seconds
        self._once = Retry(NoBackoff(), 0, supported_errors)

    def call_with_retry(self, do: Callable[[], Any], fail: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Do it, and again if it fails; ``fail`` is told of every failure."""
        outer = getattr(_calls, "outer", None)
        if outer is not None and outer() is not None:
            return self._once.call_with_retry(do, fail, *args, **kwargs)
        call, give_up = _Call(), time.monotonic() + self._seconds

        def failed(error: Exception, *count: int) -> None:
            fail(error, *count)
            if time.monotonic() >= give_up:
                raise error

        try:
            # A weak reference, as whoever is interrupted in the last line here never comes to take it back.
            _calls.outer = ref(call)
            return super().call_with_retry(do, failed, *args, **kwargs)
        finally:
            _calls.outer = None
