"""Search attributes: what a run is found by, beside its workflow, status and time.

An attribute is a text, which is searched for as it is, or a number or a time, which are searched for by range. It is
stored as ``s|<text>``, ``n|<number>`` or ``t|<ms>``, and has an entry in one index. Three rules hold:

1. An index entry is written and taken away by the script that writes or takes away the attribute.
2. A search walks one index: that of a text, in which runs are in the order they started; only where no text is asked
   for, that of a range, in which they are in the order of their value. Newest and largest come first. What else is
   asked for is looked up in the runs met on the way.
3. One call looks at only so many runs of a partition: a page may be short, or even empty, and not the last.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from multiagents.clock import from_ms, to_ms
from multiagents.exceptions import WorkflowError
from multiagents.state_store.records.page import Page
from multiagents.workflow.state import RunStatus

#: What an attribute's name may be: a part of a key, in which ``:`` parts it from the value.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
#: How many attributes a run may have. What steps set beyond it is not kept.
MAX_ATTRIBUTES = 32
#: How many characters a text may have.
MAX_TEXT = 256
#: The largest whole number that an index keeps exactly.
MAX_INT = 2**53

#: A position in the order of a search: the score in its index, and the run.
Place = tuple[float, str]

_NOTHING: Mapping[str, str] = MappingProxyType({})


def encode_attribute(name: str, value: Any) -> str:
    """An attribute's value as it is stored; empty for None, which removes the attribute.

    >>> encode_attribute("customer", "c-1"), encode_attribute("amount", 12.5), encode_attribute("amount", None)
    ('s|c-1', 'n|12.5', '')

    Raises:
        WorkflowError: when the name or the value cannot be used.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise WorkflowError(
            f"attribute name {name!r:.80} cannot be used: expected 1 to 64 characters of A-Z a-z 0-9 _ . - that begin "
            f"with a letter or _; choose another name"
        )
    if value is None:
        return ""
    if isinstance(value, str):
        return f"s|{_text(name, value)}"
    return f"{_kind(name, value)}|{_number(name, value)!r}"


def encode_attributes(attributes: Mapping[str, Any] | None) -> dict[str, str]:
    """Attributes as they are stored.

    Raises:
        WorkflowError: when one cannot be used, or there are more than a run may have.
    """
    if not attributes:
        return {}
    if not isinstance(attributes, Mapping):
        raise WorkflowError(
            f"attributes={attributes!r:.80} is {type(attributes).__name__}; expected a mapping of names to values, "
            f'such as {{"customer": "c-1"}}'
        )
    check_attribute_count(len(attributes))
    return {name: encode_attribute(name, value) for name, value in attributes.items()}


