"""With `init_app` on, Celery goes on as before, and what it can do holds for steps, too."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import VERSION, chain, chord, group, signals

from multiagents import WorkflowFailedError
from multiagents.orchestrator.dispatch.kombu import SEPARATOR
from multiagents.testing import server_kind, wait_until
from tests.support.apps import mixed
from tests.support.mixed_deployment import MixedDeployment, receiving

QUEUES = ("celery", "orders", "urgent")
on_redis = pytest.mark.skipif(server_kind() == "rabbitmq", reason="looks into the broker's Redis lists")


def broker_for(request: pytest.FixtureRequest, store: str) -> str:
    if server_kind() == "rabbitmq":
        vhost: str = request.getfixturevalue("rabbitmq").new_vhost()
        return vhost
    return store


@pytest.fixture(scope="module")
def shared(
    request: pytest.FixtureRequest, new_redis_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MixedDeployment]:
    store = new_redis_url()
    with MixedDeployment(tmp_path_factory.mktemp("plain"), broker_for(request, store), store) as made:
        made.start_worker(queues=QUEUES)
        yield made


@pytest.fixture
def plain(shared: MixedDeployment) -> MixedDeployment:
    """The warm deployment, with nothing noted yet."""
    shared.forget_seen()
    return shared


@pytest.fixture
def own(
    request: pytest.FixtureRequest, new_redis_url: Callable[[], str], tmp_path: Path
) -> Iterator[Callable[..., MixedDeployment]]:
    """A function that makes a deployment of the test's own."""
    made: list[MixedDeployment] = []

    def make(**settings: Any) -> MixedDeployment:
        store = new_redis_url()
        made.append(MixedDeployment(tmp_path, broker_for(request, store), store, **settings))
        return made[-1]

    yield make
    for deployment in made:
        deployment.close()


# --- ordinary tasks -------------------------------------------------------------------------------------------------


def test_ordinary_tasks_answer_as_before(plain: MixedDeployment) -> None:
    tasks = plain.app.tasks

    assert tasks["plain.add"].delay(2, 3).get(timeout=10) == 5
    with pytest.raises(ValueError, match="no"):
        tasks["plain.refuse"].delay().get(timeout=10)


def test_chains_groups_and_chords_answer_as_before(plain: MixedDeployment) -> None:
    add, total = plain.app.tasks["plain.add"], plain.app.tasks["plain.total"]

    assert chain(add.s(1, 2), add.s(10), add.s(100)).apply_async().get(timeout=10) == 113
    assert group(add.s(n, n) for n in range(4)).apply_async().get(timeout=10) == [0, 2, 4, 6]
    assert chord([add.s(n, n) for n in range(10)], total.s()).apply_async().get(timeout=10) == 90


def test_ordinary_tasks_and_steps_share_a_worker(plain: MixedDeployment) -> None:
    add, total = plain.app.tasks["plain.add"], plain.app.tasks["plain.total"]

    runs = [plain.orchestrator.start(mixed.three_steps, {"item": n}) for n in range(20)]
    joined = chord([add.s(n, n) for n in range(20)], total.s()).apply_async()

    assert joined.get(timeout=15) == 380
    assert [run.result(timeout=15)["taken"] for run in runs] == list(range(20))


def test_a_worker_called_outside_a_run_is_a_task_like_any_other(plain: MixedDeployment) -> None:
    take = plain.app.tasks["plain.take"]

    answer = take.delay({"item": "pen"})

    assert answer.get(timeout=10) == {"taken": "pen"}
    assert plain.seen("take")[0]["id"] == answer.id
    assert plain.orchestrator.count() == plain.orchestrator.count(status="completed")


def test_beat_fires_its_schedule(plain: MixedDeployment) -> None:
    beat = plain.run_celery("beat", "-s", str(plain.folder / "schedule"), "--pidfile=", "-l", "INFO")
    try:
        assert len(plain.seen("tick", count=2)) >= 2
    finally:
        beat.kill()


