"""Encryption with AES-GCM, by the package ``cryptography``.

A value is: one byte with the length of the key's id, the id, a nonce of 12 bytes, and what AES-GCM makes of the value
(its tag included). The id is authenticated with it. Every value has a random nonce of its own, which is safe for some
four thousand million values a key: rotate before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from multiagents.exceptions import ConfigurationError, DecodeError
from multiagents.settings import Settings

_NONCE = 12


class AESGCMCodec:
    """Encrypt values, so that neither who reads the store nor who changes it goes unnoticed.

    Args:
        keys: key id -> key of 16, 24 or 32 bytes, the newest first. The first encrypts, all decrypt.

    Raises:
        ConfigurationError: when there is no key.

    >>> old = AESGCMCodec({"2025": b"k" * 32})
    >>> rotated = AESGCMCodec({"2026": b"n" * 32, "2025": b"k" * 32})
    >>> rotated.decode(old.encode(b"4111"))
    b'4111'
    >>> old.decode(rotated.encode(b"4111"))
    Traceback (most recent call last):
    multiagents.exceptions.DecodeError: a stored value was encrypted with the key "2026", which is not among \
multiagents_encryption_keys here (2025); add it after the others
    """

    name = "aes-gcm"

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise ConfigurationError(
                'the codec "aes-gcm" needs a key: set multiagents_encryption_keys = {"2026": <32 bytes in base64>}'
            )
        self._keys = {name: AESGCM(key) for name, key in keys.items()}
        newest = next(iter(self._keys))
        self._newest = self._keys[newest]
        self._head = bytes([len(newest)]) + newest.encode()

    @classmethod
    def from_settings(cls, settings: Settings) -> AESGCMCodec:
        """Take the keys from ``multiagents_encryption_keys``."""
        return cls(dict(settings.encryption_keys))

    def encode(self, data: bytes) -> bytes:
        """Encrypt a value with the newest key."""
        nonce = os.urandom(_NONCE)
        return self._head + nonce + self._newest.encrypt(nonce, data, self._head)

    def decode(self, data: bytes) -> bytes:
        """Decrypt a value with the key that it names.

        Raises:
            DecodeError: when that key is not here, or the value was not encrypted with it as it is.
        """
        start = 1 + (data[0] if data else 0)
        name = data[1:start].decode(errors="replace")
        key = self._keys.get(name)
        if key is None:
            raise DecodeError(
                f'a stored value was encrypted with the key "{name}", which is not among multiagents_encryption_keys '
                f"here ({', '.join(self._keys)}); add it after the others"
            )
        try:
            return key.decrypt(data[start : start + _NONCE], data[start + _NONCE :], data[:start])
        except (InvalidTag, ValueError):
            raise DecodeError(
                f'a stored value cannot be decrypted with the key "{name}": it was changed in the store, or another '
                f"key has this id here"
            ) from None
