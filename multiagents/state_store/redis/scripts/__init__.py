"""The Lua scripts: one verb a file, loaded once, addressed by their SHA so that two releases can share a server.

A line ``--#include name`` takes in another file; what is included says so at its head.

A server that has come to its ``maxmemory`` takes no new runs. What those that are there need to come to their ends, and
what takes them away, it has to do all the same, or it would stay full for ever: `ON_A_FULL_SERVER`.
"""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple

#: Scripts that a full server runs as well.
ON_A_FULL_SERVER = frozenset(
    {
        *("claim", "renew", "commit", "dispatch", "lock", "limit", "limit_end"),  # what runs comes to its end
        *("journal_open", "journal_begin", "journal_finish", "journal_refuse", "journal_restart", "journal_decide"),
        *("journal_withhold", "budget_reserve", "budget_settle"),
        *("take_due", "hold", "postpone", "expire", "bury", "announce", "program_place"),  # and is looked after
        *("examples_feedback", "examples_forget", "examples_tidy", "examples_page"),
        *("forget", "delete", "archive", "unlock", "tidy"),  # and goes
    }
)

_INCLUDE = re.compile(r"^--#include (\w+)$", re.MULTILINE)


class Script(NamedTuple):
    """A script's text, its includes taken in, and the SHA that Redis knows it by."""

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """Read a script by the name of its file."""
    text = _INCLUDE.sub(lambda match: _read(match[1]), _read(name))
    if name in ON_A_FULL_SERVER:
        text = f"#!lua flags=allow-oom\n{text}"
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _read(name: str) -> str:
    return files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
