"""The world outside, as the examples have it: who is asked for what there, and what came of it, in one SQLite file.

It knows nothing of the engine, so it can testify about it. Three rules make an effect safe to ask for again:

1. Every call names an idempotency key. The first call with a key takes effect; a repeated one gets the same answer.
2. An undo has a key of its own and names the key of what it undoes. Undoing what never happened is a normal no-op.
3. An undo that comes first leaves a mark, and the late call that it was meant for is refused. Otherwise a worker that
   was given up and wakes up again would charge a customer whose order is long cancelled.

Every call, repeated and refused ones included, is a line of the journal.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

#: The folder of the world; the default is for a worker started by hand in the project's folder.
FOLDER = "EXAMPLES_DATA"
#: The world's own slowness: 1 is slow enough to watch, 0 is none.
PACE = "EXAMPLES_PACE"

_TABLES = """
CREATE TABLE IF NOT EXISTS effects (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, subject TEXT, amount INTEGER NOT NULL DEFAULT 0,
    detail TEXT NOT NULL DEFAULT '{}', status TEXT NOT NULL CHECK (status IN ('live', 'undone', 'void')));
CREATE TABLE IF NOT EXISTS journal (
    n INTEGER PRIMARY KEY, at REAL NOT NULL, call TEXT NOT NULL, key TEXT NOT NULL, subject TEXT,
    amount INTEGER NOT NULL, answer TEXT NOT NULL, pid INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS failures (
    kind TEXT, subject TEXT, error TEXT NOT NULL, words TEXT NOT NULL, after INTEGER NOT NULL, times INTEGER NOT NULL,
    PRIMARY KEY (kind, subject));
"""


class RefusedError(Exception):
    """The outside world said no, and will say no again."""


class AlreadyUndoneError(RefusedError):
    """This was undone before it came (rule 3 of this module)."""


class UnavailableError(Exception):
    """The other side is down; nothing happened, and trying again may help."""


class NoAnswerError(Exception):
    """The other side did not answer; it may have done what it was asked."""


class Service:
    """Somebody outside who does one kind of thing, and undoes it. In your project this is a client of theirs.

    Args:
        kind: what is done: "flight", "payment".
        seconds: how long that takes.
    """

    def __init__(self, kind: str, seconds: float = 0.0) -> None:
        self.kind = kind
        self.seconds = seconds

    def do(self, key: str, subject: str, amount: int = 0, **detail: Any) -> str:
        """Do it, once for each key; returns a reference, the same each time.

        Args:
            key: the idempotency key.
            subject: what it is about: an order, a trip.
            amount: of cents, or of what else is counted.
            detail: more to note about it.

        Raises:
            RefusedError: when the answer is no, now and later.
            UnavailableError: when nothing happened, and trying again may help.
            NoAnswerError: when it may have happened, and nobody says so.
        """
        world = World()
        time.sleep(world.time(self.seconds))
        with world.doing(self.kind, key, subject, amount) as (db, known):
            failure = _failure(db, self.kind, subject)
            if failure is not None and not isinstance(failure, NoAnswerError):
                raise failure
            if known is None:
                add(db, self.kind, key, subject, amount, detail)
        if failure is not None:
            raise failure
        return f"{self.kind}-{digest(key)}"

    def undo(self, key: str, subject: str) -> bool:
        """Undo what was done with a key; False when there is nothing to undo."""
        world = World()
        time.sleep(world.time(self.seconds))
        with world.undoing(f"undo {self.kind}", key, subject, self.kind) as (_, live):
            return live


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


@dataclass(frozen=True)
class Check:
    """Something that has to be so at the end of an example, and whether it is."""

    rule: str
    holds: bool
    #: the figures, or what broke the rule
    figures: str = ""
    #: whether it hangs on what a model says: a real one may say something else
    free: bool = False


class World:
    """One world. Nothing is opened until it is used, and then anew for every call: any process and thread may use it.

    Args:
        folder: where its SQLite file is; None for the folder that ``EXAMPLES_DATA`` names, else ``.multiagents``.
    """

    file: ClassVar[str] = "world.db"
    #: the tables that a kind of world has on top, as SQL
    tables: ClassVar[str] = ""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @property
    def path(self) -> Path:
        """Its file."""
        return (self._folder or Path(os.environ.get(FOLDER, ".multiagents"))) / self.file

    def time(self, seconds: float) -> float:
        """How long something takes that takes so many seconds at pace 1."""
        return seconds * float(os.environ.get(PACE, "1"))

    def open(self, db: sqlite3.Connection) -> None:
        """Put into a new file what a kind of world begins with; safe to do twice."""

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        """All or nothing; writers wait for each other up to 10 s, readers never wait."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode = WAL")
            if not db.execute("PRAGMA user_version").fetchone()[0]:
                with _all_or_nothing(db, "IMMEDIATE"):
                    for statement in (_TABLES + self.tables).split(";"):
                        db.execute(statement)
                    self.open(db)
                    db.execute("PRAGMA user_version = 1")
            with _all_or_nothing(db, "IMMEDIATE" if write else "DEFERRED"):
                yield db

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
    def undoing(self, call: str, key: str, subject: str, kind: str) -> Iterator[tuple[sqlite3.Connection, bool]]:
        """Undo in a transaction what a key brought about, as ``<key>/undo``; with whether there is anything to undo."""
        with self.transaction() as db:
            row = db.execute("SELECT status, amount FROM effects WHERE key = ?", (key,)).fetchone()
            live = row is not None and row["status"] == "live"
            yield db, live
            if row is None:
                mark = (key, kind, subject)
                db.execute("INSERT INTO effects (key, kind, subject, status) VALUES (?, ?, ?, 'void')", mark)
            elif live:
                db.execute("UPDATE effects SET status = 'undone' WHERE key = ?", (key,))
            answer = "done" if live else "nothing to undo" if row is None or row["status"] == "void" else "repeated"
            note(db, call, f"{key}/undo", subject, row["amount"] if row else 0, answer)

    # -- what a story does with it -------------------------------------------------------------------------------------

    def fail(self, kind: str, subject: str, error: Exception, *, after: int = 0, times: int | None = None) -> None:
        """Make the calls to a `Service` fail, as far as they are about one subject.

        Args:
            kind: the service's.
            subject: the subject.
            error: what the caller gets; with a `NoAnswerError` the call takes effect all the same.
            after: so many calls go well before.
            times: so many calls fail; None: all, until `mend`.
        """
        row = (kind, subject, type(error).__name__, str(error), after, -1 if times is None else times)
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?)", row)

    def mend(self, kind: str, subject: str) -> None:
        """Make the calls to a service go well again."""
        with self.transaction() as db:
            db.execute("DELETE FROM failures WHERE kind = ? AND subject = ?", (kind, subject))

    def effects(self, subject: str = "") -> list[Effect]:
        """What calls brought about, oldest first: all of it, or what is about a subject and its parts (``B-1/x``)."""
        query = "SELECT key, kind, subject, amount, detail, status FROM effects ORDER BY rowid"
        with self.transaction(write=False) as db:
            effects = [Effect(**{**dict(row), "detail": json.loads(row["detail"])}) for row in db.execute(query)]
        return [each for each in effects if f"{each.subject}/".startswith(f"{subject}/") or not subject]

    def journal(self, subject: str, call: str) -> list[dict[str, Any]]:
        """Every call of a kind about a subject, oldest first."""
        query = "SELECT at, key, amount, answer, pid FROM journal WHERE subject = ? AND call = ? ORDER BY n"
        with self.transaction(write=False) as db:
            return [dict(row) for row in db.execute(query, (subject, call))]

    def check_keys(self) -> Check:
        """Check rule 1, which holds whatever is repeated or killed."""
        with self.transaction(write=False) as db:
            query = "SELECT key FROM journal WHERE answer = 'done' GROUP BY key HAVING count(*) > 1"
            twice = [str(row["key"]) for row in db.execute(query)]
        return Check("no key took effect twice", not twice, ", ".join(twice) or "none")


