"""What a worker may ask of the engine in place of an outcome."""

from __future__ import annotations

from multiagents.error_report import message_of, qualified_name


class TaskFailed(Exception):  # noqa: N818 - no error: a word
    """A Celery task that was called for an attempt has failed, and Celery has told whoever listens to that task.

    Attributes:
        error: what it failed with.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(f"{qualified_name(type(error))}: {message_of(error)}")


class RetryAsked(TaskFailed):
    """It says itself whether it is tried again, and when: before any policy.

    Attributes:
        seconds: until the next attempt; None when there is to be none.
    """

    def __init__(self, error: BaseException, seconds: float | None) -> None:
        self.seconds = seconds
        super().__init__(error)


class GivenBack(Exception):  # noqa: N818 - no error either
    """This was no attempt: it comes again after a while.

    Attributes:
        seconds: until then; None where nobody knows what for, and it comes ever later.
        target: what it waits for, as the record of the attempt has it.
        begun: it may have taken effect already.
    """

    def __init__(self, why: str, seconds: float | None = None, *, target: str = "") -> None:
        self.seconds = seconds
        self.target = target
        self.begun = False
        super().__init__(why)
