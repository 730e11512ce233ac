"""The world outside the engine, as the examples have it: effects and a journal of calls, in one SQLite file.

It knows nothing of the engine, so it can testify about it. Three rules make an effect safe to ask for again:

1. Every call names an idempotency key. The first call with a key takes effect; a repeated one gets the same answer.
2. An undo has a key of its own and names the key of what it undoes. Undoing what never happened is a normal no-op.
3. An undo that comes first leaves a mark, and the late call that it was meant for is refused. Otherwise a worker that
   was given up and wakes up again would charge a customer whose order is long cancelled.

Every call, repeated and refused ones included, is a line of the journal.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

#: The folder of the worlds; the default is for a worker started by hand in the project's folder.
FOLDER = "EXAMPLES_DATA"
#: The world's own slowness: 1 is that of a demo, 0 is none.
PACE = "EXAMPLES_PACE"

_TABLES = """
CREATE TABLE IF NOT EXISTS effects (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, subject TEXT, amount INTEGER NOT NULL DEFAULT 0,
    detail TEXT NOT NULL DEFAULT '{}', status TEXT NOT NULL CHECK (status IN ('live', 'undone', 'void')));
CREATE TABLE IF NOT EXISTS journal (
    n INTEGER PRIMARY KEY, at REAL NOT NULL, call TEXT NOT NULL, key TEXT NOT NULL, subject TEXT,
    amount INTEGER NOT NULL, answer TEXT NOT NULL, pid INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class RefusedError(Exception):
    """The outside world said no, and will say no again."""


class AlreadyUndoneError(RefusedError):
    """This was undone before it came (rule 3 of this module)."""


class UnavailableError(Exception):
    """The other side is down; nothing happened, and trying again may help."""


class NoAnswerError(Exception):
    """The other side did not answer; it may have done what it was asked."""


@dataclass(frozen=True)
class Effect:
    """What a call brought about."""

    key: str
    kind: str
    #: what it is about: an order, a trip
    subject: str
    amount: int
    detail: dict[str, Any]
    #: "live", "undone", or "void" where its undo came first
    status: str


class World:
    """One world. Every call opens the file anew, so that any process and thread may use the same object.

    Args:
        path: the SQLite file; it is made when it is new.
        pace: by what the world's own slowness is multiplied; 0 is none.
    """

    #: its file, in the folder that ``EXAMPLES_DATA`` names
    file: ClassVar[str] = "world.db"
    #: the tables that a kind of world has on top, as SQL
    tables: ClassVar[str] = ""

    def __init__(self, path: str | Path, pace: float = 1.0) -> None:
        self.path = Path(path)
        self.pace = pace
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.transaction() as db:
            for statement in (_TABLES + self.tables).split(";"):
                db.execute(statement)
            self.open(db)

    @classmethod
    def from_environment(cls) -> Self:
        """The world in the folder that ``EXAMPLES_DATA`` names, else in ``.multiagents``."""
        return cls(Path(os.environ.get(FOLDER, ".multiagents")) / cls.file, float(os.environ.get(PACE, "1")))

    def open(self, db: sqlite3.Connection) -> None:
        """Put into a new file what a kind of world begins with."""

    def delay(self, seconds: float) -> float:
        """How long the world takes for something that takes so many seconds at pace 1."""
        return seconds * self.pace

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        """All or nothing; writers wait for each other up to 10 s, readers never wait."""
        db = sqlite3.connect(self.path, timeout=10, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE" if write else "BEGIN DEFERRED")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
        finally:
            db.close()

    # -- the rules at the head of this module --------------------------------------------------------------------------

    @contextmanager
    def doing(
        self, call: str, key: str, subject: str, amount: int = 0
    ) -> Iterator[tuple[sqlite3.Connection, dict[str, Any] | None]]:
        """Run a call in a transaction, with the answer that its key got before; refused or not, the journal has it.

        Raises:
            AlreadyUndoneError: when its undo came before it.
            ValueError: when the key was used for something else.
        """
        try:
            with self.transaction() as db:
                row = db.execute("SELECT status, kind, amount, detail FROM effects WHERE key = ?", (key,)).fetchone()
                if row and row["status"] != "live":
                    raise AlreadyUndoneError(f"{call} {key} came after it was undone")
                if row and (row["kind"], row["amount"]) != (call, amount):
                    raise ValueError(
                        f"key {key} was used for {row['kind']} of {row['amount']}, not for {call} of {amount}"
                    )
                yield db, json.loads(row["detail"]) if row else None
                note(db, call, key, subject, amount, "repeated" if row else "done")
        except (RefusedError, UnavailableError) as error:
            with self.transaction() as db:
                note(db, call, key, subject, amount, f"refused: {type(error).__name__}")
            raise

    @contextmanager
    def undoing(
        self, call: str, key: str, subject: str, of: str, kind: str
    ) -> Iterator[tuple[sqlite3.Connection, bool]]:
        """Run an undo in a transaction; it is told whether there is anything to undo."""
        with self.transaction() as db:
            row = db.execute("SELECT status, amount FROM effects WHERE key = ?", (of,)).fetchone()
            live = row is not None and row["status"] == "live"
            yield db, live
            if row is None:
                mark = (of, kind, subject)
                db.execute("INSERT INTO effects (key, kind, subject, status) VALUES (?, ?, ?, 'void')", mark)
            elif live:
                db.execute("UPDATE effects SET status = 'undone' WHERE key = ?", (of,))
            answer = "done" if live else "nothing to undo" if row is None or row["status"] == "void" else "repeated"
            note(db, call, key, subject, row["amount"] if row else 0, answer)

    def undo(self, call: str, key: str, subject: str, kind: str) -> bool:
        """Undo what a key brought about, as ``<key>/undo``; False when there was nothing to undo."""
        with self.undoing(call, f"{key}/undo", subject, of=key, kind=kind) as (_, live):
            return live

    # -- what anybody may see or change --------------------------------------------------------------------------------

    def effects(self, subject: str | None = None) -> list[Effect]:
        """What calls brought about, oldest first: all of it, or what is about one subject."""
        query = "SELECT key, kind, subject, amount, detail, status FROM effects WHERE subject = coalesce(?, subject)"
        with self.transaction(write=False) as db:
            rows = db.execute(f"{query} ORDER BY rowid", (subject,)).fetchall()
        return [Effect(**{**dict(row), "detail": json.loads(row["detail"])}) for row in rows]

    def journal_of(self, subject: str) -> list[dict[str, Any]]:
        """Every call about a subject, oldest first."""
        query = "SELECT at, call, key, amount, answer, pid FROM journal WHERE subject = ? ORDER BY n"
        with self.transaction(write=False) as db:
            return [dict(row) for row in db.execute(query, (subject,))]

    def set_fact(self, name: str, value: Any) -> None:
        """Change how the world is: ``world.set_fact("register", "closed")``."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def fact(self, name: str, default: Any = None) -> Any:
        """How the world is, as `set_fact` left it."""
        with self.transaction(write=False) as db:
            row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(row["value"]) if row else default


def add(
    db: sqlite3.Connection, kind: str, key: str, subject: str, amount: int, detail: dict[str, Any]
) -> dict[str, Any]:
    """Note an effect that is live from now on; returns its detail, which is the answer to the call."""
    row = (key, kind, subject, amount, json.dumps(detail))
    db.execute("INSERT INTO effects (key, kind, subject, amount, detail, status) VALUES (?, ?, ?, ?, ?, 'live')", row)
    return detail


def note(db: sqlite3.Connection, call: str, key: str, subject: str, amount: int, answer: str) -> None:
    """Write a line of the journal."""
    insert = "INSERT INTO journal (at, call, key, subject, amount, answer, pid) VALUES (?, ?, ?, ?, ?, ?, ?)"
    db.execute(insert, (time.time(), call, key, subject, amount, answer, os.getpid()))
