"""The port of a payload codec."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class PayloadCodec(Protocol):
    """Change payloads on their way into the store, and back.

    Called from any thread, for every value that is written or read, so it should be quick and keep no state of a value.

    >>> class Reversed:
    ...     name = "reversed"
    ...     def encode(self, data: bytes) -> bytes:
    ...         return data[::-1]
    ...     def decode(self, data: bytes) -> bytes:
    ...         return data[::-1]
    >>> isinstance(Reversed(), PayloadCodec)
    True
    """

    @property
    def name(self) -> str:
        """What stored values say they were written with: 1 to 32 characters of ``A-Z a-z 0-9 . _ -``, for ever."""

    def encode(self, data: bytes) -> bytes | None:
        """Change a value; None leaves it as it is (a compression that would not pay)."""

    def decode(self, data: bytes) -> bytes:
        """The inverse of `encode`.

        Raises:
            DecodeError: when it cannot; it says what is missing, for example which key.
        """
