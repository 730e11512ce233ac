"""Rule S33: what nobody takes ends in a failure that names it, or waits in words; nothing is done again and again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from multiagents import WorkflowBuilder
from multiagents.orchestrator.dispatch.worker_directory import MISSED_FOR
from multiagents.testing import WorkerProcess, server_kind, wait_until
from multiagents.workflow.definition import Definition
from tests.support.apps import scripted
from tests.support.scenario import Deployment

#: Seconds. A step that nobody takes is given up soon.
LIMIT = 3.0
SETTINGS = {"lease": 1.0, "sweep_interval": 0.2, "schedule_to_start": LIMIT}

#: The app of the rules with Celery tasks that know nothing of workflows; each notes when it is called.
TASKS_APP = """
from tests.support.apps.scripted import app, _here

@app.task(name="shop.mail")
def mail(order_id):
    with _here() as client:
        client.rpush("mailed", order_id)
    return {"mailed": order_id}
"""
#: An app of somebody who does not know of the library, on the same broker.
PLAIN_APP = """
import os
from celery import Celery
app = Celery("plain", broker=os.environ["CELERY_BROKER_URL"])
"""

#: A worker process whose app has forgotten to import its workers.
BARE_APP = """
import os
from celery import Celery
from multiagents import init_app
app = Celery("bare", broker=os.environ["CELERY_BROKER_URL"])
init_app(app)
"""


class Scene(Deployment):
    """A deployment on one database whose workers a test starts, with a folder of apps for them."""

    def app_of(self, name: str, code: str) -> None:
        (self.folder / f"{name}.py").write_text(code)

    def worker(self, app: str = "tests.support.apps.scripted", **options: Any) -> WorkerProcess:
        return self.start_worker(app=app, cwd=self.folder, **options).ready()

    def end(self, run: Any, timeout: float = 30.0) -> Any:
        self.orchestrator.store.wait_for_end(run.transaction_id, timeout)
        return run.describe()

    def mailed(self) -> list[str]:
        return self.redis.lrange("mailed", 0, -1)


@pytest.fixture
def scene(new_redis_url: Callable[[], str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    broker = request.getfixturevalue("rabbitmq").new_vhost() if server_kind() == "rabbitmq" else ""
    made = Scene(new_redis_url(), tmp_path, broker=broker, **SETTINGS)
    yield made
    for started in made.workers:
        started.kill()
        print(started.log)
    made.orchestrator.store.close()
    made.redis.close()
    made.app.close()


def flow(worker: Any, **options: Any) -> Definition:
    return WorkflowBuilder("unclaimed").add_step("a", worker, **options).build(register=False)


# --- Celery tasks in the place of workers ----------------------------------------------------------------------------


def test_S33_a_celery_task_counts_as_a_worker_by_itself_and_by_its_name_and_is_called_once(scene: Scene) -> None:
    scene.app_of("app_tasks", TASKS_APP + "from multiagents import celery_task\ncelery_task(mail)\n")
    scene.worker("app_tasks")

    @scene.app.task(name="shop.mail")
    def mail(order_id: str) -> None:
        pytest.fail("it is called here")

    itself = scene.orchestrator.start(flow(mail), {"order_id": "itself"})
    named = scene.orchestrator.start(flow("shop.mail"), {"order_id": "named"})
    ends = [scene.end(run) for run in (itself, named)]

    assert [(end.status, end.context["mailed"]) for end in ends] == [("completed", "itself"), ("completed", "named")]
    assert sorted(scene.mailed()) == ["itself", "named"]


def test_S33_a_celery_task_that_is_named_as_an_undo_is_called_once(scene: Scene) -> None:
    scene.app_of("app_tasks", TASKS_APP)
    scene.worker("app_tasks")
    steps = WorkflowBuilder("undone").add_step("a", "play", compensation="shop.mail")
    steps = steps.add_step("b", "play", compensation="shop.mail").add_step("c", "play")

    end = scene.end(
        scene.orchestrator.start(steps.build(register=False), {"order_id": "o", "script": {"c": ["terminal"]}})
    )

    assert end.status == "compensated"
    assert scene.mailed() == ["o", "o"]  # of each step, by a message and by a link


# --- who takes messages and claims nothing ---------------------------------------------------------------------------


def test_S33_a_queue_that_only_a_plain_worker_consumes_fails_the_step_which_names_it(scene: Scene) -> None:
    scene.app_of("app_plain", PLAIN_APP)
    engine = scene.worker()
    plain = scene.worker("app_plain", queues=["plain"])

    end = scene.end(scene.orchestrator.start(flow("plya", queue="plain")))

    assert (end.status, end.error.type) == ("failed", "multiagents.exceptions.WorkerNotFoundError")
    assert 'took it from queue "plain" and nobody claimed the attempt for worker "plya"; did you mean "play"?' in (
        end.error.message
    )
    # At once after the first two, then after pauses that double.
    assert 3 <= plain.log.count("Received unregistered task") <= 6
    assert engine.log.count('its message was taken from queue "plain"') == 1


def test_S33_a_plain_worker_that_has_a_task_of_the_very_name_is_not_sent_it_again_and_again(scene: Scene) -> None:
    scene.app_of(
        "app_plain",
        PLAIN_APP + """
