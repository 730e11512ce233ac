"""How often, and after how long, a failed attempt is tried again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from zlib import crc32

from pydantic import ConfigDict, Field, field_validator

from multiagents.clock import LONGEST, Duration, in_seconds
from multiagents.public_model import PublicModel

#: An exception class, or its dotted name.
Retryless = type[BaseException] | str


def _qualified_name(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class RetryPolicy(PublicModel):
    """Say how a failed attempt is retried: exponential back-off with a cap and jitter.

    A *lost* attempt (its worker died) is not counted here: see rule S1a and ``multiagents_max_lost``.

    Args:
        max_attempts: how many attempts may fail in all, the first included; 0 is without limit.
        initial_interval: seconds between the first failure and the second attempt, or a timedelta.
        backoff_coefficient: by what each further interval is multiplied.
        max_interval: seconds that no interval exceeds, or a timedelta.
        jitter: spread the intervals over 50-100 % of their length, so that failures at one moment do not return at one.
        non_retryable: an exception class or its dotted name, or several, that end the step at once; subclasses count.

    Raises:
        InvalidValueError: when a value cannot be used; it is a ValueError, too.

    >>> policy = RetryPolicy(max_attempts=3, initial_interval=2, jitter=False)
    >>> [policy.delay(1), policy.delay(2), policy.delay(3)]
    [2.0, 4.0, None]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_attempts: int = Field(default=3, ge=0, le=1_000_000)
    initial_interval: float = Field(default=1.0, ge=0, le=LONGEST)
    backoff_coefficient: float = Field(default=2.0, ge=1, le=1_000_000)
    max_interval: float = Field(default=100.0, ge=0, le=LONGEST)
    jitter: bool = True
    non_retryable: tuple[str, ...] = ()

    if TYPE_CHECKING:
        # What may be given is more than what is kept.
        def __init__(
            self,
            *,
            max_attempts: int = 3,
            initial_interval: Duration = 1.0,
            backoff_coefficient: float = 2.0,
            max_interval: Duration = 100.0,
            jitter: bool = True,
            non_retryable: Retryless | Sequence[Retryless] = (),
        ) -> None: ...

    @field_validator("initial_interval", "max_interval", mode="before")
    @classmethod
    def _in_seconds(cls, value: Any) -> Any:
        return in_seconds(value)

    @field_validator("non_retryable", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if isinstance(value, type | str):
            value = (value,)
        if not isinstance(value, Iterable):
            return value  # and is refused for it
        return tuple(_qualified_name(kind) if isinstance(kind, type) else kind for kind in value)

    def retries(self, error: BaseException) -> bool:
        """Whether this error may be retried at all, however often it was tried."""
        if not self.non_retryable:
            return True
        names = set(self.non_retryable)
        return not any(_qualified_name(kind) in names or kind.__name__ in names for kind in type(error).__mro__)

    def delay(self, failures: int, seed: str = "") -> float | None:
        """Seconds to wait after the n-th failure, or None when the attempts are used up.

        Args:
            failures: how many attempts have failed by now, from 1.
            seed: what the jitter is drawn from. The core has no randomness, so the same seed gives the same delay.
        """
        if self.max_attempts and failures >= self.max_attempts:
            return None
        try:
            interval = min(self.max_interval, self.initial_interval * self.backoff_coefficient ** (failures - 1))
        except OverflowError:
            interval = self.max_interval
        if self.jitter:
            interval *= 0.5 + crc32(f"{seed}:{failures}".encode()) / 2**33
        return interval

    def to_dict(self) -> dict[str, Any]:
        """The policy as JSON-ready data, without what equals the defaults."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RetryPolicy:
        """The inverse of `to_dict`."""
        return cls(**data)


#: Rule S16: an undo is tried long, with a capped back-off (about an hour and a half in all), before it is parked.
UNDO_RETRY = RetryPolicy(max_attempts=25, initial_interval=1.0, max_interval=300.0)
