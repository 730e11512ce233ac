"""What agents have done, to learn from, in memory."""

from __future__ import annotations

from multiagents.names import identity_of
from multiagents.state_store.examples import READ_AT_ONCE, ExamplePage, Examples, FeedbackGiven, readable
from multiagents.state_store.memory.tables import ExampleRow, Tables
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.records import Experience, Feedback, StoredExample


class InMemoryExamples(Examples):
    """Keep examples beside the runs.

    Args:
        tables: what is kept.
        policy: in what form data is stored.
    """

    def __init__(self, tables: Tables, policy: PayloadPolicy) -> None:
        self._tables = tables
        self._policy = policy

    def page(self, worker: str, keep_ms: int, *, limit: int = READ_AT_ONCE, before: int | None = None) -> ExamplePage:
        with self._tables.lock:
            oldest = self._tables.now() - keep_ms
            mine = [each for each in self._tables.examples.values() if each.worker == worker and each.at >= oldest]
            ordered = sorted((each for each in mine if before is None or each.at < before), key=lambda row: -row.at)
            stored = [self._stored(each) for each in ordered[:limit]]
        return ExamplePage(readable(worker, stored, self._policy), stored[-1].at if len(ordered) > limit else None)

    def _stored(self, row: ExampleRow) -> StoredExample:
        run = self._tables.run(row.who)
        outcome, edited = row.outcome, row.edited
        if run is not None:
            outcome, edited = run.fields["status"], run.fields.get("edited") == "1"
        return StoredExample(f"{row.who}|{row.step}", row.at, row.text, outcome, edited, row.feedback)

    def of_step(self, identity: str, step: str) -> tuple[str, Experience] | None:
        with self._tables.lock:
            row = self._tables.examples.get((identity, step))
        return None if row is None else (row.worker, Experience.read(row.text, self._policy))

    def feedback(
        self, transaction_id: str, said: Feedback, *, step: str | None = None, nonce: str | None = None
    ) -> FeedbackGiven:
        with self._tables.lock:
            text = said._replace(at=self._tables.now()).written(self._policy)
            rows, run = self._tables.examples_of(transaction_id), self._tables.row(transaction_id)
            if nonce is None and run is not None:
                nonce = run.fields.get("nonce", "")
            who = max(rows, key=lambda row: row.at).who if nonce is None and rows else ""
            who = who or identity_of(transaction_id, nonce or "")
            mine = [row for row in rows if row.who == who]
            given = [row for row in mine if step in (None, row.step)]
            for row in given:
                row.feedback = text
        return FeedbackGiven([row.step for row in given], [row.step for row in mine])

    def forget(self, transaction_id: str) -> int:
        with self._tables.lock:
            rows = [row for row in self._tables.examples_of(transaction_id) if self._tables.run(row.who) is None]
            self._tables.drop_examples(rows)
        return len(rows)

    def tidy(self, keep_ms: int) -> None:
        with self._tables.lock:
            oldest = self._tables.now() - keep_ms
            self._tables.drop_examples(row for row in self._tables.examples.values() if row.at <= oldest)