import redis

@app.task(name="play", ignore_result=True)
def play(*args, **whatever):
    with redis.Redis.from_url(os.environ["MULTIAGENTS_REDIS_URL"]) as client:
        client.rpush("played", str(whatever))
""",
    )
    scene.worker()
    plain = scene.worker("app_plain", queues=["plain"])

    end = scene.end(scene.orchestrator.start(flow("play", queue="plain")))

    assert (end.status, end.error.type) == ("failed", "multiagents.exceptions.WorkerNotFoundError")
    assert "if that has a task of this very name, it has called it with the ids of the step" in end.error.message
    # At once after the first two, then after pauses that double; and never again.
    assert 3 <= scene.redis.llen("played") <= 6
    assert plain.log.count("Received unregistered task") == 0


def test_S33_what_a_busy_worker_holds_and_has_not_begun_waits_as_long_as_it_takes(scene: Scene) -> None:
    scene.worker(concurrency=1, extra=["--prefetch-multiplier", "20"])
    busy = scene.orchestrator.start(flow("play"), {"script": {"a": ["wait"]}})
    wait_until(lambda: busy.describe().steps["a"].status == "running", 10, "the worker to be busy")

    # It has them in its memory by now, and their copies behind them: as many as it prefetches.
    held = [scene.orchestrator.start(flow("play")) for _ in range(2)]
    until = time.monotonic() + 3 * LIMIT + 4 * SETTINGS["lease"]
    wait_until(lambda: time.monotonic() > until, 30, "their time by default to be over")

    assert [run.status for run in held] == ["running"] * 2
    scene.redis.rpush(f"gate:{busy.transaction_id}:a", "go")
    assert [scene.end(run).status for run in (busy, *held)] == ["completed"] * 3


def test_S33_a_worker_that_nobody_has_is_warned_of_once_and_fails_the_step_which_names_it(scene: Scene) -> None:
    engine = scene.worker()
    run = scene.orchestrator.start(flow("plya"))
    told = wait_until(lambda: taken(waiting(run).get("worker", "")), 10, "a worker to have taken it")
    end = scene.end(run)

    assert 'a worker process of queue "celery" that has worker "plya"; one took the step and does not' in told
    assert told.endswith('; did you mean "play"?')
    assert (end.status, end.error.type) == ("failed", "multiagents.exceptions.WorkerNotFoundError")
    assert 'has registered worker "plya" within 3 s; did you mean "play"?' in end.error.message
    assert engine.log.count('which has no worker "plya"; did you mean "play"?') == 1
    assert "unregistered task" not in engine.log, "Celery's dump of each message"


def test_S33_an_app_that_accepts_no_json_takes_the_engines_messages_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("C_FORCE_ROOT", "1")
    scene.app_of("app_pickle", "from tests.support.apps.scripted import app\napp.conf.accept_content = ['pickle']\n")
    engine = scene.worker("app_pickle")

    end = scene.end(scene.orchestrator.start(flow("play")))

    assert end.status == "completed"
    assert engine.log.count("accept_content is ['pickle'] and lacks \"json\"") == 1


# --- queues that nobody consumes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, "multiagents.exceptions.WorkerNotFoundError", "has ever consumed"),
        ({"schedule_to_start": 1.0}, "ScheduleToStartTimeout", "schedule_to_start of 1 s"),
        ({"schedule_to_close": 1.5}, "ScheduleToCloseTimeout", "schedule_to_close of 1.5 s"),
    ],
    ids=["by default", "its own start", "its own end"],
)
def test_S33_a_queue_that_nobody_ever_consumed_fails_the_step_which_names_it_and_the_nearest(
    scene: Scene, options: dict[str, float], error: str, says: str
) -> None:
    scene.worker(queues=["celery", "nobody"])
    run = scene.orchestrator.start(flow("play", queue="nobdy", **options))
    wait_until(lambda: "did you mean" in waiting(run).get("queue", ""), 10, "the workers to have announced themselves")

    told = waiting(run)["queue"]
    end = scene.end(run)

    assert told == 'no worker of this store consumes queue "nobdy"; did you mean "nobody"?'
    assert (end.status, end.error.type) == ("failed", error)
    assert all(part in end.error.message for part in (says, '"play"', 'queue "nobdy"', 'did you mean "nobody"?'))


def test_S33_a_queue_whose_worker_is_away_is_waited_for_and_warned_of_once(scene: Scene) -> None:
    away = scene.worker(queues=["night"])
    wait_until(lambda: scene.orchestrator.store.announced().knows("night"), 10, "the announcement")
    engine = scene.worker(queues=["celery"])
    away.term()
    run = scene.orchestrator.start(flow("play", queue="night"))

    engine.wait_for_log('steps wait in queue "night", and no worker of this store consumes it now', 15)
    told = waiting(run)["queue"]
    wait_until(lambda: run.describe().steps["a"].attempts == 1, 1, "its message")
    later = scene.redis.time()[0] + LIMIT + 2
    wait_until(lambda: scene.redis.time()[0] > later, 10, "its time by default to be over")

    assert told == 'queue "night": no worker of this store consumes it now'
    assert run.status == "running"
    assert engine.log.count('steps wait in queue "night"') == 1
    away.restart()
    assert scene.end(run).status == "completed"


def taken(text: str) -> str:
    return text if "one took the step" in text else ""


def waiting(run: Any) -> dict[str, str]:
    """What step a waits for: kind -> text."""
    return {waits.kind: waits.text for waits in run.describe().steps["a"].waiting_for}


# --- what is elsewhere, or of another app ----------------------------------------------------------------------------


def test_S33_other_content_of_a_version_is_said_by_the_worker_once_and_by_the_run(scene: Scene) -> None:
    build = (
        'WorkflowBuilder("packing").add_step("a", "play", when=lambda context: True, timeout={timeout}).build({more})'
    )
    scene.app_of(
        "app_old",
        "from multiagents import WorkflowBuilder\nfrom tests.support.apps.scripted import app\n"
        + build.format(timeout=600, more=""),
    )
    engine = scene.worker("app_old")
    here = eval(build.format(timeout=86_400, more="register=False"))
    # As a web process that starts the run without the code of its first step.
    run = scene.orchestrator.start(Definition.from_json(here.to_json()))

    changed = 'step "a" changed in timeout (86400.0 → 600.0)'
    engine.wait_for_log("waits for a worker that has this content of workflow", 15)
    wait_until(lambda: changed in waiting(run).get("worker", ""), 15, f"the difference in {waiting(run)}")

    end = scene.end(run)

    assert end.status == "failed"
    assert changed in end.error.message
    assert engine.log.count("waits for a worker that has this content") == 1


def test_a_step_goes_to_the_default_queue_of_its_own_app_whichever_app_sweeps(scene: Scene) -> None:
    code = """
