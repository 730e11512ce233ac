"""The part of the port that schedules ask: how far they have come, and who paused them."""

from __future__ import annotations

from abc import ABC, abstractmethod

#: A schedule that is not paused and has not ticked for that long is no more: one that ticks once a year has.
FORGOTTEN_AFTER_MS = 400 * 86_400_000
#: By how much a beat's clock may be ahead. What ticked later than that did so before the store's clock was set back.
AHEAD_MS = 60_000


class Schedules(ABC):
    """How far schedules have come. Every method is safe to call again, and safe to call from any thread."""

    @abstractmethod
    def state(self, name: str) -> tuple[int | None, str | None]:
        """The last tick of a schedule that was dealt with (ms), and the note of who paused it; None for neither."""

    @abstractmethod
    def ticked(self, name: str, at_ms: int) -> bool:
        """Write down that a schedule has come as far as this tick; never back, but where the store's clock went back.

        What was written of schedules that are no more goes when the first tick of another is written down.

        Returns:
            whether that is news.
        """

    @abstractmethod
    def pause(self, name: str, note: str | None) -> None:
        """Pause a schedule, or with None have it go on."""
