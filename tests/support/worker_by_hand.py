"""What a worker process does with a message, by hand: threads of a test play a thousand workers on a real store."""

from __future__ import annotations

import json
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from redis import Redis

from multiagents import ErrorEvent, ErrorInfo, Orchestrator, ResultEvent
from multiagents.events import CommandEvent, CompensationEvent
from multiagents.names import Correlation, Direction
from multiagents.orchestrator.dispatch.kombu import SEPARATOR
from multiagents.orchestrator.recovery import Sweep
from multiagents.state_store.records import Claim
from multiagents.workflow.decider import fold
from tests.support.apps import scripted

#: Seconds. Who is frozen for longer has lost what he had in hand.
LEASE = 1.0


class Message(NamedTuple):
    """A message that was taken out of its queue: its headers, and the keyword arguments of its task."""

    headers: dict[str, Any]
    kwargs: dict[str, Any]

    @property
    def attempt(self) -> Correlation:
        """The attempt that it is of, in the very run that sent it."""
        return Correlation.parse(self.headers["id"])._replace(nonce=self.kwargs.get("nonce", ""))


class WorkerByHand:
    """What a worker process does with a message, by hand."""

    def __init__(self, url: str, **settings: Any) -> None:
        app = scripted.make_app(url, lease=LEASE, sweep_interval=0.1, **settings)
        self.orchestrator: Orchestrator = app.multiagents
        self.engine, self.store = self.orchestrator.engine, self.orchestrator.store
        self._redis = Redis.from_url(url)
        self._over = threading.Event()

    def message(self) -> Message | None:
        """The next message in the queue; the most urgent comes first."""
        for name in ("celery", *(f"celery{SEPARATOR}{priority}" for priority in (3, 6, 9))):
            found = self._redis.rpop(name)
            if found is not None:
                message = json.loads(found)
                _, kwargs, _ = json.loads(b64decode(message["body"]))
                return Message(message["headers"], kwargs)
        return None

    def attempt(self, transaction_id: str, step: str, direction: Direction, number: int) -> Correlation:
        """An attempt of the run that has this id now."""
        return self.store.load(transaction_id).state.correlation(step, direction, number)

    def claim(self, attempt: Correlation, definition: str, owner: str) -> Claim:
        return self.store.claim(attempt, definition, owner=owner, worker=owner, timeout=60)

    def settle(self, event: ResultEvent | ErrorEvent, claim: Claim) -> None:
        for link in self.engine.settle(event, claim).links:
            link.apply_async()

    @contextmanager
    def sweeping(self, sweepers: int = 2) -> Iterator[None]:
        """Sweep in the background, as every worker does."""

        def sweep() -> None:
            mine = Sweep(self.engine)
            while not self._over.wait(0.05):
                mine.tick()

        threads = [threading.Thread(target=sweep) for _ in range(sweepers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def sound(self, transaction_id: str) -> None:
        """Check what holds for every run that is over."""
        snapshot, history = self.store.load(transaction_id), self.store.history(transaction_id)
        assert snapshot.in_flight == {}
        assert fold(snapshot.definition, transaction_id, history) == snapshot.state
        sent = [event.correlation_id for event in history if isinstance(event, CommandEvent | CompensationEvent)]
        assert len(sent) == len(set(sent)), "an attempt was dispatched twice"


def came_to(claim: Claim, payload: Any = None, *, fails: bool = False) -> ResultEvent | ErrorEvent:
    """What came of a claimed attempt."""
    attempt = claim.correlation
    said: dict[str, Any] = {
        "id": f"{attempt}/end",
        "transaction_id": attempt.transaction_id,
        "correlation_id": str(attempt),
        "step": attempt.step,
        "attempt": attempt.attempt,
        "worker": claim.owner,
        "timestamp": claim.now,
    }
    if fails:
        error = ErrorInfo(type="CardDeclined", message="declined", attempt=attempt.attempt)
        return ErrorEvent(**said, error=error, retryable=False)
    return ResultEvent(**said, payload=payload)