@on_redis
@pytest.mark.parametrize(("task", "kept"), [("early", 0), ("late", 1), ("held", 0), ("held_late", 1)])
def test_messages_outside_runs_are_acknowledged_as_before(plain: MixedDeployment, task: str, kept: int) -> None:
    wait_until(lambda: plain.redis.hlen("unacked") == 0, what="no message in work")

    gate = f"ack-{task}"
    answer = plain.app.tasks[f"plain.{task}"].delay({"gate": gate} if task.startswith("held") else gate)
    plain.wait_for_gate(gate)

    # An early one is acknowledged when it begins; a late one is kept until it is over, for another worker.
    wait_until(lambda: plain.redis.hlen("unacked") == kept, what=f"{kept} messages kept")
    plain.open_gate(gate)
    assert answer.get(timeout=10) == ({"held": True} if task.startswith("held") else gate)
    wait_until(lambda: plain.redis.hlen("unacked") == 0, what="the acknowledgement")


@on_redis
def test_the_engines_messages_skip_the_emulation_of_acknowledgements(plain: MixedDeployment) -> None:
    wait_until(lambda: plain.redis.hlen("unacked") == 0, what="no message in work")

    run = plain.orchestrator.start(mixed.held_up, {"gate": "lean"})
    plain.wait_for_gate("lean")

    assert plain.redis.hlen("unacked") == 0
    plain.open_gate("lean")
    assert run.result(timeout=10)["held"] is True


@pytest.mark.parametrize("kind", ["ordinary tasks", "steps"])
def test_rate_limits_hold(plain: MixedDeployment, kind: str) -> None:
    if kind == "steps":
        runs = [plain.orchestrator.start(mixed.rationed) for _ in range(4)]
        times = [entry["at"] for entry in plain.seen("slow", count=4)]
        assert [run.result(timeout=10) for run in runs] == [{}] * 4
    else:
        for _ in range(4):
            plain.app.tasks["plain.limited"].delay()
        times = [entry["at"] for entry in plain.seen("limited", count=4)]

    # Five a second: the fourth begins 0.6 s after the first, less what the clock of the bucket allows; before 5.7
    # Celery lets the second begin with it.
    assert max(times) - min(times) > (0.45 if VERSION >= (5, 7) else 0.3)


# --- remote control -------------------------------------------------------------------------------------------------


def test_inspect_shows_workers_and_steps(plain: MixedDeployment) -> None:
    ask = plain.inspect()

    assert list((ask.ping() or {}).values()) == [{"ok": "pong"}]
    ((_, registered),) = (ask.registered() or {}).items()
    assert {"plain.add", "plain.take", "plain.held", "multiagents.orchestrate"} <= {
        name.partition(" ")[0] for name in registered
    }
    ((_, queues),) = (ask.active_queues() or {}).items()
    assert {queue["name"] for queue in queues} == set(QUEUES)


def test_inspect_shows_what_runs_and_what_waits_without_payloads(plain: MixedDeployment) -> None:
    runs = [plain.orchestrator.start(mixed.held_up, {"gate": "look", "secret": "4111-1111"}) for _ in range(4)]
    wait_until(lambda: len(plain.seen("held")) == 2, what="two steps that run")
    ask = plain.inspect()
    ((_, active),) = (ask.active() or {}).items()
    ((_, reserved),) = (ask.reserved() or {}).items()
    plain.open_gate("look", 4)

    ids = {f"{run.transaction_id}/held/do/1" for run in runs}
    assert len(active) == 2
    assert {task["id"] for task in [*active, *reserved]} == ids
    assert "4111" not in json.dumps([active, reserved])
    assert all(run.result(timeout=10)["held"] for run in runs)


def test_a_revoked_ordinary_task_does_not_run(plain: MixedDeployment) -> None:
    revoked = plain.app.tasks["plain.add"].s(1, 1).set(countdown=1).apply_async()
    plain.app.control.revoke(revoked.id)

    wait_until(lambda: revoked.state == "REVOKED", what="the revocation")


