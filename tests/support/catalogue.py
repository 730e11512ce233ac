"""The catalogue of Redis keys and scripts, `state_store/redis/scripts/README.md`, read as tables."""

from __future__ import annotations

import re
from importlib.resources import files

from multiagents.state_store.redis import scripts

PAGE = files(scripts).joinpath("README.md").read_text(encoding="utf-8")
OF_A_RUN, OF_A_PARTITION = "## Keys of a run", "## Keys of a partition"
FIELDS, DUE, SCRIPTS = "### Fields of a run", "### Due entries", "## Scripts"


def rows(heading: str) -> list[list[str]]:
    """The rows of all tables under a heading, cell by cell, without their heads."""
    section = re.split(r"\n#+ ", PAGE.split(f"\n{heading}\n", 1)[1], maxsplit=1)[0]
    tables = [table.splitlines()[2:] for table in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for table in tables for line in table]


def names(cell: str) -> list[str]:
    """What a cell has in code font."""
    return [name.replace("\\|", "|") for name in re.findall(r"`([^`]+)`", cell)]


def writers(key: str) -> set[str]:
    """The scripts that write a key, as the catalogue says."""
    found: set[str] = set()
    for heading in (OF_A_RUN, OF_A_PARTITION):
        for row in rows(heading):
            [pattern] = names(row[0])
            if re.fullmatch(_regex(pattern), key):
                found.update(names(row[3]))
    return found


def _regex(pattern: str) -> str:
    """What a key of the catalogue looks like: a text, a list, a run or a business key may have colons."""
    regex = re.escape(pattern).replace(re.escape("{tag}"), r"\w+:\{\d+\}")
    return re.sub(r"<(text|list|run|key|worker)>", ".+", re.sub(r"<(status|workflow|name)>", "[^:]+", regex))
