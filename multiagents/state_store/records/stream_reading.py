"""The stream of a run as it is stored, and as its readers get it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import from_json

from multiagents.exceptions import DecodeError
from multiagents.plain_json import dumps
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.records.attempt import parse_attempt_key
from multiagents.state_store.records.stream import READ_AT_ONCE, EntryKind, Offset, Said, StreamEntry, StreamPage
from multiagents.workflow.state import RunStatus


class StoredEntry(NamedTuple):
    """An entry as it is stored."""

    step: str
    attempt_key: str
    kind: str
    #: the output field, behind the call and a bar where it is of one
    field: str
    data: str

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> StoredEntry:
        """Read what Redis has."""
        return cls(fields["s"], fields["a"], fields["k"], fields["f"], fields["d"])


def field_of(said: Said) -> str:
    """The output field of what a step says as it is stored, with its call."""
    return f"{said.call}|{said.field}" if said.call else said.field


def text_of(said: Said, policy: PayloadPolicy) -> str:
    """What a step says as it is stored: nobody needs what is not to be seen of it, so that is not kept."""
    data: Any = said.data
    if policy.redact is not None:
        data = policy.redact({said.field: data})[said.field] if said.field else policy.redact(data)
    return policy.seal(dumps(data))


def page_of(
    transaction_id: str,
    found: Sequence[tuple[Offset, StoredEntry]],
    after: str,
    status: RunStatus,
    policy: PayloadPolicy,
) -> StreamPage:
    """What one look has found.

    Args:
        transaction_id: the run.
        found: the entries behind ``after``, or all if that is another run's.
        after: the last entry that is known, as Redis names it; empty: none.
        status: what the run was before the look.
        policy: how entries may be stored.

    Raises:
        DecodeError: when an entry cannot be read.
    """
    if not found:
        return StreamPage([], after, status, is_whole=True)
    entries = [*_gap(found[0][0], after)]
    try:
        entries += [_entry(offset, one, policy) for offset, one in found]
    except (ValueError, TypeError, KeyError) as error:
        raise DecodeError(
            f"the stream of run {transaction_id!r} cannot be read ({type(error).__name__}: {error}); something else "
            f"wrote there, or a newer release"
        ) from error
    return StreamPage(entries, found[-1][0].stored, status, is_whole=len(found) < READ_AT_ONCE)


def _gap(first: Offset, after: str) -> list[StreamEntry]:
    """What is said of entries that are missing before the first one."""
    known = Offset.parse(after) if after else Offset(first.base, -1)
    is_other = known.base != first.base
    missing = first.number - known.number - 1
    if not is_other and missing <= 0:
        return []
    before = Offset(first.base, first.number - 1) if first.number else known
    return [StreamEntry(str(before), EntryKind.GAP.value, None if is_other else missing)]


def _entry(offset: Offset, one: StoredEntry, policy: PayloadPolicy) -> StreamEntry:
    direction, attempt = parse_attempt_key(one.attempt_key)
    data = from_json(policy.open(one.data))
    call, _, field = one.field.rpartition("|")
    about = (attempt, one.step, direction.value, call or None)
    return StreamEntry(str(offset), one.kind, data, field or None, *about)
