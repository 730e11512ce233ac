"""docs/redis.md lists the rights that the scripts need; what Celery needs beside, a real worker shows."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support import ROOT

SCRIPTS = ROOT / "multiagents" / "state_store" / "redis" / "scripts"


def test_the_listed_rights_have_every_command_of_the_scripts():
    page = (ROOT / "docs" / "redis.md").read_text()
    listed = {word[1:] for word in page.split("```")[1].split() if word.startswith("+")}

    called = {name.lower() for path in SCRIPTS.glob("*.lua") for name in commands_of(path)}

    assert len(called) > 20
    assert called - listed == set()


def commands_of(path: Path) -> list[str]:
    return re.findall(r"redis\.p?call\(\s*['\"](\w+)", path.read_text())
