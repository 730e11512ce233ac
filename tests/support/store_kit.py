"""A state store of each kind with its broker to look into, and the ways to move a run that most tests need.

What a test does not name is this: the run is `RUN`, of the workflow `FLOW`; what is claimed and finished is the first
attempt of its first step, `STEP` and `ATTEMPT`, by the worker `OWNER`. So ``kit.begin()``, ``kit.claim()`` and
``kit.finish()`` start order-1, take reserve/do/1 for owner-1, and commit its success.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from hashlib import sha1
from typing import Any

import pytest
import redis

from multiagents import Step, WorkflowBuilder
from multiagents.clock import to_ms
from multiagents.events import CommandEvent, ResultEvent, StatusEvent
from multiagents.keys import Keys
from multiagents.names import Correlation, Direction
from multiagents.state_store import StateStore
from multiagents.state_store.memory import InMemoryStateStore
from multiagents.state_store.memory.tables import Tables
from multiagents.state_store.payloads import PLAIN, PayloadPolicy
from multiagents.state_store.records import Claim, Commit, Committed, Delivery, Dispatch, Started, record_prefix
from multiagents.state_store.redis import RedisStateStore, script_server
from multiagents.state_store.redis.script_server import ScriptServer
from multiagents.state_store.redis.scripts import Script, script
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import Activity, ActivityStatus, RunState, RunStatus, StepState

#: Seconds; short, because some tests wait until one has run out.
LEASE = 0.5
#: The broker list that messages go to.
LIST = "celery"

RUN = "order-1"
STEP = "reserve"
ATTEMPT = "d1"
OWNER = "owner-1"
FLOW = (
    WorkflowBuilder("contract")
    .add_step(STEP, "reserve_stock", compensation="release_stock")
    .add_parallel("risk", [Step("fraud", "check_fraud"), [Step("credit", "check_credit"), Step("limit", "set_limit")]])
    .add_step("ship", "ship_order")
    .build(register=False)
)


class StoreKit:
    """A state store, its broker's lists, and the ways to move a run that most tests need."""

    #: in what form data is stored
    policy: PayloadPolicy = PLAIN

    def __init__(self, keys: Keys, new_store: Callable[[float], StateStore]) -> None:
        self.keys = keys
        self.new_store = new_store
        self.store = new_store(LEASE)
        self.made: list[StateStore] = [self.store]

    # --- what differs ---

    def sleep(self, seconds: float) -> None:
        """Let time pass, on the store's clock."""
        raise NotImplementedError

    def set_clock(self, seconds: float) -> None:
        """Set the store's clock forward by so much, or below 0 back; no time passes."""
        raise NotImplementedError

    def messages(self, name: str = LIST) -> list[str]:
        """The messages in a broker list, the next to be consumed first."""
        raise NotImplementedError

    def consume(self, name: str = LIST) -> str:
        """Take the next message out of a broker list."""
        raise NotImplementedError

    def publish(self, message: str, name: str = LIST) -> None:
        """Put somebody else's message into a broker list."""
        raise NotImplementedError

    def give_back(self, message: str, name: str = LIST) -> None:
        """Put a message where it is consumed next."""
        raise NotImplementedError

    def begin_at_once(self, count: int) -> list[str]:
        """Start runs in one and the same millisecond; gives their ids."""
        raise NotImplementedError

    def stored(self, transaction_id: str = RUN) -> dict[str, Any]:
        """What is kept of a run, as it is kept: its hash, context, results, history, journal, stream, and what lies
        apart."""
        raise NotImplementedError

    def dead_letters(self, transaction_id: str = RUN) -> dict[str, str]:
        """The dead letters beside a run, as they are kept."""
        raise NotImplementedError

    def spoil(self, kind: str, name: str, text: str | None, transaction_id: str = RUN) -> None:
        """Put something else in the place of a field of what `stored` gives; None removes it."""
        raise NotImplementedError

    def close(self) -> None:
        """Give connections back."""
        for store in self.made:
            store.close()

    # --- what does not ---

    def another(self, lease: float = LEASE) -> StateStore:
        """The same store as another process has it."""
        store = self.new_store(lease)
        self.made.append(store)
        return store

    def under(self, policy: PayloadPolicy) -> StateStore:
        """Go on with the same data, as a process with other settings."""
        self.policy = policy
        self.store = self.another()
        return self.store

    def message(
        self, transaction_id: str, step: str, attempt_key: str = ATTEMPT, name: str = LIST, **fields: Any
    ) -> Dispatch:
        """An attempt that a commit pushes, as the dispatcher renders it."""
        partition = self.keys.partition_of(transaction_id)
        prefix = f'{{"id": "{transaction_id}/{step}/{attempt_key}", "headers": {{"multiagents": "{partition}:'
        return Dispatch(step, attempt_key, Delivery.PUSH, name, prefix, '"}}', **fields)

    def begin(
        self,
        transaction_id: str = RUN,
        *,
        definition: Definition = FLOW,
        input: Any = None,
        dispatch: Dispatch | None = None,
        digest: str = "digest-1",
        call: str = "",
        replaces: Collection[RunStatus] = (),
        nonce: str = "",
        store: StateStore | None = None,
        **fields: Any,
    ) -> Started:
        """Start a run; its first step is pushed to the broker unless said otherwise."""
        first = definition.entries[0]
        now = self.store.now()
        state = RunState(
            transaction_id,
            definition.name,
            definition.version,
            definition.content_hash,
            RunStatus.RUNNING,
            {first: StepState(Activity(ActivityStatus.IN_FLIGHT, 1))},
            started_at=to_ms(now),
            nonce=nonce,
        )
        begun = StatusEvent(transaction_id=transaction_id, timestamp=now, occurred_at=now, status="running")
        asked = CommandEvent(
            transaction_id=transaction_id,
            correlation_id=f"{transaction_id}/{first}/do/1",
            timestamp=now,
            occurred_at=now,
            step=first,
            attempt=1,
        )
        commit = Commit(
            transaction_id,
            [begun, asked],
            header=state.encode_header(),
            steps=state.steps,
            dispatches=[dispatch or self.message(transaction_id, first)],
            moved=(definition.name, "pending", "running"),
            nonce=nonce,
            **fields,
        )
        given = {"total": 5} if input is None else input
        return (store or self.store).start(definition, state, commit, given, digest, call=call, replaces=replaces)

    def claim(
        self,
        step: str = STEP,
        attempt: int = 1,
        *,
        undo: bool = False,
        owner: str = OWNER,
        transaction_id: str = RUN,
        timeout: float | None = None,
        heartbeat_timeout: float | None = None,
        definition: Definition = FLOW,
    ) -> Claim:
        """Take an attempt."""
        return self.store.claim(
            correlation(step, attempt, undo=undo, transaction_id=transaction_id),
            definition.content_hash,
            owner=owner,
            worker="worker@host",
            timeout=timeout,
            heartbeat_timeout=heartbeat_timeout,
        )

    def finish(
        self,
        step: str = STEP,
        result: Any = None,
        *,
        transaction_id: str = RUN,
        owner: str = OWNER,
        attempt_key: str = ATTEMPT,
        asks: Sequence[str] = (),
        store: StateStore | None = None,
        **fields: Any,
    ) -> Committed:
        """Commit the success of a claimed attempt, and push the first attempt of what follows."""
        now = self.store.now()
        event = ResultEvent(
            transaction_id=transaction_id,
            correlation_id=f"{transaction_id}/{step}/do/{attempt_key[1:]}",
            timestamp=now,
            occurred_at=now,
            step=step,
            attempt=int(attempt_key[1:]),
        )
        given: dict[str, Any] = {
            "events": [event],
            "steps": {step: StepState(Activity(ActivityStatus.SUCCEEDED, int(attempt_key[1:])))}
            | {name: StepState(Activity(ActivityStatus.IN_FLIGHT, 1)) for name in asks},
            "dispatches": [self.message(transaction_id, name) for name in asks],
            "answers": (step, record_prefix(attempt_key, Delivery.CLAIMED, owner)),
            "results": {} if result is None else {step: result},
        }
        return (store or self.store).commit(Commit(transaction_id, **(given | fields)))

    def end(self, transaction_id: str = RUN, status: str = "completed", **fields: Any) -> Committed:
        """Bring a run to its end, whatever it was doing."""
        snapshot = self.store.load(transaction_id)
        given: dict[str, Any] = {
            "header": {"status": status, "finished": "1"},
            "moved": (snapshot.definition.name, snapshot.state.status.value, status),
            "retention_ms": 60_000,
            "version": snapshot.version,
            "ends": [(step, entry.record) for step, entry in snapshot.in_flight.items()],
            "nonce": snapshot.state.nonce,
        }
        return self.store.commit(Commit(transaction_id, [], **(given | fields)))

    def due(self, limit: int = 100) -> list[str]:
        """The entries that are due now."""
        return [entry.member for entry in self.store.take_due(limit=limit)[0]]

    def sweep_for(self, seconds: float) -> list[str]:
        """Sweep often for a while; gives what was due."""
        found: list[str] = []
        until = self.store.now().timestamp() + seconds
        while self.store.now().timestamp() < until:
            self.sleep(LEASE / 20)
            found += self.due()
        return found

    def wait_due(self, seconds: float = 10.0) -> list[str]:
        """Sweep often until something is due; gives it."""
        until = self.store.now().timestamp() + seconds
        while not (found := self.due()) and self.store.now().timestamp() < until:
            self.sleep(LEASE / 20)
        return found

    def seen(self, transaction_id: str = RUN) -> Any:
        """All that there is to see of a run, but for the time it is seen at."""
        snapshot = self.store.load(transaction_id)
        return (
            snapshot.state,
            dict(snapshot.in_flight),
            snapshot.version,
            snapshot.epoch,
            self.store.payloads(transaction_id),
            self.store.history(transaction_id),
            self.store.journal.calls(transaction_id),
            self.messages(),
        )