def test_a_revoked_step_is_a_failed_attempt(plain: MixedDeployment) -> None:
    # Both processes of the worker are busy, so the third run's step waits in its memory.
    busy = [plain.orchestrator.start(mixed.held_up, {"gate": "busy"}) for _ in range(2)]
    wait_until(lambda: len(plain.seen("held")) == 2, what="two steps that run")
    run = plain.orchestrator.start(mixed.held_up, {"gate": "busy"})
    plain.app.control.revoke(f"{run.transaction_id}/held/do/1", reply=True, destination=plain.nodes)
    plain.open_gate("busy", 3)

    assert run.result(timeout=10)["held"] is True
    errors = [(event.attempt, event.kind, event.error.type) for event in run.history() if event.type == "error"]
    assert errors == [(1, "failed", "TaskRevokedError")]
    assert run.describe().steps["held"].attempts == 2
    assert len(plain.seen("held")) == 3
    assert all(other.result(timeout=10)["held"] for other in busy)


@pytest.mark.parametrize("way", ["replaced", "deleted"])
def test_S32_a_step_that_was_revoked_is_not_so_in_the_next_run_with_its_id(plain: MixedDeployment, way: str) -> None:
    def start() -> Any:
        # Its policy has two attempts, so that the revoked one is not the end of it.
        return plain.orchestrator.start(mixed.held_up, {"gate": gate}, "again", on_conflict="replace_ended")

    gate = f"revoked-{way}"
    run = start()
    plain.wait_for_gate(gate)
    plain.app.control.terminate("again/held/do/1", reply=True, destination=plain.nodes)
    plain.open_gate(gate, 9)
    assert (run.result(timeout=10)["held"], run.describe().steps["held"].attempts) == (True, 2)
    if way == "deleted":
        run.delete(reason="a mistake")

    run = start()

    assert (run.result(timeout=10)["held"], run.describe().steps["held"].attempts) == (True, 1)
    plain.app.control.revoke("again/take/do/1", reply=True, destination=plain.nodes)
    assert run.status == "completed"


def test_a_step_that_is_revoked_twice_in_one_run_ends_in_words(plain: MixedDeployment) -> None:
    busy = [plain.orchestrator.start(mixed.held_up, {"gate": "twice"}) for _ in range(2)]
    wait_until(lambda: len(plain.seen("held")) == 2, what="two steps that run")
    run = plain.orchestrator.start(mixed.held_up, {"gate": "twice"})
    for attempt in (1, 2):
        plain.app.control.revoke(f"{run.transaction_id}/held/do/{attempt}", reply=True, destination=plain.nodes)
    plain.open_gate("twice", 2)

    with pytest.raises(WorkflowFailedError, match="its Celery task was revoked before it ran by remote control"):
        run.result(timeout=10)
    assert all(other.result(timeout=10)["held"] for other in busy)


def test_a_terminated_step_is_an_attempt_in_doubt(plain: MixedDeployment) -> None:
    run = plain.orchestrator.start(mixed.held_up, {"gate": "stop"})
    plain.wait_for_gate("stop")

    plain.app.control.terminate(f"{run.transaction_id}/held/do/1", reply=True, destination=plain.nodes)
    wait_until(lambda: len(plain.seen("held")) == 2, what="the second attempt")
    plain.open_gate("stop", 2)

    assert run.result(timeout=10)["held"] is True
    errors = [(event.attempt, event.kind, event.error.type) for event in run.history() if event.type == "error"]
    assert errors == [(1, "timeout", "TaskRevokedError")]


# --- routes, priorities, signals ------------------------------------------------------------------------------------


def test_existing_tasks_are_steps_and_undos_as_they_are(plain: MixedDeployment) -> None:
    done = plain.orchestrator.start(mixed.of_tasks, {"total": 7})
    undone = plain.orchestrator.start(mixed.of_tasks, {"total": 5, "breaks": True})

    context = done.result(timeout=20)
    with pytest.raises(WorkflowFailedError):
        undone.result(timeout=20)

    assert (context["charge_id"], context["again"]) == ("7 EUR", 14)
    seen = undone.describe()
    assert (seen.status, seen.steps["charge"].compensation.status) == ("compensated", "compensated")
    assert plain.app.tasks["plain.charge"].delay(3, currency="USD").get(timeout=10) == {"charge_id": "3 USD"}


