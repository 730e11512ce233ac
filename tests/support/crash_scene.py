"""What "crash at every write" is played on: lanes with workers, the ways to play a saga, one crash with its checks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Self

import redis
from celery import Celery

from multiagents import init_app
from multiagents.event_bus import RedisEventBus
from multiagents.event_bus.entry import FIELD
from multiagents.events import Event
from multiagents.exceptions import WorkflowError, WorkflowNotFoundError
from multiagents.failpoints import WriteSite
from multiagents.names import Direction, child_id
from multiagents.orchestrator.recovery import GROUP
from multiagents.state_store.records import Delivery, Due, Snapshot
from multiagents.testing import WorkerProcess, wait_until
from multiagents.testing.faults import Fault, FaultPlan
from multiagents.testing.lm_stub import LMRequest, LMStub, Reply, fields, react_agent
from multiagents.workflow.decider import evolve, fold
from multiagents.workflow.definition import Definition
from multiagents.workflow.state import ActivityStatus, RunState, RunStatus
from tests.support import ROOT
from tests.support.apps import crash_sagas
from tests.support.due import unfinished
from tests.support.letters import abouts

APP = crash_sagas.__name__
#: How long anything may take to come right: some leases, and the start of a worker on a busy machine.
PATIENCE = 40.0
_numbers = count(1)


def question_of(identity: str) -> str:
    """What an agent of a run asks."""
    return f"<{identity}>"


class Model:
    """What agents' models say: calls of one tool and an answer; to a judge first what is no answer."""

    def __init__(self) -> None:
        self._judged: set[str] = set()

    def __call__(self, request: LMRequest) -> Reply | str:
        found = re.search(r"<[^<>\s]+-crash-[^<>\s]+>", request.text)
        assert found is not None, request.text
        question = found[0]
        if "verdict" in request.text:
            first = question not in self._judged
            self._judged.add(question)
            return "I do not know." if first else fields(verdict="So.")
        tool = "dare" if "crash-approved" in question else "note"
        calls = [] if "crash-afresh" in question else [(tool, {"word": question})]
        return react_agent(*calls, answer="So.")(request)


class Lane:
    """A database, two workers on it, and the fault that is to hit them."""

    def __init__(self, new_url: Callable[[], str], folder: Path, *, pool: str, mode: str, outbox: bool = False) -> None:
        self.pool = pool
        self.url = new_url()
        self.plan = FaultPlan(folder / "faults")
        ledger_url = new_url()
        broker = new_url() if outbox else self.url
        large = {"claim_check_store": new_url(), "claim_check_bytes": 2_000}
        history = {"history_limit": 3, "history_archive": str(folder / "archive")}
        self.env = {
            "CELERY_BROKER_URL": broker,
            "MULTIAGENTS_REDIS_URL": self.url,
            "MULTIAGENTS_ORCHESTRATION": mode,
            "LEDGER_URL": ledger_url,
            **{f"MULTIAGENTS_{name.upper()}": str(value) for name, value in {**large, **history}.items()},
            **self.plan.env,
        }
        self.redis = redis.Redis.from_url(self.url, decode_responses=True)
        self.apart = redis.Redis.from_url(large["claim_check_store"], decode_responses=True)
        self.ledger = redis.Redis.from_url(ledger_url, decode_responses=True)
        settings = {"redis_url": self.url, "orchestration": mode, "lease": crash_sagas.LEASE, **large, **history}
        self.orchestrator = init_app(Celery(f"crash-{pool}-{mode}", broker=broker, set_as_current=False), settings)
        self.store = self.orchestrator.store
        self.bus = RedisEventBus(self.url)
        self.model = LMStub().start()
        self.model.answer_with(Model())
        self.env["LM_BASE"] = self.model.openai_base
        self.workers = [
            WorkerProcess(APP, folder / f"worker{n}.log", pool=pool, concurrency=2, cwd=ROOT, env=self.env)
            for n in (1, 2)
        ]

    def __enter__(self) -> Self:
        try:
            self.mend()
            for worker in self.workers:
                worker.ready(PATIENCE)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill()
        self.bus.close()
        self.model.stop()
        self.redis.close()
        self.ledger.close()
        self.apart.close()

    def mend(self) -> None:
        """Start what was killed again, as whoever runs the workers would."""
        for worker in self.workers:
            if not worker.is_running:
                worker.kill()
                worker.start()

    def caller(self, *arguments: str, then: Callable[[], None] | None = None) -> None:
        """Do something in a process that may be killed; ``then`` is done once it says that it is ready."""
        command = [sys.executable, "-m", APP, *arguments]
        env = {**os.environ, **self.env}
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            if then is not None:
                process.stdout.readline()
                then()

    def start(self, definition: Definition, identity: str) -> None:
        self.orchestrator.start(definition, {"started": True}, transaction_id=identity)

    def await_step(self, identity: str, step: str, delivery: Delivery) -> None:
        def there() -> bool:
            found = self.store.load(identity).in_flight.get(step)
            return found is not None and found.delivery is delivery

        wait_until(there, PATIENCE, f"{step} of {identity} in flight as {delivery.name}")