from tests.support.apps.scripted import app, worker, RetryPolicy, note, current_step

app.conf.task_default_queue = "{name}"

@worker("{name}.flaky", retry=RetryPolicy(max_attempts=3, initial_interval=0.3, jitter=False))
def flaky(context):
    note()
    if current_step().attempt < 3:
        raise ValueError("again")
"""
    for name in ("first", "second"):
        scene.app_of(f"app_{name}", code.format(name=name))
        scene.worker(f"app_{name}", queues=None)
    announced = scene.orchestrator.store.announced
    wait_until(lambda: {"first.flaky", "second.flaky"} <= announced().workers.keys(), 10, "the announcements")
    time.sleep(MISSED_FOR + 0.1)  # what is not known of a worker is not looked up again sooner

    # The client, a third app, knows neither.
    runs = [scene.orchestrator.start(flow(f"{name}.flaky")) for name in ("first", "second") for _ in range(6)]
    ends = [scene.end(run) for run in runs]

    assert [(end.status, end.steps["a"].attempts) for end in ends] == [("completed", 3)] * 12
    assert not [started for started in scene.workers if "has no worker" in started.log]


def test_a_step_that_two_apps_have_goes_to_the_default_queue_of_the_one_whose_run_it_is(scene: Scene) -> None:
    code = """
