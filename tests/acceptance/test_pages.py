"""The examples of docs/workflows.md and docs/agents.md run as they stand there, and print what the pages say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import ROOT


class Page(NamedTuple):
    """What is code of a page, and what it says that the code prints."""

    script: str
    said: list[str]


def read(name: str) -> Page:
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    script = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    return Page(script, re.findall(r"^print\(.*\) {4,}# (.*)$", script, re.MULTILINE))


@pytest.mark.parametrize("name", ["workflows", "agents"])
def test_the_examples_print_what_the_page_says(tmp_path: Path, name: str) -> None:
    if name == "agents":
        pytest.importorskip("dspy")
    page = read(name)
    script = tmp_path / "page.py"
    script.write_text(page.script, encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MULTIAGENTS_", "CELERY_"))}
    environ |= {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    # What DSPy and what it imports have to warn of is not ours.
    environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True"} if name == "agents" else {"PYTHONWARNINGS": "error"}

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
    assert ran.stdout.splitlines() == page.said
    assert len(page.said) == page.script.count("\nprint(")


def test_the_page_of_workflows_has_an_example_of_everything_that_can_be_added() -> None:
    from multiagents import WorkflowBuilder

    script = read("workflows").script
    verbs = [name for name in dir(WorkflowBuilder) if name.startswith("add_")]

    assert [verb for verb in verbs if f".{verb}(" not in script] == []
