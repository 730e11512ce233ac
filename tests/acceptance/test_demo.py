"""The demo as a newcomer runs it: a process of its own, with a real Valkey, a real worker and a real kill -9."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from examples._support import model
from tests.support import ROOT

ORDERS = ROOT / "examples" / "ecommerce_order" / "orders.jsonl"
#: Seconds until a demo that was told to stop has stopped, its worker and its Valkey too.
STOP_TIMEOUT = 20.0


class Demo:
    """A demo in a process of its own, its output in a file, and all processes that it has ever had."""

    def __init__(self, data: Path, *arguments: str, terminal: bool = False) -> None:
        self.output_file = data / f"output-{len(list(data.glob('output-*')))}"
        self.seen: dict[int, psutil.Process] = {}
        leader, follower = pty.openpty() if terminal else (None, None)
        command = [sys.executable, "-m", "examples.ecommerce_order.main", "--data", str(data), *arguments]
        left_out = ("CI", "CELERY_BROKER_URL", *model.KEYS, model.OTHER)
        environ = {name: value for name, value in os.environ.items() if name not in left_out}
        with self.output_file.open("wb") as output:
            stream = output if follower is None else follower
            environ |= {"TERM": "xterm-256color", "EXAMPLES_PACE": "0.5"}
            self.process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=stream, stderr=stream)
        if leader is not None and follower is not None:
            os.close(follower)
            threading.Thread(target=self._copy, args=(leader,), daemon=True).start()

    def _copy(self, leader: int) -> None:
        with self.output_file.open("ab", buffering=0) as output:
            try:
                while block := os.read(leader, 65536):
                    output.write(block)
            except OSError:
                os.close(leader)  # that is how a terminal says that its last program has left

    @property
    def output(self) -> str:
        return self.output_file.read_text(errors="replace")

    def look(self) -> bool:
        """Note its processes; whether it still runs."""
        try:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self.seen.setdefault(child.pid, child)
        except psutil.NoSuchProcess:
            pass
        return self.process.poll() is None

    def wait_for(self, words: str, timeout: float = 40.0) -> None:
        deadline = time.monotonic() + timeout
        while words not in self.output:
            assert self.look(), f"it ended before it said {words!r}:\n{self.output}"
            assert time.monotonic() < deadline, f"it did not say {words!r} in time:\n{self.output}"
            time.sleep(0.05)

    def end(self, timeout: float) -> int:
        """Wait for its end; its exit code."""
        deadline = time.monotonic() + timeout
        while self.look():
            assert time.monotonic() < deadline, f"it has not ended in time:\n{self.output}"
            time.sleep(0.05)
        return int(self.process.returncode)

    def left_behind(self) -> list[psutil.Process]:
        """Its processes that are still there a moment after its end."""
        _, alive = psutil.wait_procs(list(self.seen.values()), timeout=5)
        return alive


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data folder for all of this module: a demo must work on what an earlier one left there."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    started: list[Demo] = []
    yield started
    for demo in started:
        demo.look()
        demo.process.kill()
        demo.process.wait()
        for process in demo.seen.values():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass


def start(demos: list[Demo], data: Path, *arguments: str, terminal: bool = False) -> Demo:
    demos.append(Demo(data, *arguments, terminal=terminal))
    return demos[-1]


def test_all_orders_end_as_expected_though_a_payment_is_killed(data: Path, demos: list[Demo]) -> None:
    demo = start(demos, data)

    assert demo.end(110) == 0, demo.output
    assert "kill -9" in demo.output
    assert "lost with its process" in demo.output
    assert "the provider was asked 2 times: done, repeated" in demo.output
    assert "all 36 orders end as expected" in demo.output
    assert "All of it added up: 10 checks" in demo.output
    assert "NO REAL MODEL is asked" in demo.output
    assert "24 calls of a stand-in" in demo.output
    assert "Next" in demo.output
    assert len(demo.seen) >= 4  # Valkey, the worker, its two children, the one that replaced the killed child
    assert demo.left_behind() == []


def test_an_order_that_ends_otherwise_fails_the_demo(data: Path, demos: list[Demo], tmp_path: Path) -> None:
    cases = [json.loads(line) for line in ORDERS.read_text(encoding="utf-8").splitlines()][:16]
    cases[0]["expect"] = {"status": "failed", "reason": "OutOfStockError"}
    changed = tmp_path / "orders.jsonl"
    changed.write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")

    demo = start(demos, data, "--orders", str(changed))

    assert demo.end(60) == 1, demo.output
    assert "This did not add up: all 16 orders end as expected (order A-1001)\n" in demo.output


def test_a_demo_that_cannot_end_in_time_says_what_is_missing(data: Path, demos: list[Demo]) -> None:
    demo = start(demos, data, "--deadline", "1")

    assert demo.end(60) == 1, demo.output
    assert "time is up, and these runs have not ended:" in demo.output
    assert demo.left_behind() == []


def test_ctrl_c_on_a_terminal_stops_everything(data: Path, demos: list[Demo]) -> None:
    demo = start(demos, data, terminal=True)
    demo.wait_for("runs have ended")
    other = start(demos, data)

    assert other.end(30) == 1
    assert "another ecommerce_order runs in" in other.output
    demo.look()
    demo.process.send_signal(signal.SIGINT)
    assert demo.end(STOP_TIMEOUT) == 130, demo.output
    assert "Stopped, with all that it started." in demo.output
    assert demo.left_behind() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_killed_demo_leaves_no_process_behind(data: Path, demos: list[Demo]) -> None:
    demo = start(demos, data)
    demo.wait_for("orders are started")
    demo.look()

    demo.process.kill()
    demo.process.wait()

    assert len(demo.seen) >= 3
    assert demo.left_behind() == []
