"""How much of something may go on at once, or in a time, over all workers: `Limit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from multiagents.clock import LONGEST, LONGEST_IN_WORDS, Duration, in_seconds, is_duration
from multiagents.exceptions import DefinitionError
from multiagents.workflow.definition.key_template import template_fields

#: How many attempts a limit may let run at once, or begin in its time.
MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """Limit how many attempts with the same key run at once, or begin in a time, over all workers.

    Args:
        key: what is limited, with ``{field}`` or ``{field.field}`` for what the worker gets as its context:
            ``"bank"`` for all, ``"bank:{customer}"`` for each customer. Whatever has the same key shares the limit.
        concurrency: how many attempts may run at once; None is without limit.
        rate: how many may begin in ``per`` seconds, evenly spread: one each ``per / rate`` seconds, at most half of
            that early; None is without limit.
        per: seconds, or a timedelta.

    Raises:
        DefinitionError: when a value is not what it must be, or nothing is limited.

    >>> Limit("bank", concurrency=10)
    Limit(key='bank', concurrency=10, rate=None, per=1.0)
    >>> Limit("bank:{customer}", rate=5, per=60).every
    12.0
    """

    key: str
    concurrency: int | None = None
    rate: float | None = None
    per: Duration = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key.strip():
            raise self._refused("key", 'what is limited, such as "bank" or "bank:{customer}"')
        try:
            list(template_fields(self.key))
        except ValueError as error:
            raise self._refused("key", f'fields such as in "bank:{{customer}}": {error}') from None
        if self.concurrency is None and self.rate is None:
            raise DefinitionError(f"{self!r} limits nothing; give it a concurrency=, a rate= or both")
        whole = isinstance(self.concurrency, int) and not isinstance(self.concurrency, bool)
        if self.concurrency is not None and not (whole and 1 <= self.concurrency <= MOST):
            raise self._refused("concurrency", f"a whole number of at least 1, or None for no limit; at most {MOST:,}")
        if self.rate is not None and not (is_duration(self.rate) and self.rate <= MOST):
            raise self._refused("rate", f"a number above 0, or None for no limit; at most {MOST:,}")
        if not is_duration(seconds := in_seconds(self.per)):
            raise self._refused("per", f"a number of seconds above 0, or a timedelta; {LONGEST_IN_WORDS}")
        # 60, 60.0 and a minute are the same, and have the same hash.
        object.__setattr__(self, "per", float(seconds))
        if self.every > LONGEST:
            raise self._refused("rate", f"at least one in 100 years; {self.per:g} s are given in per=")

    def _refused(self, option: str, expected: str) -> DefinitionError:
        return DefinitionError(f"a Limit has {option}={getattr(self, option)!r}; expected {expected}")

    @property
    def every(self) -> float:
        """Seconds between two beginnings; 0 where the rate is not limited."""
        return 0.0 if self.rate is None else float(in_seconds(self.per)) / self.rate

    def to_dict(self) -> dict[str, Any]:
        """The limit as JSON-ready data, without what equals the defaults."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Limit:
        """The inverse of `to_dict`; keys that this release does not know are passed over."""
        return cls(**{each.name: data[each.name] for each in fields(cls) if each.name in data})
