"""The examples of docs/workflows.md run as they stand there, and print what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

PAGE = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
SCRIPT = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
SAID = re.findall(r"^print\(.*\)    # (.*)$", SCRIPT, re.MULTILINE)


def test_the_examples_print_what_the_page_says(tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MULTIAGENTS_", "CELERY_"))}
    environ |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-8"}

    ran = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == SAID


def test_the_page_has_an_example_of_everything_that_can_be_added() -> None:
    from multiagents import WorkflowBuilder

    verbs = [name for name in dir(WorkflowBuilder) if name.startswith("add_")]

    assert [verb for verb in verbs if f".{verb}(" not in SCRIPT] == []
    assert len(SAID) == SCRIPT.count("\nprint(")
