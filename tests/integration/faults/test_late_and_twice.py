"""What comes too late, and what comes twice: both are on record, and change nothing (guarantees G1 and G2).

Workers are played by threads that speak to a real store through the engine, as the worker SDK does. So a thousand of
them can be frozen, or cut off, at exactly the worst moment.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from multiagents import ErrorEvent, ResultEvent, RetryPolicy, Step, WorkflowBuilder
from multiagents.names import ORCHESTRATOR_TASK, Correlation, Direction
from multiagents.orchestrator.recovery import Sweep
from multiagents.state_store.records import Claim, ClaimRefused
from multiagents.testing import wait_until
from tests.support.worker_by_hand import Message, WorkerByHand, came_to

MANY = 1_000
PARCELS = WorkflowBuilder("parcels").add_step("pack", "play", compensation="play").add_step("ship", "play").build()
ONCE = RetryPolicy(max_attempts=1)
ORDER = (
    WorkflowBuilder("twice")
    .add_step("reserve", "play", compensation="play")
    .add_parallel("risk", [Step("fraud", "play"), [Step("credit", "play", compensation="play"), Step("limit", "play")]])
    .add_step("charge", "play", compensation="play", retry=RetryPolicy(max_attempts=2, initial_interval=0))
    .add_wait("paid")
    .add_step("ship", "play", retry=ONCE)
    .build()
)


# --- too late -------------------------------------------------------------------------------------------------------

#: When the frozen worker wakes up: always after its attempt was given up.
MOMENTS = [
    "before its successor has claimed",
    "while its successor works",
    "beside its successor",
    "after its successor",
]


class Zombies(WorkerByHand):
    """Every first attempt at one step freezes; its successor does the work, and before or after that it wakes."""

    def __init__(self, url: str, seed: int) -> None:
        super().__init__(url)
        self.chance = random.Random(seed)
        self.frozen: dict[tuple[str, str], Claim] = {}
        self.woken: list[str] = []
        self.errors: list[BaseException] = []

    def freezes(self, attempt: Correlation) -> bool:
        """Half of the runs lose the worker that does the first step, half the one that undoes it."""
        direction = Direction.UNDO if self.goes_back(attempt.transaction_id) else Direction.DO
        return (attempt.step, attempt.direction) == ("pack", direction) and attempt.attempt == 1

    @staticmethod
    def goes_back(transaction_id: str) -> bool:
        return int(transaction_id.rpartition("-")[2]) % 2 == 1

    def work(self, left: Callable[[], bool]) -> None:
        """Take messages as long as there are runs left."""
        while left():
            message = self.message()
            if message is None:
                threading.Event().wait(0.02)
                continue
            try:
                self._take(message.attempt)
            except BaseException as error:
                self.errors.append(error)
                raise

    def _take(self, attempt: Correlation) -> None:
        name = (attempt.transaction_id, attempt.step)
        if self.freezes(attempt):
            self.frozen[name] = self.claim(attempt, PARCELS.content_hash, "frozen")
            return
        moment = self.chance.choice(MOMENTS) if attempt.attempt == 2 else None
        if moment == "before its successor has claimed":
            self._wake(name)
        claim = self.claim(attempt, PARCELS.content_hash, "living")
        if moment == "while its successor works":
            self._wake(name)
        beside = threading.Thread(target=self._wake, args=(name,))
        if moment == "beside its successor":
            beside.start()
        fails = attempt.step == "ship" and self.goes_back(attempt.transaction_id)
        self.settle(came_to(claim, {"by": "living"}, fails=fails), claim)
        if moment == "beside its successor":
            beside.join()
        if moment == "after its successor":
            self._wake(name)

    def _wake(self, name: tuple[str, str]) -> None:
        """It goes on where it was: its lease is gone, and what it says is refused."""
        claim = self.frozen[name]
        alive = self.store.renew(claim.correlation, claim.owner).alive
        wants_to_fail = self.chance.randrange(3) == 0
        self.settle(came_to(claim, {"by": "frozen"}, fails=wants_to_fail), claim)
        assert not alive, "its lease was renewed, and somebody else had the step"
        self.woken.append(claim.correlation.transaction_id)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("many", [100, pytest.param(MANY, marks=pytest.mark.full)])
def test_G2_S1a_S5_workers_that_lost_their_lease_are_refused_every_time_whenever_they_wake(
    redis_url: str, many: int
) -> None:
    zombies = Zombies(redis_url, seed=11)
    names = [f"parcel-{number}" for number in range(many)]

    def left() -> bool:
        over = sum(zombies.orchestrator.count(PARCELS, status) for status in ("completed", "compensated"))
        return over < many and not zombies.errors

    with zombies.sweeping(), ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda name: zombies.orchestrator.start(PARCELS, {}, transaction_id=name), names):
            pass
        for worker in [pool.submit(zombies.work, left) for _ in range(6)]:
            worker.result()

    assert sorted(zombies.woken) == sorted(names)
    for name in names:
        state = zombies.store.load(name).state
        back = zombies.goes_back(name)
        activity = state.step("pack").undo if back else state.step("pack").do
        assert (state.status, activity.attempt, activity.losses, activity.worker) == (
            "compensated" if back else "completed",
            2,
            1,
            "living",
        )
        assert zombies.store.results(name)["pack"] == {"by": "living"}
        replies = Counter(
            event.correlation_id
            for event in zombies.store.history(name)
            if isinstance(event, ResultEvent | ErrorEvent) and event.worker == "frozen"
        )
        direction = "undo" if back else "do"
        assert replies == {f"{name}/pack/{direction}/1": 1}, "what it said is on record"
        zombies.sound(name)
    assert zombies.store.visibility.unattended() == []


# --- twice ----------------------------------------------------------------------------------------------------------


class Twice(WorkerByHand):
    """Everything comes twice: messages, results, errors, signals and cancels; and nothing comes of the second."""

    def __init__(self, url: str, **settings: Any) -> None:
        super().__init__(url, **settings)
        self.began: Counter[str] = Counter()
        self.again = 0

    def handle(self, message: Message) -> None:
        if message.headers["task"] == ORCHESTRATOR_TASK:
            transaction_id = message.kwargs["transaction_id"]
            self.engine.advance(transaction_id)
            self.changes_nothing(transaction_id, lambda: self.engine.advance(transaction_id))
            return
        attempt = message.attempt
        definition = ORDER.content_hash
        try:
            claim = self.claim(attempt, definition, "first")
        except ClaimRefused:
            return  # it is the second of a message that was sent twice
        self.began[str(attempt)] += 1
        with pytest.raises(ClaimRefused):
            self.claim(attempt, definition, "second")
        event = came_to(claim, {attempt.step: 1}, fails=self.fails(attempt))
        self.settle(event, claim)

        def all_of_it() -> None:
            with pytest.raises(ClaimRefused):
                self.claim(attempt, definition, "third")
            assert not self.engine.settle(event, claim).links
            for _ in range(2):
                self.engine.receive(event)

        self.changes_nothing(attempt.transaction_id, all_of_it)

    def changes_nothing(self, transaction_id: str, action: Callable[[], Any]) -> None:
        before = self.store.load(transaction_id)
        action()
        after = self.store.load(transaction_id)
        assert (after.state, after.in_flight) == (before.state, before.in_flight)
        self.again += 1

    def fails(self, attempt: Correlation) -> bool:
        """The run's name says at which step it turns back."""
        return attempt.direction is Direction.DO and attempt.transaction_id.startswith(f"{attempt.step}-")