# --- the sagas, and how each is played -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Play:
    """A saga, what is done to it from outside, and how it has to end."""

    definition: Definition
    end: RunStatus
    #: steps whose effects are there at the end
    live: frozenset[str]
    act: Callable[[Lane, str, Definition], None]
    #: step -> how its run, which may be started once only, has to end, and what of it is there then
    children: Mapping[str, tuple[Definition, RunStatus, frozenset[str]]] = field(default_factory=dict)
    #: how many requests and calls of tools its agents need
    requests: int = 0
    calls: int = 0


def _start(lane: Lane, identity: str, definition: Definition) -> None:
    lane.start(definition, identity)


def _started_by_a_caller_who_may_die(lane: Lane, identity: str, definition: Definition) -> None:
    lane.redis.hdel("ma:{0}:meta", "partitions")
    lane.caller("start", definition.name, identity)
    lane.start(definition, identity)  # who got no answer asks again


def _replaced_by_a_caller_who_may_die(lane: Lane, identity: str, definition: Definition) -> None:
    lane.start(definition, identity)
    lane.store.wait_for_end(identity, PATIENCE)
    lane.caller("replace", definition.name, identity)
    # Who got no answer asks again.
    run = lane.orchestrator.start(definition, {"started": True}, identity, on_conflict="replace_ended")
    assert lane.store.load(run.transaction_id).generation >= 2, "the first run was not replaced"


def _its_id_was_used_again_meanwhile(lane: Lane, identity: str, definition: Definition) -> None:
    """The workers still have the first run in hand, in some state or other, when the second has its id."""
    lane.start(definition, identity)
    first = lane.orchestrator.get(identity)
    with suppress(WorkflowError):  # it is over already
        first.terminate(reason="started by mistake")
    first.delete(reason="started by mistake")
    lane.start(definition, identity)
    assert lane.store.load(identity).generation == 2, "the first run has left nothing of its id"


def _forked_by_a_caller_who_may_die(lane: Lane, identity: str, definition: Definition) -> None:
    original = f"of-{identity}"
    lane.start(definition, original)
    lane.store.wait_for_end(original, PATIENCE)
    lane.caller("fork", original, identity)
    # Who got no answer asks again.
    lane.orchestrator.get(original).fork("again", transaction_id=identity)


def _beside_a_worker_that_starts(lane: Lane, identity: str, definition: Definition) -> None:
    lane.workers[1].kill()
    lane.mend()
    lane.start(definition, identity)


def _cancelled(lane: Lane, identity: str, definition: Definition) -> None:
    lane.caller("cancel", identity, then=lambda: lane.start(definition, identity))
    lane.orchestrator.get(identity).cancel()  # who got no answer asks again


def _family_cancelled(lane: Lane, identity: str, definition: Definition) -> None:
    lane.caller("cancel", identity, f"{identity}:pay", then=lambda: lane.start(definition, identity))
    lane.orchestrator.get(identity).cancel()  # who got no answer asks again


def _paused(lane: Lane, identity: str, definition: Definition) -> None:
    lane.caller("pause", identity, then=lambda: lane.start(definition, identity))
    # Who got no answer asks again.
    lane.orchestrator.get(identity).pause()
    lane.orchestrator.get(identity).resume()


def _stopped(lane: Lane, identity: str, definition: Definition) -> None:
    lane.caller("stop", identity, then=lambda: lane.start(definition, identity))
    # Who got no answer asks again.
    run = lane.orchestrator.get(identity)
    run.pause(timers="stop")
    run.resume()
    run.update_timer("nap", 0)


