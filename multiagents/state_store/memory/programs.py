"""What agents have learned, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from multiagents.state_store.memory.tables import ProgramRow, Tables
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.programs import Programs
from multiagents.state_store.records import (
    BUILT_IN,
    MAX_PROGRAM_CHANGES,
    MAX_PROGRAMS,
    Placement,
    ProgramChange,
    ProgramRecord,
)


class InMemoryPrograms(Programs):
    """Keep the programs of workers.

    Args:
        tables: what is kept.
        policy: in what form data is stored.
    """

    def __init__(self, tables: Tables, policy: PayloadPolicy) -> None:
        self._tables = tables
        self._policy = policy

    def add(self, worker: str, program: Any, about: Mapping[str, Any], *, token: str) -> int:
        kept, notes = self._policy.text(program), self._policy.text(dict(about))
        with self._tables.lock:
            row = self._tables.programs.setdefault(worker, ProgramRow())
            if token in row.tokens:
                return row.tokens[token]
            row.last += 1
            row.tokens[token] = row.last
            row.programs[row.last] = kept, self._tables.now(), notes
            in_place = {row.placement.current, row.placement.canary, *row.placement.former}
            gone = next((each for each in row.programs if each not in in_place), row.last)
            if len(row.programs) > MAX_PROGRAMS and gone != row.last:
                del row.programs[gone]
                row.tokens = {each: version for each, version in row.tokens.items() if version != gone}
            return row.last

    def get(self, worker: str, version: int) -> Any:
        with self._tables.lock:
            found = self._row(worker).programs.get(version)
        return None if found is None else from_json(self._policy.open(found[0]))

    def records(self, worker: str) -> list[ProgramRecord]:
        with self._tables.lock:
            found = dict(self._row(worker).programs)
        return [
            ProgramRecord(version, at, from_json(self._policy.open(notes))) for version, (_, at, notes) in found.items()
        ]

    def placement(self, worker: str) -> Placement:
        with self._tables.lock:
            return self._row(worker).placement

    def place(self, worker: str, placement: Placement, about: Mapping[str, Any]) -> bool:
        notes = self._policy.text(dict(about))
        with self._tables.lock:
            row = self._tables.programs.setdefault(worker, ProgramRow())
            wanted = {placement.current, placement.canary} - {BUILT_IN}
            if row.placement.revision != placement.revision or not wanted.issubset(row.programs):
                return row.placement == placement._replace(revision=placement.revision + 1)
            row.placement = placement._replace(revision=placement.revision + 1)
            row.changes.append((row.placement.revision, self._tables.now(), notes))
            del row.changes[:-MAX_PROGRAM_CHANGES]
            return True

    def changes(self, worker: str) -> list[ProgramChange]:
        with self._tables.lock:
            found = list(self._row(worker).changes)
        return [ProgramChange(revision, at, from_json(self._policy.open(notes))) for revision, at, notes in found]

    def _row(self, worker: str) -> ProgramRow:
        return self._tables.programs.get(worker) or ProgramRow()
