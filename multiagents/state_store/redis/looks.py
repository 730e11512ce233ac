"""What a process knows of the server's clock from its last look at what is due: whether it was set since.

A server that was away and one whose clock was set forward say the same: much later than at the last sweep. A clock of
this process, which nobody sets, tells them apart. The answer may have taken long itself, so that is done when it is
there, and the server is asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from multiagents.clock import steady_ms

#: In the place of when the next entry is due: the server's time is later than this process takes it to be.
IN_DOUBT = -2


class Looks:
    """The looks of one process at what is due in one partition.

    Args:
        steady: milliseconds of a clock that nobody sets.
    """

    def __init__(self, steady: Callable[[], float] = steady_ms) -> None:
        self._steady = steady
        #: the server's clock at the last look, and ours just before it
        self._last: tuple[int, float] | None = None

    def ask(self, script: Callable[[Sequence[Any]], Sequence[Any]], args: Sequence[Any]) -> Sequence[Any]:
        """Take what is due.

        Args:
            script: `take_due`, called with its ARGV.
            args: those of them that do not say what we make of the time.

        Returns:
            its answer.
        """
        asked = self._steady()
        answer = script([*args, self._expected(asked), "", 0])
        if answer[1] == IN_DOUBT:
            now, _, swept = answer
            late = now - self._expected(self._steady())
            asked = self._steady()
            answer = script([*args, self._expected(asked), swept, max(0, min(late, now - swept))])
        self._last = int(answer[0]), asked
        return answer

    def _expected(self, at: float) -> Any:
        return "" if self._last is None else round(self._last[0] + at - self._last[1])