def _hurried(lane: Lane, identity: str, definition: Definition) -> None:
    lane.caller("hurry", identity, then=lambda: lane.start(definition, identity))
    with suppress(WorkflowError):  # who got no answer asks again, maybe when it is over
        lane.orchestrator.get(identity).update_timer("nap", 0)
    told = [event for event in lane.store.history(identity) if getattr(event, "status", "") == "timer_updated"]
    assert 1 <= len(told) <= 2, f"it was moved {len(told)} times"


def _signalled(lane: Lane, identity: str, definition: Definition) -> None:
    lane.caller("signal", identity, then=lambda: lane.start(definition, identity))
    # Who got no answer asks again, with the same key.
    lane.orchestrator.get(identity).signal("payment", {"amount": 5}, key="webhook-1")


def _tagged(lane: Lane, identity: str, definition: Definition) -> None:
    lane.caller("tag", identity, then=lambda: lane.start(definition, identity))
    lane.orchestrator.get(identity).set_attributes({"tagged": "yes"})  # who got no answer asks again
    assert identity in [run.transaction_id for run in lane.orchestrator.list(attributes={"tagged": "yes"})]


def _deleted(lane: Lane, identity: str, definition: Definition) -> None:
    lane.start(definition, identity)
    lane.store.wait_for_end(identity, PATIENCE)
    wait_until(lambda: _at_rest(lane, identity), PATIENCE, f"rest of {identity}")
    lane.caller("delete", identity)
    with suppress(WorkflowNotFoundError):  # who got no answer asks again
        lane.orchestrator.get(identity).delete(reason="asked for")
    tombstones = [each for each in lane.orchestrator.deleted(10_000) if each.transaction_id == identity]
    assert len(tombstones) == 1, f"there are {len(tombstones)} tombstones"


def _ticked(lane: Lane, identity: str, definition: Definition) -> None:
    lane.caller("tick", identity)
    run = lane.orchestrator.get(crash_sagas.tick_of(lane.orchestrator, identity))  # beat's next one
    lane.store.wait_for_end(run.transaction_id, PATIENCE)
    assert lane.orchestrator.list(attributes={"schedule": identity}).runs == [run]
    lane.start(definition, identity)


def _schedule_paused(lane: Lane, identity: str, definition: Definition) -> None:
    lane.caller("pause_schedule", identity)
    schedule = crash_sagas.schedule_of(lane.orchestrator, identity)
    schedule.pause(reason="a test")  # who got no answer asks again
    assert schedule.tick() == []
    lane.start(definition, identity)


def _answered(lane: Lane, identity: str, definition: Definition) -> None:
    lane.start(definition, identity)
    lane.await_step(identity, "ext", Delivery.EXTERNAL)
    lane.ledger.sadd(crash_sagas.live(identity), "ext")
    lane.bus.publish(crash_sagas.result_of(identity, "ext"))


def _answered_by_a_producer_who_may_die(lane: Lane, identity: str, definition: Definition) -> None:
    lane.start(definition, identity)
    lane.await_step(identity, "ext", Delivery.EXTERNAL)
    lane.ledger.sadd(crash_sagas.live(identity), "ext")
    lane.caller("publish", identity, "ext", "0")
    lane.bus.publish(crash_sagas.result_of(identity, "ext"))


def _answered_on_a_new_stream(lane: Lane, identity: str, definition: Definition) -> None:
    lane.redis.delete("ma:{0}:bus")
    _answered(lane, identity, definition)


def _answered_and_left_lying(lane: Lane, identity: str, definition: Definition) -> None:
    lane.start(definition, identity)
    lane.await_step(identity, "ext", Delivery.EXTERNAL)
    lane.ledger.sadd(crash_sagas.live(identity), "ext")
    event = crash_sagas.result_of(identity, "ext").model_dump_json()
    with lane.redis.pipeline(transaction=True) as pipe:
        # A reader that dies at once: the event lies with it, and nobody else is handed it.
        pipe.xadd("ma:{0}:bus", {FIELD: event})
        pipe.xreadgroup(GROUP, "ghost", {"ma:{0}:bus": ">"})
        pipe.execute()