@pytest.mark.parametrize("mode", ["inline", "queued"])
def test_G1_G2_G3_everything_that_comes_twice_counts_once(redis_url: str, mode: str) -> None:
    twice = Twice(redis_url, orchestration=mode)
    names = [f"{what}-{n}" for what in ("none", "fraud", "limit", "charge", "ship", "cancelled") for n in range(4)]
    runs = [twice.orchestrator.start(ORDER, {}, transaction_id=name) for name in names]
    for run in runs:
        name = run.transaction_id
        twice.changes_nothing(name, lambda name=name: twice.orchestrator.start(ORDER, {}, transaction_id=name))

    while any(not run.status.is_end for run in runs):
        while (message := twice.message()) is not None:
            twice.handle(message)
            twice.handle(message)
        Sweep(twice.engine).tick()
        for run in runs:
            if run.status == "running" and "paid" in twice.store.load(run.transaction_id).in_flight:
                action = (
                    run.cancel
                    if run.transaction_id.startswith("cancelled")
                    else lambda run=run: run.signal("paid", key="k")
                )
                action()
                twice.changes_nothing(run.transaction_id, action)

    assert set(twice.began.values()) == {1}
    for run in runs:
        twice.sound(run.transaction_id)
        what = run.transaction_id.partition("-")[0]
        assert run.status == {"none": "completed", "cancelled": "cancelled"}.get(what, "compensated")
    assert twice.store.visibility.unattended() == []
    assert twice.again >= len(twice.began) + len(runs)


def test_S30_what_a_step_answered_is_recorded_once_and_reused(redis_url: str) -> None:
    """A model would answer something else each time: only the answer that counted is ever seen."""
    hands = WorkerByHand(redis_url)
    run = hands.orchestrator.start(PARCELS, {})
    wait_until(lambda: hands.message() is not None, 5, "the message")
    attempt = hands.attempt(run.transaction_id, "pack", Direction.DO, 1)
    claim = hands.claim(attempt, PARCELS.content_hash, "first")
    hands.settle(came_to(claim, {"answer": "blue"}), claim)

    hands.settle(came_to(claim, {"answer": "green"}), claim)
    hands.engine.receive(came_to(claim, {"answer": "red"}))
    ship = hands.claim(attempt._replace(step="ship"), PARCELS.content_hash, "first")
    hands.settle(came_to(ship, fails=True), ship)
    undo = hands.claim(attempt._replace(direction=Direction.UNDO), PARCELS.content_hash, "first")

    assert (ship.context, undo.result) == ({"answer": "blue"}, {"answer": "blue"})
    assert run.describe().steps["pack"].result == {"answer": "blue"}