def check_attribute_count(count: int, transaction_id: str | None = None) -> None:
    """See that a run gets no more attributes than it may have.

    Raises:
        WorkflowError: when it would.
    """
    if count > MAX_ATTRIBUTES:
        whose = f"run {transaction_id!r} would have" if transaction_id else "a run was given"
        raise WorkflowError(
            f"{whose} {count} attributes; expected {MAX_ATTRIBUTES} at most: keep what runs are searched by, and "
            f"everything else in the context"
        )


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The same attributes, their values of the plain types that they are read back as.

    Raises:
        WorkflowError: when one cannot be used.
    """
    return {
        name: decode_attribute(stored) if stored else None for name, stored in encode_attributes(attributes).items()
    }


def decode_attribute(stored: str) -> Any:
    """The inverse of `encode_attribute`.

    >>> decode_attribute("n|12"), decode_attribute("s|c|1")
    (12, 'c|1')
    """
    kind, _, value = stored.partition("|")
    if kind == "s":
        return value
    if kind == "t":
        return from_ms(int(value))
    return int(value) if value.lstrip("-").isdigit() else float(value)


def _text(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise WorkflowError(f"attribute {name!r} is a text that cannot be written as UTF-8: {error}") from None
    if len(value) > MAX_TEXT:
        raise WorkflowError(
            f"attribute {name!r} has {len(value)} characters ({value[:20]!r}...); expected {MAX_TEXT} at most: use "
            f"an id, or a hash of the text"
        )
    return value


def _kind(name: str, value: Any) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise WorkflowError(
                f"attribute {name!r} is {value.isoformat()}, a time without a time zone; expected one with, such as "
                f"datetime.now(UTC)"
            )
        return "t"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "n"
    raise WorkflowError(
        f"attribute {name!r} is {type(value).__name__} {value!r:.80}; expected str, int, float, datetime, or None to "
        f"remove it"
    )


def _number(name: str, value: Any) -> int | float:
    if isinstance(value, datetime):
        return to_ms(value)
    if abs(value) > MAX_INT if isinstance(value, int) else not math.isfinite(value):
        shown = repr(value) if isinstance(value, float) or abs(value) < MAX_INT**2 else "far larger"
        raise WorkflowError(
            f"attribute {name!r} is {shown}; expected a number that an index keeps exactly: finite, and within "
            f"±2**53 if it is whole; use a str for an id"
        )
    # An int or float of another class (numpy's, an enum's) would not be written as a number.
    return int(value) if isinstance(value, int) else float(value)


class Condition(NamedTuple):
    """What a search asks of one attribute: the text, or the bounds, which belong to what is asked for."""

    name: str
    kind: str
    text: str = ""
    low: int | float | None = None
    high: int | float | None = None

    @classmethod
    def of(cls, name: str, wanted: Any) -> Condition:
        """Read ``"c-1"``, ``12``, ``(10, 20)`` or ``(None, 20)``.

        Raises:
            WorkflowError: when it is none of these.
        """
        if not isinstance(wanted, tuple | list):
            stored = encode_attribute(name, wanted)
            if stored.startswith("s|"):
                return cls(name, "s", stored[2:])
            if stored:
                value = _number(name, wanted)
                return cls(name, stored[0], low=value, high=value)
        else:
            encode_attribute(name, None)
            ends = [end for end in wanted if end is not None]
            if len(wanted) == 2 and ends and not any(isinstance(end, str) for end in ends):
                kinds = {_kind(name, end) for end in ends}
                if len(kinds) == 1:
                    low, high = (None if end is None else _number(name, end) for end in wanted)
                    return cls(name, kinds.pop(), low=low, high=high)
        raise WorkflowError(
            f"attribute {name!r} is searched for by {wanted!r:.80}; expected a str, a number or a datetime to be equal "
            f"to, or two numbers or two datetimes to lie between, of which one may be None"
        )

    def holds(self, stored: str | None) -> bool:
        """Whether a stored attribute is what is asked for."""
        if stored is None or stored[0] != self.kind:
            return False
        if self.kind == "s":
            return stored[2:] == self.text
        value = float(stored[2:])
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


class Search(NamedTuple):
    """What runs are asked for.

    Attributes:
        conditions: at least one.
        statuses: any of these; None is all.
        workflow: of this one only.
        since_ms: started then or later.
        limit: how many at most.
        cursor: where the page before ended.
    """

    conditions: Sequence[Condition]
    statuses: Sequence[RunStatus] | None = None
    workflow: str | None = None
    since_ms: int = 0
    limit: int = 50
    cursor: str | None = None

    @property
    def walked(self) -> list[Condition]:
        """The conditions of which any has an index in the order of this search."""
        texts = [condition for condition in self.conditions if condition.kind == "s"]
        return texts or [self.conditions[0]]

    @property
    def is_bare(self) -> bool:
        """Whether one index alone has the answer."""
        return len(self.conditions) == 1 and self.statuses is None and self.workflow is None and not self.since_ms

    @property
    def after(self) -> Place | None:
        """The cursor, taken apart.

        Raises:
            WorkflowError: when it is none.
        """
        if not self.cursor:
            return None
        score, _, name = self.cursor.partition(":")
        try:
            return float(score), name
        except ValueError:
            raise WorkflowError(
                f"cursor {self.cursor!r} was not understood; give the cursor of the page before, unchanged"
            ) from None

    def place(self, transaction_id: str, fields: Mapping[str, str]) -> Place | None:
        """Where a run stands in the order of this search; None when it is not asked for."""
        if (
            (self.statuses is not None and fields["status"] not in self.statuses)
            or (self.workflow is not None and fields["workflow"] != self.workflow)
            or int(fields["started"]) < self.since_ms
            or not all(condition.holds(fields.get(f"a:{condition.name}")) for condition in self.conditions)
        ):
            return None
        first = self.walked[0]
        score = fields["started"] if first.kind == "s" else fields[f"a:{first.name}"][2:]
        return float(score), transaction_id

    def page(self, found: Iterable[Place], looked_to: Iterable[Place] = ()) -> Page:
        """Put a page together.

        Args:
            found: what fits, after the cursor, in any order.
            looked_to: where the search stopped in the partitions that have more.
        """
        floor = max(looked_to, default=None)
        rows = sorted((row for row in found if floor is None or row >= floor), reverse=True)
        page = rows[: self.limit]
        last = page[-1] if len(rows) > self.limit else floor
        return Page([name for _, name in page], None if last is None else f"{last[0]!r}:{last[1]}")