def _beside_an_unreadable_entry(lane: Lane, identity: str, definition: Definition) -> None:
    entry = lane.redis.xadd("ma:{0}:bus", {FIELD: "no event"})
    lane.start(definition, identity)
    wait_until(lambda: any(entry in letter.entry_id for letter in lane.bus.dead_letters()), PATIENCE, "the dead letter")


def _beside_a_strangers_answer(lane: Lane, identity: str, definition: Definition) -> None:
    stranger = crash_sagas.result_of(f"nobody-{identity}", "ext")
    lane.bus.publish(stranger)
    lane.start(definition, identity)
    letters = lane.store.visibility.dead_letters
    wait_until(lambda: stranger.correlation_id in abouts(letters()), PATIENCE, "the dead letter")


def _parked(lane: Lane, identity: str, definition: Definition) -> None:
    lane.start(definition, identity)
    prefix = f"{identity}/pay/undo/"  # which attempt it is depends on whether one was lost
    wait_until(
        lambda: any(key.startswith(prefix) for key in abouts(lane.store.visibility.dead_letters())),
        PATIENCE,
        "the undo's letter",
    )


def _while_a_worker_shuts_down(lane: Lane, identity: str, definition: Definition) -> None:
    lane.start(definition, identity)
    first = lane.workers[0]
    first.ready(PATIENCE)
    # It runs two at a time: the third lies in its memory.
    wait_until(
        lambda: len(re.findall(rf"slow\[{re.escape(identity)}\S+ received", first.log)) >= 3,
        PATIENCE,
        "three messages at the first worker",
    )
    os.kill(first.pid, signal.SIGTERM)
    wait_until(lambda: not first.is_running, PATIENCE, "the end of the first worker")


def _asked(lane: Lane, identity: str, definition: Definition) -> None:
    given = {"started": True, "question": question_of(identity)}
    lane.orchestrator.start(definition, given, transaction_id=identity)


def _approved(lane: Lane, identity: str, definition: Definition) -> None:
    _asked(lane, identity, definition)
    run = lane.orchestrator.get(identity)

    def call() -> str | None:
        return next((wait.id for wait in run.describe().steps["ask"].waiting_for if wait.kind == "tool"), None)

    waits = wait_until(call, PATIENCE, f"the call of {identity} that waits for approval")
    lane.caller("approve", identity, waits or "")
    # Who got no answer asks again.
    told = run.approve(waits or "", actor="ann")
    assert told in ("received", "already_decided")
    decided = [event for event in run.history() if getattr(event, "status", "") == "call_decided"]
    # None, if the agent had found the decision by itself.
    assert len(decided) <= 1, f"it was decided upon {len(decided)} times"


def _begun_afresh(lane: Lane, identity: str, definition: Definition) -> None:
    _asked(lane, identity, definition)
    run = lane.orchestrator.get(identity)
    wait_until(lambda: run.status is RunStatus.PAUSED, PATIENCE, f"the park of {identity}")
    lane.caller("afresh", identity)
    with suppress(WorkflowError):  # who got no answer asks again, maybe when it goes on
        run.retry("ask", fresh=True)


def _forward(definition: Definition, act: Callable[[Lane, str, Definition], None] = _start) -> Play:
    return Play(definition, RunStatus.COMPLETED, frozenset(definition.steps), act)


def _back(definition: Definition, act: Callable[[Lane, str, Definition], None] = _start) -> Play:
    return Play(definition, RunStatus.COMPENSATED, frozenset(), act)


