"""How a process came to its end, in words: as far as its parent can know."""

from __future__ import annotations

from pathlib import Path

import pytest
from billiard.exceptions import Terminated, WorkerLostError

from multiagents.worker_sdk.consumer.deaths import Deaths

KILLED = WorkerLostError("Worker exited prematurely: signal 9 (SIGKILL) Job: 7.")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KILLED, "was ended by signal 9 (SIGKILL)"),
        (WorkerLostError("Worker exited prematurely: signal 11 (SIGSEGV) Job: 7."), "was ended by signal 11 (SIGSEGV)"),
        (WorkerLostError("Worker exited prematurely: exitcode 3 Job: 7."), "ended with exit code 3"),
        (WorkerLostError("Worker exited prematurely: exitcode 0."), "ended with exit code 0"),
        # A signal handler of Celery's children exits with the signal, less 256.
        (WorkerLostError("Worker exited prematurely: exitcode -241."), "was ended by signal 15 (SIGTERM)"),
        (WorkerLostError("Worker exited prematurely: signal 250."), "was ended by signal 6 (SIGABRT)"),
        (WorkerLostError("Timed out waiting for its end"), "has ended: Timed out waiting for its end"),
        (Terminated(15), "was terminated"),
        (ValueError("its own"), ""),
    ],
)
def test_each_end_has_its_words(error: Exception, words: str, tmp_path: Path):
    assert Deaths(tmp_path).why(error) == words


@pytest.mark.parametrize(
    ("groups", "counter"),
    [
        ("0::/", "sys/fs/cgroup/memory.events"),
        ("0::/system.slice/celery.service", "sys/fs/cgroup/system.slice/celery.service/memory.events"),
        ("0::/../machine/x", "sys/fs/cgroup/memory.events"),
        ("4:cpuset:/\n3:cpu,memory:/docker/1a2b\n", "sys/fs/cgroup/memory/docker/1a2b/memory.oom_control"),
        ("4:memory:/docker/1a2b\n0::/", "sys/fs/cgroup/memory/memory.oom_control"),
        ("0::/", "proc/vmstat"),
        (None, "proc/vmstat"),
    ],
)
def test_that_the_kernel_killed_for_want_of_memory_is_counted_in_its_own_group_or_the_machine(
    groups: str | None, counter: str, tmp_path: Path
):
    file = tmp_path / counter
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("pgfault 7\noom_kill 2\n")
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    deaths = Deaths(tmp_path)

    by_hand = deaths.why(KILLED)
    file.write_text("pgfault 9\noom_kill 3\n")
    by_the_kernel, after = deaths.why(KILLED), deaths.why(KILLED)

    assert (by_hand, after) == ("was ended by signal 9 (SIGKILL)",) * 2
    assert by_the_kernel == f"{by_hand}, as far as can be seen by the kernel for want of memory (OOM)"


def test_an_end_by_another_signal_is_none_for_want_of_memory(tmp_path: Path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/vmstat").write_text("oom_kill 0\n")
    deaths = Deaths(tmp_path)
    (tmp_path / "proc/vmstat").write_text("oom_kill 1\n")

    assert deaths.why(WorkerLostError("Worker exited prematurely: signal 6 (SIGABRT).")).endswith("(SIGABRT)")
