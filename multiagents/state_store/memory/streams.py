"""What steps say, in memory: beside the run."""

from __future__ import annotations

from collections.abc import Sequence

from multiagents.exceptions import WorkflowNotFoundError
from multiagents.names import Correlation
from multiagents.state_store.memory.tables import Tables
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.records import (
    READ_AT_ONCE,
    Delivery,
    EntryKind,
    Offset,
    Said,
    StreamPage,
    attempt_key_of,
)
from multiagents.state_store.records.stream_reading import StoredEntry, field_of, page_of, text_of
from multiagents.state_store.streams import Streams
from multiagents.workflow.state import RunStatus


class InMemoryStreams(Streams):
    """Keep what steps say.

    Args:
        tables: what is kept.
        policy: in what form data is stored.
    """

    def __init__(self, tables: Tables, policy: PayloadPolicy) -> None:
        self._tables = tables
        self._policy = policy

    def append(self, correlation: Correlation, owner: str, said: Sequence[Said], *, before: int, most: int) -> bool:
        texts = [text_of(one, self._policy) for one in said]
        key = attempt_key_of(correlation.direction, correlation.attempt)
        with self._tables.lock:
            row = self._tables.run(correlation.identity)
            found = None if row is None else row.in_flight(correlation.step)
            if row is None or found is None:
                return False
            if (found.attempt_key, found.delivery, found.owner) != (key, Delivery.CLAIMED, owner):
                return False
            wrote, me = f"o:{key[0]}:{correlation.step}", f"{key}|{owner}"
            writer, _, count = row.fields.get(wrote, "").rpartition("|")
            there = int(count) if writer == me else 0
            new = list(zip(said, texts, strict=True))[max(0, there - before) :]
            if not new:
                return True
            last = _last(row.fields.get("streamed")) or Offset(self._tables.next_stream(), -1)
            entries = [(one.kind.value, field_of(one), text) for one, text in new]
            if writer and writer != me:
                entries.insert(0, (EntryKind.ATTEMPT.value, "", str(correlation.attempt)))
            for kind, field, text in entries:
                last = last._replace(number=last.number + 1)
                row.stream[last.number] = StoredEntry(correlation.step, key, kind, field, text)
            for number in list(row.stream)[: max(0, len(row.stream) - most)]:
                del row.stream[number]
            row.fields[wrote], row.fields["streamed"] = f"{me}|{before + len(said)}", last.stored
            self._tables.tell(correlation.transaction_id)
            return True

    def read(self, transaction_id: str, after: str = "") -> StreamPage:
        with self._tables.lock:
            row = self._tables.row(transaction_id)
            if row is None:
                raise WorkflowNotFoundError(transaction_id)
            last, known = _last(row.fields.get("streamed")), _last(after)
            least = known.number + 1 if last and known and last.base == known.base else 0
            base = last.base if last else 0
            rows = [(Offset(base, number), one) for number, one in row.stream.items() if number >= least]
            status = RunStatus(row.fields["status"])
        return page_of(transaction_id, rows[:READ_AT_ONCE], after, status, self._policy)


def _last(text: str | None) -> Offset | None:
    return Offset.parse(text) if text else None