FORWARD = _forward(crash_sagas.FORWARD)
BACK = _back(crash_sagas.BACK)
CALLER = _forward(crash_sagas.FORWARD, _started_by_a_caller_who_may_die)
REPLACED = _forward(crash_sagas.FORWARD, _replaced_by_a_caller_who_may_die)
USED_AGAIN = _forward(crash_sagas.FORWARD, _its_id_was_used_again_meanwhile)
BACK_USED_AGAIN = _back(crash_sagas.BACK, _its_id_was_used_again_meanwhile)
FORKED = Play(crash_sagas.FORWARD, RunStatus.COMPLETED, frozenset({"again", "last"}), _forked_by_a_caller_who_may_die)
FOREIGN = _forward(crash_sagas.FOREIGN, _answered)
PRODUCER = _forward(crash_sagas.FOREIGN, _answered_by_a_producer_who_may_die)
NEW_STREAM = _forward(crash_sagas.FOREIGN, _answered_on_a_new_stream)
LEFT_LYING = _forward(crash_sagas.FOREIGN, _answered_and_left_lying)
SLOW = _back(crash_sagas.SLOW)
TAGGED = _back(crash_sagas.SLOW, _tagged)
DELETED = _forward(crash_sagas.FORWARD, _deleted)
TICKED = _forward(crash_sagas.FORWARD, _ticked)
SCHEDULE_PAUSED = _forward(crash_sagas.FORWARD, _schedule_paused)
CANCEL = Play(crash_sagas.CANCEL, RunStatus.CANCELLED, frozenset(), _cancelled)
MUTE = _forward(crash_sagas.MUTE)
MUTE_BACK = _back(crash_sagas.MUTE_BACK)
PAUSE = Play(crash_sagas.CANCEL, RunStatus.COMPLETED, frozenset({"reserve", "wait"}), _paused)
STOPPED = Play(crash_sagas.NAPPING, RunStatus.COMPLETED, frozenset({"first", "last"}), _stopped)
HURRIED = Play(crash_sagas.NAPPING, RunStatus.COMPLETED, frozenset({"first", "last"}), _hurried)
SIGNAL = Play(crash_sagas.WAITING, RunStatus.COMPLETED, frozenset({"first", "last"}), _signalled)
LOCKED = Play(crash_sagas.LOCKED, RunStatus.COMPLETED, frozenset({"first", "last"}), _start)
LIMITED = _back(crash_sagas.LIMITED)
KILLED = _forward(crash_sagas.KILLED)
STARTED = _forward(crash_sagas.STARTED)
PROBED = _forward(crash_sagas.PROBED)
NEAR = _forward(crash_sagas.NEAR)
ROLLED_BACK = Play(
    crash_sagas.ROLLED_BACK,
    RunStatus.COMPLETED,
    frozenset({"reserve", "pay#2", "left#2", "right#2", "last#2"}),
    _start,
)
PROBED_BACK = _back(crash_sagas.PROBED_BACK)
BRIEF = _forward(crash_sagas.BRIEF)
LARGE = _back(crash_sagas.LARGE)
BRIEF_LARGE = _forward(crash_sagas.BRIEF_LARGE)
PARKED = Play(crash_sagas.PARKED, RunStatus.COMPENSATION_FAILED, frozenset({"pay"}), _parked)
STRANGER = _forward(crash_sagas.FORWARD, _beside_a_strangers_answer)
UNREADABLE = _forward(crash_sagas.FORWARD, _beside_an_unreadable_entry)
STARTING = _forward(crash_sagas.FORWARD, _beside_a_worker_that_starts)
BUSY = _forward(crash_sagas.BUSY)
ASKED = replace(_forward(crash_sagas.ASKED, _asked), requests=5, calls=1)
ASKED_BACK = replace(_back(crash_sagas.ASKED_BACK, _asked), requests=5, calls=1)
SPENT = replace(_forward(crash_sagas.SPENT, _asked), requests=3, calls=1)
SPENT_BACK = replace(_back(crash_sagas.SPENT_BACK, _asked), requests=3, calls=1)
APPROVED = replace(_forward(crash_sagas.APPROVED, _approved), requests=3, calls=1)
AFRESH = replace(_forward(crash_sagas.AFRESH, _begun_afresh), requests=2)
SHUTDOWN = _forward(crash_sagas.BUSY, _while_a_worker_shuts_down)

_NOTHING: frozenset[str] = frozenset()
_UNDONE = (crash_sagas.PAY, RunStatus.COMPENSATED, _NOTHING)
FAMILY = replace(_back(crash_sagas.FAMILY), children={"pay": _UNDONE})
FAMILY_USED_AGAIN = replace(FAMILY, act=_its_id_was_used_again_meanwhile)
FAMILY_REFUSED = replace(
    _back(crash_sagas.FAMILY_REFUSED),
    children={"pay": (crash_sagas.FAMILY_REFUSED.steps["pay"].workflow, RunStatus.COMPENSATED, _NOTHING)},
)
FAMILY_CANCEL = Play(
    crash_sagas.FAMILY_CANCEL,
    RunStatus.CANCELLED,
    _NOTHING,
    _family_cancelled,
    {"pay": (crash_sagas.LINGERING, RunStatus.CANCELLED, _NOTHING)},
)
MAP = replace(_forward(crash_sagas.MAP), live=frozenset({"first", "last", *(f"each[{number}]" for number in range(5))}))
MAP_BACK = _back(crash_sagas.MAP_BACK)
MAP_FAMILY = replace(_back(crash_sagas.MAP_FAMILY), children={f"pay[{number}]": _UNDONE for number in range(3)})