from celery import current_task
from tests.support.apps.scripted import app, worker, RetryPolicy, current_step, _here

app.conf.task_default_queue = "{name}"

@worker("shared.note", retry=RetryPolicy(max_attempts=3, initial_interval=0.3, jitter=False))
def note(context):
    with _here() as client:
        client.sadd("came", context["app"] + " " + current_task.request.delivery_info["routing_key"])
    if current_step().attempt < 3:
        raise ValueError("again")

@worker("shared.undo")
def undo(context):
    note.fn(context)
"""
    names = ("first", "second")
    for name in names:
        scene.app_of(f"app_{name}", code.format(name=name))
        scene.worker(f"app_{name}", queues=None)
    both = {"home": ANY, "homes": ["first", "second"]}
    wait_until(lambda: both.items() <= _announced(scene, "shared.note").items(), 10, "the announcements")
    time.sleep(MISSED_FOR + 0.1)  # what is not known of a worker is not looked up again sooner
    workflow = (
        WorkflowBuilder("both")
        .add_step("a", "shared.note")
        .add_sleep("nap", 0.4)
        .add_step("b", "shared.note")
        .build(register=False)
    )
    clients = {name: scripted.make_app(scene.broker, **SETTINGS, redis_url=scene.url) for name in names}
    runs = []
    for name, app in clients.items():
        app.conf.task_default_queue = name
        runs += [app.multiagents.start(workflow, {"app": name}) for _ in range(8)]

    ends = [scene.end(run) for run in runs]

    assert [end.status for end in ends] == ["completed"] * 16
    assert scene.redis.smembers("came") == {"first first", "second second"}
    for app in clients.values():
        app.multiagents.store.close()
        app.close()


def _announced(scene: Scene, worker: str) -> Any:
    return scene.orchestrator.store.announced().workers.get(worker, {})


def test_an_app_is_told_of_another_on_its_store_that_has_its_workers_and_another_default_queue(scene: Scene) -> None:
    code = 'from tests.support.apps.scripted import app\napp.conf.task_default_queue = "{name}"\n'
    for name in ("first", "second"):
        scene.app_of(f"app_{name}", code.format(name=name))
    scene.worker("app_first")
    wait_until(lambda: scene.orchestrator.store.announced().nodes, 10, "the announcement")

    second = scene.worker("app_second")

    second.wait_for_log('the same workers (.*) and another default queue \\("first", here "second"\\)', 10)


# --- at the start ----------------------------------------------------------------------------------------------------


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "multiagents.orchestrator.engine.name_check")
    return lambda: [each.getMessage() for each in caplog.records if each.name.endswith("name_check")]


def test_S33_whoever_starts_a_run_is_warned_once_of_names_that_nobody_has(
    scene: Scene, warned: Callable[[], list[str]]
) -> None:
    named = (
        WorkflowBuilder("named").add_step("a", "play", compensation="far_undoo", queue="nihgt").build(register=False)
    )
    alone = scene.orchestrator.start(named)
    told_alone = warned()
    scene.app_of(
        "app_far", "from tests.support.apps.scripted import app, worker\n@worker\ndef far_undo(context): ...\n"
    )
    scene.worker("app_far", queues=["celery", "night"])
    announced = scene.orchestrator.engine.dispatcher.announced  # what this process knows, which is some moments old
    wait_until(lambda: announced(fresh=True).knows("night"), 10, "the announcement")

    others = [scene.orchestrator.start(named) for _ in range(3)]

    told = warned()[len(told_alone) :]
    assert [line.split(":")[0] for line in told_alone] == ["no worker runs on this store"]
    assert len(told) == 2
    assert 'the compensation of step "a" is worker "far_undoo", which no worker process' in told[0]
    assert '; did you mean "far_undo"?' in told[0]
    assert 'step "a" goes to queue "nihgt", which no worker of this store has ever consumed; did you mean "night"?' in (
        told[1]
    )
    for run in (alone, *others):
        run.terminate(reason="it has been seen")


def test_S33_whoever_starts_a_run_is_warned_of_a_worker_that_he_alone_has_imported_and_of_his_own_default_queue(
    scene: Scene, warned: Callable[[], list[str]]
) -> None:
    scene.app_of("app_bare", BARE_APP)
    scene.worker("app_bare", queues=["night"])
    wait_until(lambda: scene.orchestrator.store.announced().nodes, 10, "the announcement")

    run = scene.orchestrator.start(flow("play", compensation="undo"))

    [worker, undo, queue] = warned()
    assert 'step "a" is worker "play", which is here, and no worker process of this store has announced; have' in worker
    assert '"undo", which is here, and no' in undo
    assert 'step "a" goes to queue "celery", which no worker of this store has ever consumed; start one with' in queue
    assert 'worker "play", which no worker process of this store has announced' in waiting(run)["worker"]
    run.terminate(reason="it has been seen")


def test_S33_a_worker_that_starts_a_run_before_it_has_announced_itself_warns_of_nothing_that_it_has(
    scene: Scene,
) -> None:
    scene.app_of(
        "app_early",
        """
