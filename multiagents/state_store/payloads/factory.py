"""What the settings of a deployment make of the form in which its data is stored."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from multiagents.exceptions import ConfigurationError
from multiagents.keys import Keys
from multiagents.settings import DEFAULT_KEY_PREFIX, Settings
from multiagents.state_store.payloads.archives import HistoryArchive
from multiagents.state_store.payloads.codecs import PayloadCodec
from multiagents.state_store.payloads.offload import PayloadStore
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


class _Port(NamedTuple):
    """What a setting may name an implementation of."""

    #: a protocol that can be checked as the program runs
    kind: Any
    noun: str
    expected: str
    #: where people who write their own find it
    address: str


_CODEC = _Port(
    PayloadCodec, "codec", "name, encode(bytes) and decode(bytes)", "multiagents.state_store.codecs.PayloadCodec"
)
_STORE = _Port(PayloadStore, "payload store", "name, put, get and forget", "multiagents.state_store.blobs.PayloadStore")
_ARCHIVE = _Port(HistoryArchive, "archive", "append and read", "multiagents.state_store.archives.HistoryArchive")


def _codec(entry: Any, label: str, settings: Settings) -> PayloadCodec:
    codec: PayloadCodec = _fulfilled(_CODEC, entry, label, settings)
    return codec


def _payload_store(settings: Settings) -> PayloadStore | None:
    entry = settings.claim_check_store
    if entry is None:
        return None
    if isinstance(entry, str) and "://" in entry:
        from multiagents.state_store.payloads.offload.redis import RedisPayloadStore

        return RedisPayloadStore(entry, keys=Keys(settings.key_prefix or DEFAULT_KEY_PREFIX, settings.partitions))
    store: PayloadStore = _fulfilled(_STORE, entry, "multiagents_claim_check_store", settings)
    return store


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
    archive: HistoryArchive = _fulfilled(_ARCHIVE, entry, "multiagents_history_archive", settings)
    return archive


def _fulfilled(port: _Port, entry: Any, label: str, settings: Settings) -> Any:
    """What a setting names, if it is one of these."""
    made = _made(entry, label, settings)
    if not isinstance(made, port.kind):
        raise ConfigurationError(
            f"{label} names {entry!r}, which is no {port.noun}: expected an object with {port.expected}, as "
            f"{port.address} says"
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