# --- one crash -------------------------------------------------------------------------------------------------------


def crash(lane: Lane, site: WriteSite, fault: Fault, play: Play, nth: int) -> None:
    """Let a fault happen at a write of a saga, and see that the saga comes out as if it had not."""
    identity = f"{site}-{fault}-{play.definition.name}-{nth}-{next(_numbers)}"
    lane.mend()
    lane.plan.arm(site, fault, nth)
    try:
        play.act(lane, identity, play.definition)
        lane.plan.wait_until_fired(PATIENCE)
        lane.mend()
        if play in (BRIEF, BRIEF_LARGE, DELETED):
            wait_until(lambda: _is_forgotten(lane, identity), PATIENCE, f"the end of the keys of {identity}")
            return
        lane.store.wait_for_end(identity, PATIENCE)
        snapshot, history = wait_until(lambda: _at_rest(lane, identity), PATIENCE, f"rest of {identity}")
        _check(lane, play, snapshot, history)
        _check_calls(lane, play, site, identity)
        for step, (workflow, end, live) in play.children.items():
            child = child_id(identity, step, snapshot.generation)
            found = wait_until(partial(_at_rest, lane, child), PATIENCE, f"rest of {child}")
            assert found[0].generation == 1, f"{child} was started {found[0].generation} times"
            _check(lane, Play(workflow, end, live, _start), *found)
    except (AssertionError, TimeoutError, WorkflowNotFoundError) as error:
        raise AssertionError(f"{fault} at {site} ({identity}): {error}\n{_told(lane, identity)}") from error
    finally:
        lane.plan.disarm()


def _at_rest(lane: Lane, identity: str) -> tuple[Snapshot, list[Event]] | None:
    """The run and its history, once it is over and nothing but its expiry is to come."""
    snapshot = lane.store.load(identity)
    history = lane.store.history(identity)
    if not snapshot.state.status.is_end or snapshot.in_flight or _left_over(lane, identity):
        return None
    return (snapshot, history) if lane.store.load(identity).version == snapshot.version else None


def _left_over(lane: Lane, identity: str) -> list[str]:
    keys = ["ma:{0}:due", *lane.redis.keys("ma:{0}:sent:*")]
    members = [member for key in keys for member in lane.redis.zrange(key, 0, -1)]
    return [member for member in unfinished(members) if Due.decode(member).transaction_id == identity]


def _is_forgotten(lane: Lane, identity: str) -> bool:
    keys = lane.redis.keys(f"ma:{{0}}:*:{identity}")
    indexed = [
        key
        for key in [*lane.redis.keys("ma:{0}:index:*"), *lane.redis.keys("ma:{0}:attribute:*")]
        if lane.redis.zscore(key, identity) is not None
    ]
    due = [member for member in lane.redis.zrange("ma:{0}:due", 0, -1) if identity in member]
    apart = lane.apart.keys(f"ma:{{0}}:*:{identity}")
    return not (keys or indexed or due or apart)


def _check(lane: Lane, play: Play, snapshot: Snapshot, history: list[Event]) -> None:
    state = snapshot.state
    assert state.status is play.end, f"it ended as {state.status}, expected {play.end}"
    assert (
        fold(play.definition, state.transaction_id, history) == state
    ), "its history tells another story than its state"
    assert lane.store.visibility.unattended() == []
    for name, value in lane.orchestrator.get(state.transaction_id).describe().attributes.items():
        found = lane.orchestrator.list(attributes={name: value}, limit=1_000)
        assert state.transaction_id in [run.transaction_id for run in found], f"it is not found by its {name}"
    assert lane.ledger.smembers(crash_sagas.live(state.transaction_id)) == set(play.live), "its effects"
    for name, step in state.steps.items():
        counted = _counted(play.definition, state.transaction_id, history, name)
        for direction in Direction:
            succeeded = step.activity(direction).status is ActivityStatus.SUCCEEDED
            assert counted[direction] == int(succeeded), f"{name}: {direction} counted {counted[direction]} times"
    wait_until(lambda: _is_read(lane), PATIENCE, "the acknowledgement of what was on the bus")