from celery import signals
from tests.support.apps.scripted import app, worker, WorkflowBuilder

@worker("early.mine", queue="early")
def mine(context): ...

flow = WorkflowBuilder("early").add_step("a", mine).build()

@signals.worker_init.connect
def begin(**_): app.multiagents.start(flow, {}, "early-1")

@signals.worker_process_init.connect
def begin_in_a_child(**_): app.multiagents.start(flow, {}, "early-2")
""",
    )

    started = scene.worker("app_early", queues=["celery", "early"])

    ends = [scene.end(scene.orchestrator.get(name)).status for name in ("early-1", "early-2")]
    assert ends == ["completed", "completed"]
    assert [line for line in started.log.splitlines() if "on this store" in line or "of this store" in line] == []


def test_S33_a_worker_that_starts_warns_of_names_in_its_definitions_that_nobody_has(scene: Scene) -> None:
    scene.app_of(
        "app_named",
        "from tests.support.apps.scripted import app\nfrom multiagents import WorkflowBuilder\n"
        'WorkflowBuilder("named").add_step("a", "play", compensation="undoo").build()\n',
    )

    engine = scene.worker("app_named")

    engine.wait_for_log('the compensation of step "a" is worker "undoo", which no worker .*did you mean "undo"', 15)
    assert engine.log.count("which no worker process of this store has announced") == 1
