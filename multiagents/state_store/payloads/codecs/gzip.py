"""Compression, with what Python brings along."""

from __future__ import annotations

import gzip
import zlib

from multiagents.exceptions import DecodeError


class GzipCodec:
    """Compress values with gzip.

    Args:
        least: values below this many bytes are left as they are: compressing them costs more than it saves.
        level: from 1 (quick) to 9 (small).

    >>> codec = GzipCodec()
    >>> codec.decode(codec.encode(b'{"item": 1}' * 100)) == b'{"item": 1}' * 100
    True
    >>> codec.encode(b"{}") is None
    True
    """

    name = "gzip"

    def __init__(self, least: int = 1024, level: int = 6) -> None:
        self._least = least
        self._level = level

    def encode(self, data: bytes) -> bytes | None:
        """Compress a value, or say that it does not pay."""
        return None if len(data) < self._least else gzip.compress(data, self._level, mtime=0)

    def decode(self, data: bytes) -> bytes:
        """The inverse of `encode`.

        Raises:
            DecodeError: when the data is not what `encode` made.
        """
        try:
            return gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DecodeError(f'a stored value that says "gzip" cannot be decompressed: {error}') from None