def _check_calls(lane: Lane, play: Play, site: WriteSite, identity: str) -> None:
    """What agents were answered is not asked for again: at most the one call is whose answer was not written down.

    What has been spent is settled before that; what is said is written down at any time.
    """
    question = question_of(identity)
    asked = [request.text for request in lane.model.requests if question in request.text]
    called = lane.ledger.hgetall(crash_sagas.called(question))
    again = len(asked) - play.requests + sum(map(int, called.values())) - play.calls
    most = int(any(name in site for name in ("journal_finish", "budget_settle", "stream_append")))
    assert 0 <= again <= most, f"its agents made {again} calls too many"
    assert len(called) == play.calls, f"its tools were called under {len(called)} keys"
    assert not any("Error" in text for text in asked), "a model was told of an error that is not its own"


def _is_read(lane: Lane) -> bool:
    pending: int = lane.redis.xpending("ma:{0}:bus", GROUP)["pending"]
    return pending == 0


def _counted(definition: Definition, identity: str, history: list[Event], step: str) -> dict[Direction, int]:
    """How often the history makes a step succeed."""
    counted = dict.fromkeys(Direction, 0)
    state = RunState(identity, definition.name)
    for event in history:
        after = evolve(definition, state, event)
        for direction in Direction:
            was, now = (each.step(step).activity(direction).status for each in (state, after))
            counted[direction] += was is not now and now is ActivityStatus.SUCCEEDED
        state = after
    return counted


def _of(event: Event) -> str:
    return (
        f"{event.at:%M:%S.%f} {event.type} {event.correlation_id or ''} {getattr(event, 'status', '') or ''} "
        f"{getattr(getattr(event, 'error', None), 'message', '')}"
    )


def _told(lane: Lane, identity: str) -> str:
    """What there is to know of a run that did not come out right."""
    try:
        snapshot = lane.store.load(identity)
    except WorkflowNotFoundError:
        return "there is no such run"
    lines = [f"status {snapshot.state.status}, version {snapshot.version}, left over {_left_over(lane, identity)}"]
    lines += [f"in flight: {entry.record}" for entry in snapshot.in_flight.values()]
    lines += [_of(event) for event in lane.store.history(identity)]
    lines.append(f"effects: {lane.ledger.smembers(crash_sagas.live(identity))}")
    lines += [f"--- {worker.node}\n" + "\n".join(worker.log.splitlines()[-25:]) for worker in lane.workers]
    return "\n".join([*lines, *_told_of_children(lane, snapshot)])


def _told_of_children(lane: Lane, parent: Snapshot) -> list[str]:
    lines = []
    for step in parent.definition.steps.values():
        if step.workflow is not None:
            child = child_id(parent.state.transaction_id, step.name, parent.generation)
            lines += [f"child {child}: {_of(event)}" for event in lane.store.history(child)]
    return lines


#: Sagas, and at which of their writes at a site the fault happens.
Plays = list[tuple[Play, tuple[int, ...]]]


class Lanes:
    """A lane for each fault, which go side by side: most of a recovery is waiting."""

    def __init__(self, new_url: Callable[[], str], folder: Path, faults: list[Fault], **options: object) -> None:
        self._threads = ThreadPoolExecutor(len(faults))
        self._stack = ExitStack()
        self.lanes = {fault: Lane(new_url, folder / fault, **options) for fault in faults}

    def __enter__(self) -> Self:
        list(self._threads.map(self._stack.enter_context, self.lanes.values()))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._threads.shutdown()

    def crash(self, site: WriteSite, plays: Plays) -> None:
        def go(fault: Fault) -> list[str]:
            wrong = []
            for play, nths in plays:
                for nth in nths:
                    try:
                        crash(self.lanes[fault], site, fault, play, nth)
                    except AssertionError as error:
                        wrong.append(str(error))
            return wrong

        wrong = [each for found in self._threads.map(go, self.lanes) for each in found]
        assert not wrong, "\n\n".join(wrong)
