"""The README's Python runs as it stands there, against a real server and a real worker."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from multiagents.testing import EmbeddedServer, WorkerProcess
from tests.support import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_every_python_block_of_the_readme_is_run_here() -> None:
    assert len(BLOCKS) == 2
    assert BLOCKS[0].startswith("# celery_app.py\n")
    assert "`celery -A celery_app worker`" in README


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reader's folder, with the two files of the README."""
    (tmp_path / "celery_app.py").write_text(BLOCKS[0], encoding="utf-8")
    (tmp_path / "start.py").write_text(BLOCKS[1], encoding="utf-8")
    return tmp_path


def test_the_first_saga_of_the_readme_completes(folder: Path) -> None:
    with EmbeddedServer(folder / "data") as server:
        environ = {"CELERY_BROKER_URL": server.url, "PYTHONPATH": f"{folder}:{ROOT}"}
        with WorkerProcess("celery_app", folder / "worker.log", cwd=folder, env=environ) as worker:
            started = subprocess.run(
                [sys.executable, "start.py"],
                cwd=folder,
                env=worker.env,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

    assert started.returncode == 0, started.stderr + worker.log
    context, status, *events = started.stdout.splitlines()
    assert "'reservation': 'res-A-1'" in context
    assert "'charge_id': 'order-A-1/charge'" in context
    assert status == "completed"
    assert [event.split()[:2] for event in events if not event.startswith("status")] == [
        ["command", "reserve"],
        ["result", "reserve"],
        ["command", "charge"],
        ["result", "charge"],
        ["command", "ship"],
        ["result", "ship"],
    ]