#: What is kept of a run, in memory.
_STORED = ("fields", "context", "results", "history", "blobs", "journal", "stream")


class MemoryKit(StoreKit):
    """The store in memory, whose time the test moves."""

    def __init__(self, keys: Keys) -> None:
        self.offset = self.slept = 0.0
        self.tables = Tables(lambda: time.time() + self.offset, lambda: (time.monotonic() + self.slept) * 1000)
        self.lists = self.tables.lists

        def new_store(lease: float) -> StateStore:
            return InMemoryStateStore(keys=keys, lease=lease, policy=self.policy, tables=self.tables)

        super().__init__(keys, new_store)

    def sleep(self, seconds: float) -> None:
        self.offset += seconds
        self.slept += seconds

    def set_clock(self, seconds: float) -> None:
        self.offset += seconds

    def messages(self, name: str = LIST) -> list[str]:
        return list(reversed(self.lists[name]))

    def consume(self, name: str = LIST) -> str:
        return self.lists[name].pop()

    def publish(self, message: str, name: str = LIST) -> None:
        self.lists[name].appendleft(message)

    def give_back(self, message: str, name: str = LIST) -> None:
        self.lists[name].append(message)

    def stored(self, transaction_id: str = RUN) -> dict[str, Any]:
        row = self.tables.row(transaction_id)
        if row is None:
            return {}
        return {name: getattr(row, name) for name in _STORED}

    def dead_letters(self, transaction_id: str = RUN) -> dict[str, str]:
        return self.tables.dead

    def spoil(self, kind: str, name: str, text: str | None, transaction_id: str = RUN) -> None:
        place = self.tables.dead if kind == "dead" else self.stored(transaction_id)[kind]
        if text is None:
            del place[name]
        else:
            place[name] = text

    def begin_at_once(self, count: int) -> list[str]:
        now = time.time()
        self.tables.clock = lambda: now
        names = [f"order-{number}" for number in range(count)]
        for name in names:
            self.begin(name)
        return names


