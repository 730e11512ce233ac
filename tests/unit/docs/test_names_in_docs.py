"""What the pages name by its address is there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ADDRESS = re.compile(r"`(multiagents(?:\.[a-z_]+)+)\.([A-Z]\w+)`")
NAMED = sorted(
    {found for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")) for found in ADDRESS.findall(page.read_text())}
)


@pytest.mark.parametrize(("module", "name"), NAMED)
def test_what_a_page_names_by_its_address_can_be_imported(module: str, name: str) -> None:
    assert hasattr(import_module(module), name)


def test_the_ports_that_people_write_their_own_of_have_a_public_address() -> None:
    assert {name for module, name in NAMED if module.startswith("multiagents.state_store.")} >= {
        "HistoryArchive",
        "PayloadCodec",
        "PayloadStore",
    }
