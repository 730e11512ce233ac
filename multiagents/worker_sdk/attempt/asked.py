"""What a worker may ask of the engine in place of an outcome."""

from __future__ import annotations


class RetryAsked(Exception):  # noqa: N818 - no error: a word
    """The attempt has failed, and its worker says itself whether it is tried again, and when: before any policy.

    Attributes:
        error: what it failed with.
        seconds: until the next attempt; None when there is to be none.
    """

    def __init__(self, error: BaseException, seconds: float | None) -> None:
        self.error = error
        self.seconds = seconds
        super().__init__(str(error))


class GivenBack(Exception):  # noqa: N818
    """This was no attempt: it comes again after a while."""