class RedisKit(StoreKit):
    """The store on Redis, with a client to look into it."""

    store: RedisStateStore

    def __init__(self, url: str, keys: Keys) -> None:
        super().__init__(keys, lambda lease: RedisStateStore(url, keys=keys, lease=lease, policy=self.policy))
        self.client: Any = redis.Redis.from_url(url, decode_responses=True)
        self._ahead = 0
        self._patch = pytest.MonkeyPatch()

    @property
    def server(self) -> ScriptServer:
        """What the store sends scripts with: the one place where a test looks inside it."""
        return self.store._server

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def set_clock(self, seconds: float) -> None:
        # The server's own cannot be set: its scripts read it through this from now on.
        self._ahead += round(seconds)
        clock = f"(function(t) return {{string.format('%.0f', t[1] + {self._ahead}), t[2]}} end)(redis.call('TIME'))"

        def late(name: str) -> Script:
            text = script(name).text.replace("redis.call('TIME')", clock)
            return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())

        self._patch.setattr(script_server, "script", late)

    def messages(self, name: str = LIST) -> list[str]:
        return list(reversed(self.client.lrange(name, 0, -1)))

    def consume(self, name: str = LIST) -> str:
        return str(self.client.rpop(name))

    def publish(self, message: str, name: str = LIST) -> None:
        self.client.lpush(name, message)

    def give_back(self, message: str, name: str = LIST) -> None:
        self.client.rpush(name, message)

    def begin_at_once(self, count: int) -> list[str]:
        names = [f"order-{number}" for number in range(count)]
        for name in names:
            self.begin(name)
            # No server is so fast; so the index is told.
            run = self.keys.of_run(name)
            for index in (run.index("running"), run.index("running", "contract")):
                self.client.zadd(index, {name: 1_700_000_000_000})
        return names

    def stored(self, transaction_id: str = RUN) -> dict[str, Any]:
        run = self.keys.of_run(transaction_id)
        hashes = {"fields": run.run, "context": run.context, "results": run.results}
        hashes |= {"blobs": run.blobs, "journal": run.journal}
        found = {name: self.client.hgetall(key) for name, key in hashes.items()}
        found |= {"history": self.client.lrange(run.history, 0, -1), "stream": self.client.xrange(run.stream)}
        return found if any(found.values()) else {}

    def dead_letters(self, transaction_id: str = RUN) -> dict[str, str]:
        found: dict[str, str] = self.client.hgetall(self.keys.of_run(transaction_id).dead)
        return found

    def spoil(self, kind: str, name: str, text: str | None, transaction_id: str = RUN) -> None:
        run = self.keys.of_run(transaction_id)
        key = run.run if kind == "fields" else getattr(run, kind)
        if text is None:
            self.client.hdel(key, name)
        else:
            self.client.hset(key, name, text)

    def close(self) -> None:
        self._patch.undo()
        super().close()
        self.client.close()


def correlation(step: str = STEP, attempt: int = 1, *, undo: bool = False, transaction_id: str = RUN) -> Correlation:
    return Correlation(transaction_id, step, Direction.UNDO if undo else Direction.DO, attempt)