def test_a_retry_of_an_existing_task_is_a_failed_attempt_and_comes_as_often_as_the_task_says(
    plain: MixedDeployment,
) -> None:
    run = plain.orchestrator.start(mixed.of_tasks, {"total": -1})

    with pytest.raises(WorkflowFailedError, match="less than nothing"):
        run.result(timeout=20)

    # Its max_retries is Celery's default of 3; the step's own policy has 2 attempts.
    assert run.describe().steps["charge"].attempts == 4


def test_steps_go_where_routes_workers_and_definitions_send_them(plain: MixedDeployment) -> None:
    plain.orchestrator.start(mixed.sent_about).result(timeout=10)

    went = {
        task: [(entry["queue"], entry["priority"]) for entry in plain.seen(task)]
        for task in ("routed", "of_orders", "take")
    }
    assert went["routed"] == [("urgent", 6)]
    assert [queue for queue, _ in went["of_orders"]] == ["orders"]
    assert went["take"][0] == ("urgent", 9)
    assert went["take"][1][0] == "celery"


def test_a_steps_time_limit_is_celerys_hard_limit_ten_seconds_later(plain: MixedDeployment) -> None:
    plain.orchestrator.start(mixed.sent_about).result(timeout=10)

    assert plain.seen("take")[0]["time_limit"][0] == 30


@pytest.mark.full
@on_redis
def test_a_step_that_no_signal_stops_costs_its_process_at_the_hard_limit(own: Callable[..., MixedDeployment]) -> None:
    deployment = own()
    deployment.start_worker(concurrency=1)

    run = deployment.orchestrator.start(mixed.deaf_step)
    after = deployment.orchestrator.start(mixed.one_step)

    # The run moves on at its limit; the slot comes back ten seconds later.
    with pytest.raises(WorkflowFailedError):
        run.result(timeout=10)
    assert run.describe().steps["deaf"].status == "unknown"
    assert after.result(timeout=30)["taken"] == "nothing"
    assert "over its hard limit of 11 s" in deployment.processes[0].log


def test_steps_know_their_run_as_root(plain: MixedDeployment) -> None:
    run = plain.orchestrator.start(mixed.three_steps)
    run.result(timeout=10)

    assert [entry["id"] for entry in plain.seen("take")] == [
        f"{run.transaction_id}/{step}/do/1" for step in ("one", "two", "three")
    ]
    assert {(entry["root"], entry["parent"]) for entry in plain.seen("take")} == {(run.transaction_id,) * 2}


def test_receivers_of_before_task_publish_see_the_first_step_and_may_add_headers(plain: MixedDeployment) -> None:
    published = []

    def trace(sender: str, headers: dict[str, Any], routing_key: str, **_rest: Any) -> None:
        published.append((sender, headers["id"], routing_key))
        headers["x_trace"] = "trace-1"

    with receiving(signals.before_task_publish, trace):
        run = plain.orchestrator.start(mixed.one_step)
    run.result(timeout=10)

    assert published == [("plain.take", f"{run.transaction_id}/take/do/1", "celery")]
    assert [entry["trace"] for entry in plain.seen("take")] == ["trace-1"]


# --- the end of a worker --------------------------------------------------------------------------------------------


def _busy(deployment: MixedDeployment, workers: int = 1) -> list[Any]:
    """Runs of which one is in work, three more wait in the worker's memory, and two in the queue."""
    runs = [deployment.orchestrator.start(mixed.held_up, {"gate": "end"}) for _ in range(6)]
    wait_until(lambda: len(deployment.seen("held")) == workers, what="the steps that run")
    return runs


