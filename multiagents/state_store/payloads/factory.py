"""What the settings of a deployment make of the form in which its data is stored."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from multiagents.exceptions import ConfigurationError
from multiagents.keys import Keys
from multiagents.settings import Settings
from multiagents.state_store.payloads.archives.base import HistoryArchive
from multiagents.state_store.payloads.codecs.base import PayloadCodec
from multiagents.state_store.payloads.offload.base import PayloadStore
from multiagents.state_store.payloads.policy import PayloadPolicy
from multiagents.state_store.payloads.redaction import redactor

#: Short names of the codecs that come with the library.
_BUILT_IN = {
    "gzip": "multiagents.state_store.payloads.codecs.gzip.GzipCodec",
    "aes-gcm": "multiagents.state_store.payloads.codecs.cryptography.AESGCMCodec",
}


def policy_of(settings: Settings) -> PayloadPolicy:
    """Make the codecs and stores that the settings name.

    Raises:
        ConfigurationError: when one of them cannot be made.

    >>> policy_of(Settings(payload_codec="gzip", redact="*password*")).codecs[0].name
    'gzip'
    """
    codecs = [_codec(entry, "multiagents_payload_codec", settings) for entry in settings.payload_codec]
    readable = [_codec(entry, "multiagents_payload_decode", settings) for entry in settings.payload_decode]
    if settings.encryption_keys:
        readable.append(_codec("aes-gcm", "multiagents_encryption_keys", settings))
    return PayloadPolicy(
        codecs=tuple(codecs),
        readable=tuple(readable),
        claim_check_bytes=settings.claim_check_bytes,
        apart=_payload_store(settings),
        redact=redactor(settings.redact),
        archive=_archive(settings),
        history_limit=settings.history_limit or None,
    )


def _codec(entry: Any, label: str, settings: Settings) -> PayloadCodec:
    made = _made(entry, label, settings)
    if not isinstance(made, PayloadCodec):
        raise ConfigurationError(
            f"{label} names {entry!r}, which is no codec: expected an object with name, "
            f"encode(bytes) and decode(bytes)"
        )
    return made


def _payload_store(settings: Settings) -> PayloadStore | None:
    entry = settings.claim_check_store
    if entry is None:
        return None
    if isinstance(entry, str) and "://" in entry:
        from multiagents.state_store.payloads.offload.redis import RedisPayloadStore

        return RedisPayloadStore(entry, keys=Keys(settings.key_prefix, settings.partitions))
    made = _made(entry, "multiagents_claim_check_store", settings)
    if not isinstance(made, PayloadStore):
        raise ConfigurationError(
            f"multiagents_claim_check_store names {entry!r}, which is no payload store: expected an object with name, "
            f"put, get and forget"
        )
    return made


def _archive(settings: Settings) -> HistoryArchive | None:
    entry = settings.history_archive
    if entry is None:
        if settings.history_limit:
            raise ConfigurationError(
                f"multiagents_history_limit is {settings.history_limit}, and multiagents_history_archive is not set; "
                f"older events have to go somewhere: set it to a folder that all processes see, or to an object with "
                f"append and read"
            )
        return None
    if isinstance(entry, str) and "/" in entry:
        from multiagents.state_store.payloads.archives.file import FileArchive

        return FileArchive(entry)
    made = _made(entry, "multiagents_history_archive", settings)
    if not isinstance(made, HistoryArchive):
        raise ConfigurationError(
            f"multiagents_history_archive names {entry!r}, which is no archive: expected an object with append and read"
        )
    return made


def _made(entry: Any, label: str, settings: Settings) -> Any:
    """What a setting names: an object, a dotted path to one, or a class to be made without arguments."""
    found = _imported(_BUILT_IN.get(entry, entry), label) if isinstance(entry, str) else entry
    if isinstance(found, type):
        from_settings = getattr(found, "from_settings", None)
        return found() if from_settings is None else from_settings(settings)
    return found


def _imported(path: str, label: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        advice = "; pip install 'celery-multiagents[encryption]'" if error.name == "cryptography" else ""
        raise ConfigurationError(f"{label} names {path!r}, which cannot be imported: {error}{advice}") from error
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"{label} names {path!r}, which cannot be imported: {error}; expected a dotted path such as "
            f"'shop.payloads.Codec', or {' or '.join(repr(known) for known in _BUILT_IN)}"
        ) from error
