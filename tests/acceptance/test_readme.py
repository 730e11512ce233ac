"""The README's Python runs as it stands there, against a real server and a real worker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from multiagents.testing import EmbeddedServer, WorkerProcess
from tests.support import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
#: The agent's block needs an app, which the first one has, and a model, here one that says what it is told to.
BEFORE_THE_AGENT = """
from celery import Celery
from multiagents import init_app
from multiagents.testing.lm_stub import LMStub, react_agent
stub = LMStub().start()
app = Celery("shop")
app.conf.update(task_always_eager=True, multiagents_lm={
    "model": "gemini/gemini-3.8-flash", "api_base": stub.gemini_base, "api_key": "x",
})
orchestrator = init_app(app)
"""
AFTER_THE_AGENT = """
stub.when("book").reply(react_agent(("price", {"item": "book"}), answer="It costs 12.5.", confidence=0.9))
result = orchestrator.start(advice, {"question": "What does a book cost?"}).result()
print(result["answer"], result["needs_review"])
stub.stop()
"""
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_every_python_block_of_the_readme_is_run_here() -> None:
    assert len(BLOCKS) == 3
    assert BLOCKS[0].startswith("# celery_app.py\n")
    assert "@dspy_worker" in BLOCKS[1]
    assert "`celery -A celery_app worker`" in README


def test_the_first_agent_of_the_readme_answers(tmp_path: Path) -> None:
    pytest.importorskip("dspy")
    script = tmp_path / "agent.py"
    script.write_text(BEFORE_THE_AGENT + BLOCKS[1] + AFTER_THE_AGENT, encoding="utf-8")

    ran = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["It costs 12.5. False"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reader's folder, with the two files of the README."""
    (tmp_path / "celery_app.py").write_text(BLOCKS[0], encoding="utf-8")
    (tmp_path / "start.py").write_text(BLOCKS[2], encoding="utf-8")
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