def test_a_warm_shutdown_gives_prefetched_steps_back(own: Callable[..., MixedDeployment]) -> None:
    # With a lease this long, nothing but the worker itself can bring its messages back in time.
    deployment = own(lease=30.0, sweep_interval=1.0)
    worker = deployment.start_worker(concurrency=1)
    runs = _busy(deployment)
    wait_until(lambda: deployment.length() <= 2, what="the prefetch")

    os.kill(worker.pid, signal.SIGTERM)
    worker.wait_for_log("Warm shutdown")
    deployment.open_gate("end")
    wait_until(lambda: not worker.is_running, 20, "the end of the worker")
    assert worker.returncode == 0

    assert runs[0].describe().steps["held"].status == "succeeded"
    assert len(deployment.seen("held")) == 1
    assert deployment.length() == 6  # five that had not begun, and the second step of the first
    deployment.open_gate("end", 5)
    deployment.start_worker()
    assert [run.result(timeout=10)["held"] for run in runs] == [True] * 6
    assert [run.describe().steps["held"].attempts for run in runs] == [1] * 6
    assert len(deployment.seen("held")) == 6
    assert deployment.nothing_is_left()


@pytest.mark.parametrize(
    "seconds", [pytest.param(0, id="cold"), pytest.param(1, id="soft, then cold", marks=pytest.mark.full)]
)
def test_a_cold_shutdown_loses_nothing(own: Callable[..., MixedDeployment], seconds: int) -> None:
    deployment = own(conf={"worker_soft_shutdown_timeout": seconds})
    worker = deployment.start_worker(concurrency=1)
    runs = _busy(deployment)

    worker.quit()
    deployment.open_gate("end", 7)
    deployment.start_worker()

    assert [run.result(timeout=15)["held"] for run in runs] == [True] * 6
    # The one that was broken off counts as lost, and uses up none of its policy's attempts.
    errors = [[event.kind for event in run.history() if event.type == "error"] for run in runs]
    assert sorted(errors) == [[], [], [], [], [], ["lost"]]
    assert deployment.nothing_is_left()


def test_a_soft_shutdown_lets_a_step_finish(own: Callable[..., MixedDeployment]) -> None:
    deployment = own(conf={"worker_soft_shutdown_timeout": 3}, lease=30.0, sweep_interval=1.0)
    worker = deployment.start_worker(concurrency=1)
    runs = _busy(deployment)

    os.kill(worker.pid, signal.SIGQUIT)
    worker.wait_for_log("[Ss]oft [Ss]hutdown")
    deployment.open_gate("end")
    wait_until(lambda: not worker.is_running, 20, "the end of the worker")

    assert runs[0].describe().steps["held"].attempts == 1
    deployment.open_gate("end", 5)
    deployment.start_worker()
    assert [run.result(timeout=10)["held"] for run in runs] == [True] * 6
    assert [run.describe().steps["held"].attempts for run in runs] == [1] * 6


# --- a prefix for all of the broker's keys --------------------------------------------------------------------------


@on_redis
def test_a_global_key_prefix_holds_for_steps_and_so_do_receivers_in_the_worker(
    own: Callable[..., MixedDeployment],
) -> None:
    deployment = own(conf={"broker_transport_options": {"global_keyprefix": "shop:"}})
    run = deployment.orchestrator.start(mixed.taken_back)
    assert deployment.redis.llen(f"shop:celery{SEPARATOR}3") == 1

    deployment.start_worker(env={mixed.TRACE: "trace-2"})

    wait_until(lambda: run.status == "compensated", what="the end of the run")
    assert deployment.app.tasks["plain.add"].delay(1, 2).get(timeout=10) == 3
    assert [entry["trace"] for entry in deployment.seen("take")] == [None, "trace-2", "trace-2"]
    assert [entry["trace"] for entry in deployment.seen("put_back")] == ["trace-2"] * 3
    assert not [key for key in deployment.redis.keys("*") if key == "celery" or key.startswith("unacked")]
    assert deployment.nothing_is_left()
