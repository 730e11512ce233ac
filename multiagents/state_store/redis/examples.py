"""What agents have done, to learn from, in Redis: by worker, in the partitions of the runs."""

from __future__ import annotations

from functools import partial
from typing import Any

from multiagents.failpoints import WriteSite
from multiagents.keys import Keys
from multiagents.names import parse_identity
from multiagents.state_store.examples import (
    DROPPED_AT_ONCE,
    READ_AT_ONCE,
    ExamplePage,
    Examples,
    FeedbackGiven,
    readable,
)
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.records import Experience, Feedback, Lesson, StoredExample
from multiagents.state_store.redis.script_server import ScriptServer

#: How many values the script answers for each example.
_WIDTH = 6


class RedisExamples(Examples):
    """Keep examples beside the runs.

    Args:
        server: runs the scripts.
        keys: the key names.
        policy: in what form data is stored.
    """

    def __init__(self, server: ScriptServer, keys: Keys, policy: PayloadPolicy) -> None:
        self._server = server
        self._client: Any = server.client
        self._keys = keys
        self._policy = policy

    def arguments_of(self, lesson: Lesson) -> tuple[Any, ...]:
        """What the script ``commit`` takes behind all else."""
        most = -(-lesson.most // self._keys.partitions)
        return lesson.worker, lesson.step, lesson.text, most, lesson.keep_ms, DROPPED_AT_ONCE

    def page(self, worker: str, keep_ms: int, *, limit: int = READ_AT_ONCE, before: int | None = None) -> ExamplePage:
        found: list[StoredExample] = []
        for part in self._keys.of_each_partition():
            args = [part.runs, "" if before is None else before, limit + 1, keep_ms]
            keys = [part.examples(worker), part.example(worker)]
            now, *flat = self._server.run(None, "examples_page", keys, args)
            self._server.heard(now)
            for at in range(0, len(flat), _WIDTH):
                member, when, text, outcome, edited, feedback = flat[at : at + _WIDTH]
                found.append(StoredExample(member, int(when), text, outcome, edited == "1", feedback))
        found.sort(key=lambda each: -each.at)
        more = len(found) > limit
        # What was written at once, in different partitions, stays together: the next page begins before it.
        page = [each for each in found if not more or each.at >= found[limit - 1].at]
        return ExamplePage(readable(worker, page, self._policy), page[-1].at if more else None)

    def of_step(self, identity: str, step: str) -> tuple[str, Experience] | None:
        run, member = self._keys.of_run(parse_identity(identity)[0]), f"{identity}|{step}"
        worker = self._server.call(partial(self._client.hget, run.examples_of, member))
        if worker is None:
            return None
        text = self._server.call(partial(self._client.hget, run.example(worker), f"x|{member}"))
        return None if text is None else (worker, Experience.read(text, self._policy))

    def feedback(
        self, transaction_id: str, said: Feedback, *, step: str | None = None, nonce: str | None = None
    ) -> FeedbackGiven:
        run = self._keys.of_run(transaction_id)
        text = said._replace(at=self._server.now_ms()).written(self._policy)
        args = [transaction_id, nonce or "", step or "", text]
        reply = self._server.run(WriteSite.EXAMPLES_FEEDBACK, "examples_feedback", [run.run, run.examples_of], args)
        _, now, _, *steps = reply
        self._server.heard(now)
        return FeedbackGiven([name for name in steps if step in (None, name)], steps)

    def forget(self, transaction_id: str) -> int:
        run = self._keys.of_run(transaction_id)
        keys = [run.run, run.examples_of]
        return int(self._server.run(WriteSite.EXAMPLES_FORGET, "examples_forget", keys, [transaction_id])[0])

    def tidy(self, keep_ms: int) -> None:
        for part in self._keys.of_each_partition():
            self._server.run(WriteSite.EXAMPLES_TIDY, "examples_tidy", [part.learners], [keep_ms, DROPPED_AT_ONCE])