@contextmanager
def _all_or_nothing(db: sqlite3.Connection, kind: str) -> Iterator[None]:
    db.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def add(
    db: sqlite3.Connection, kind: str, key: str, subject: str, amount: int, detail: dict[str, Any]
) -> dict[str, Any]:
    """Note an effect that is live from now on; returns its detail."""
    row = (key, kind, subject, amount, json.dumps(detail))
    db.execute("INSERT INTO effects (key, kind, subject, amount, detail, status) VALUES (?, ?, ?, ?, ?, 'live')", row)
    return detail


def note(db: sqlite3.Connection, call: str, key: str, subject: str, amount: int, answer: str) -> None:
    """Write a line of the journal."""
    insert = "INSERT INTO journal (at, call, key, subject, amount, answer, pid) VALUES (?, ?, ?, ?, ?, ?, ?)"
    db.execute(insert, (time.time(), call, key, subject, amount, answer, os.getpid()))


def digest(key: str) -> str:
    """A short number that a provider would give to what was done with a key."""
    return hashlib.sha256(key.encode()).hexdigest()[:8].upper()


def _failure(db: sqlite3.Connection, kind: str, subject: str) -> Exception | None:
    """How the call that is being made fails, if it does."""
    row = db.execute("SELECT * FROM failures WHERE kind = ? AND subject = ?", (kind, subject)).fetchone()
    if row is None:
        return None
    query = "SELECT count(*) FROM journal WHERE call = ? AND subject = ?"
    earlier = db.execute(query, (kind, subject)).fetchone()[0] - row["after"]
    if earlier < 0 or (row["times"] >= 0 and earlier >= row["times"]):
        return None
    kinds = {each.__name__: each for each in (RefusedError, UnavailableError, NoAnswerError)}
    return kinds[row["error"]](row["words"])
