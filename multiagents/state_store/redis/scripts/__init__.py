"""The Lua scripts: one verb a file, loaded once, addressed by their SHA so that two releases can share a server.

A line ``--#include name`` takes in another file; what is included says so at its head.
"""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple

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
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _read(name: str) -> str:
    return files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
