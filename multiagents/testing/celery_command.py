"""The ``celery`` command, less the commands that other packages add to it; run as a script by `WorkerProcess`.

Celery imports those whichever command is asked for. Flower's alone is a sixth of all that a worker does until it is
ready, and a worker has no use for it.
"""

from __future__ import annotations

import runpy
import sys
from importlib import metadata
from typing import Any


def _without_added_commands() -> None:
    every = metadata.entry_points

    def entry_points(**which: Any) -> Any:
        return () if which == {"group": "celery.commands"} else every(**which)

    metadata.entry_points = entry_points


if __name__ == "__main__":
    _without_added_commands()
    sys.path[0] = ""  # as with -m: the working directory, where the app is
    runpy.run_module("celery", run_name="__main__", alter_sys=True)
