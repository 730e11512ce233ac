"""Three hundred greenlets of one process, which is another one: gevent changes all of the process that it is in."""

from __future__ import annotations

import subprocess
import sys

from tests.support import ROOT


def three_hundred(do: str, url: str) -> str:
    """What `tests.support.apps.greenlets` says when each of them has done so, ``calls`` or ``waits``: is it right?"""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.apps.greenlets", do, url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout.strip() or done.stderr[-2000:]
