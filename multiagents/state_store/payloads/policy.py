"""In what form the data of runs is stored: put through codecs, kept apart when it is large, redacted where it is shown.

Without any setting a value is stored as its JSON. The rules:

1. Redact first, then encode, then look at the size: what is kept apart is encoded, too.
2. Only a run's own data is kept apart: its input, results, answers of ``inputs``, and parts of the context. A dead
   letter outlives its run, so it holds its data itself.
3. Every value says how it was written (`envelope`), so what was written before a setting changed stays readable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

from multiagents.events import Event, StatusEvent
from multiagents.exceptions import ConfigurationError, DecodeError, PayloadStoreError, StateStoreError
from multiagents.failpoints import WriteSite, write
from multiagents.settings import Settings
from multiagents.state_store.payloads.archives import HistoryArchive
from multiagents.state_store.payloads.codecs import PayloadCodec
from multiagents.state_store.payloads.codecs.gzip import GzipCodec
from multiagents.state_store.payloads.context import dumps
from multiagents.state_store.payloads.envelope import (
    BESIDE,
    REFERENCE,
    has_marks,
    parse_reference,
    reference,
    seal,
    unseal,
)
from multiagents.state_store.payloads.history_codec import pack
from multiagents.state_store.payloads.offload import PayloadStore
from multiagents.workflow.decider import is_replayed
from multiagents.workflow.state import StepState

_K = TypeVar("_K")

#: Fields of a run's header that have what people have written, or their programs.
_SEALED = ("error", "signals")

#: Gives the texts of payloads that lie beside their run, by name; what is not there is left out.
Fetch = Callable[[Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True)
class PayloadPolicy:
    """How payloads are written, and read again.

    Args:
        codecs: what every value goes through, in this order.
        readable: codecs that values may have been written with before.
        claim_check_bytes: a larger value is kept apart.
        apart: where; None: in a key beside the run, by the script that refers to it.
        redact: makes data fit to be shown; None shows all of it.
        archive: where older events go; None: nowhere.
        history_limit: how many events stay in a run's history; twice as many before older ones are moved. None: all.

    >>> policy = PayloadPolicy(codecs=(GzipCodec(least=0),))
    >>> policy.open(policy.seal('{"total":5}'))
    '{"total":5}'
    """

    codecs: Sequence[PayloadCodec] = ()
    readable: Sequence[PayloadCodec] = ()
    claim_check_bytes: int = Settings.claim_check_bytes
    apart: PayloadStore | None = None
    redact: Callable[[Any], Any] | None = None
    archive: HistoryArchive | None = None
    history_limit: int | None = None
    #: what is not data of users is written as it is, without a look at it: the hot path
    is_plain: bool = field(init=False, repr=False, compare=False)
    #: name -> codec, of all that a value may have gone through
    _known: Mapping[str, PayloadCodec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = {codec.name: codec for codec in (GzipCodec(), *self.readable, *self.codecs)}
        object.__setattr__(self, "_known", known)
        object.__setattr__(self, "is_plain", not self.codecs and self.redact is None)

    # --- writing -----------------------------------------------------------------------------------------------------

    def seal(self, text: str) -> str:
        """A text as it is stored."""
        return seal(text, self.codecs) if self.codecs else text

    def text(self, value: Any) -> str:
        """A value as it is stored where nothing is kept apart."""
        return self.seal(dumps(value))

    def step(self, state: StepState) -> str:
        """A step's state as it is stored: an error says what data it met."""
        text = state.encode()
        if self.codecs and (state.do.error is not None or state.undo.error is not None):
            return seal(text, self.codecs)
        return text

    def header(self, name: str, value: str) -> str:
        """A field of a run's header as it is stored."""
        return seal(value, self.codecs) if self.codecs and name in _SEALED else value

    def event(self, event: Event) -> str:
        """An event as the history keeps it."""
        if self.redact is not None:
            event = self._redacted(event, self.redact)
        text = pack(event)
        return seal(text, self.codecs) if self.codecs and _says_something(event) else text

    @staticmethod
    def _redacted(event: Event, redact: Callable[[Any], Any]) -> Event:
        error = getattr(event, "error", None)
        if error is not None and error.details is not None:
            event = event.model_copy(update={"error": error.model_copy(update={"details": redact(error.details)})})
        if event.payload is None and not event.model_extra:
            return event
        if isinstance(event, StatusEvent) and is_replayed(event):
            return event  # A signal's key, the label of a choice: the engine's own.
        extra = redact(event.model_extra or {})
        return event.model_copy(update={"payload": redact(event.payload), **extra})

    def put_apart(self, transaction_id: str, blobs: Mapping[str, str]) -> Mapping[str, str]:
        """Put what a commit keeps apart where it belongs, before the commit.

        Returns:
            what the commit itself has to write, beside the run.

        Raises:
            PayloadStoreError: when the payload store did not take it.
        """
        if not blobs or self.apart is None:
            return blobs
        store, site = self.apart, WriteSite.PUT_APART
        _reaching(_named(store), lambda: write(site, partial(store.put, transaction_id, blobs)))
        return {}

    def forget(self, transaction_id: str) -> None:
        """Remove what a run has in a payload store; before the run, so that it is done again if it was not.

        Raises:
            PayloadStoreError: when the payload store did not do it.
        """
        if self.apart is not None:
            store = self.apart
            _reaching(_named(store), lambda: write(WriteSite.FORGET_APART, partial(store.forget, transaction_id)))

    # --- the archive -------------------------------------------------------------------------------------------------

    def is_too_long(self, events: int) -> bool:
        """Whether a history has grown so long that its older events are to be moved."""
        return self.history_limit is not None and events > 2 * self.history_limit

    def to_archive(self) -> Callable[[str, int, Sequence[str]], None]:
        """What puts events into the archive, before they leave the run's history; see `HistoryArchive.append`.

        It raises `PayloadStoreError` when the archive did not take them.

        Raises:
            ConfigurationError: when there is none.
        """
        archive = self.archive
        if archive is None:
            raise ConfigurationError(
                "there is no archive to move events to; set multiagents_history_archive to a folder that all processes "
                "see, or to an object with append and read"
            )

        def put(transaction_id: str, first: int, records: Sequence[str]) -> None:
            action = partial(archive.append, transaction_id, first, records)
            _reaching("archive", lambda: write(WriteSite.ARCHIVE, action))

        return put

    def from_archive(self, transaction_id: str, first: int, last: int) -> Sequence[str]:
        """Events that have left the run's history.

        Raises:
            DecodeError: when they are not there.
            PayloadStoreError: when the archive does not answer.
        """
        archive = self.archive
        found: Sequence[str] = ()
        if archive is not None and first < last:
            found = _reaching("archive", lambda: archive.read(transaction_id, first, last))
        if len(found) != max(0, last - first):
            raise DecodeError(
                f"the first {last} events of run {transaction_id!r} were moved to an archive, and "
                f"multiagents_history_archive {'is not set here' if archive is None else 'does not have all of them'}"
            )
        return found

    # --- reading -----------------------------------------------------------------------------------------------------

    def open(self, text: str) -> str:
        """The inverse of `seal`; a reference is given back as it is.

        Raises:
            DecodeError: when the text was written with a codec or a key that is not here.
        """
        return unseal(text, self._known)

    def opened(self, transaction_id: str, texts: Sequence[str], fetch: Fetch) -> list[str]:
        """Values as plain JSON, as `Reading.texts` gives them."""
        references = {text: parse_reference(text) for text in texts if text.startswith(REFERENCE)}
        wanted: dict[str, list[str]] = {}
        for where, name in references.values():
            wanted.setdefault(where, []).append(name)
        found = {where: self._fetched(transaction_id, where, names, fetch) for where, names in wanted.items()}
        opened = []
        for text in texts:
            whole = text
            if text in references:
                where, name = references[text]
                if name not in found[where]:
                    raise DecodeError(
                        f"a payload of run {transaction_id!r} is kept apart as {text!r} and is not there; it has "
                        f"expired, or somebody removed it"
                    )
                whole = found[where][name]
            opened.append(self.open(whole))
        return opened

    def _fetched(self, transaction_id: str, where: str, names: Sequence[str], fetch: Fetch) -> Mapping[str, str]:
        if where == BESIDE:
            return fetch(names)
        store = self.apart
        if store is None or store.name != where:
            raise DecodeError(
                f'a payload of run {transaction_id!r} is in the payload store "{where}", and '
                f"multiagents_claim_check_store is {'not set' if store is None else repr(store.name)} here"
            )
        answer: Mapping[str, str] = _reaching(_named(store), lambda: store.get(transaction_id, names))
        return answer

    def dead_letter(self, text: str) -> dict[str, Any]:
        """A dead letter as it was before it was stored.

        Raises:
            DecodeError: when it cannot be read.
        """
        letter: dict[str, Any] = json.loads(self.open(text))
        return letter

    def details_shown(self, said: Mapping[str, str | None]) -> dict[str, Any]:
        """What heartbeats said, by step, without what is not to be seen; of those that said something."""
        opened = {step: json.loads(self.open(text)) for step, text in said.items() if text is not None}
        return opened if self.redact is None else {step: self.redact(detail) for step, detail in opened.items()}

    def dead_letter_shown(self, text: str) -> dict[str, Any]:
        """A dead letter among others: one that cannot be read says so, and does not hide them."""
        try:
            return self.dead_letter(text)
        except DecodeError as error:
            return {"why": f"this letter cannot be read here: {error}"}

    def fields(self, fields: Mapping[str, str]) -> Mapping[str, str]:
        """The fields of a run's hash as they were before they were sealed."""
        if not has_marks(fields.values()):
            return fields
        sealed = {name: text for name, text in fields.items() if name in _SEALED or name.startswith(("s:", "h:"))}
        return {**fields, **{name: self.open(text) for name, text in sealed.items()}}


class Reading(NamedTuple):
    """Opens the values of one run.

    Attributes:
        policy: how they may have been written.
        transaction_id: the run.
        fetch: reads what lies beside it.
    """

    policy: PayloadPolicy
    transaction_id: str
    fetch: Fetch

    def text(self, text: str | None) -> str | None:
        """A value that is never kept apart, as it was before it was stored."""
        return None if text is None else self.policy.open(text)

    def texts(self, texts: Mapping[_K, str]) -> dict[_K, str]:
        """Values as plain JSON, those that are kept apart included: all of these in one more round trip.

        Raises:
            DecodeError: when one of them cannot be read, or is not where it is said to be.
            StateStoreError: when the place where they are kept does not answer.
        """
        return dict(zip(texts, self.policy.opened(self.transaction_id, list(texts.values()), self.fetch), strict=True))

    def whole(self, texts: Mapping[_K, str]) -> Mapping[_K, str]:
        """Do as `texts`; plain JSON passes through."""
        return self.texts(texts) if has_marks(texts.values()) else texts


class Writing:
    """The values of one commit, and what of them is to be kept apart.

    Args:
        policy: how they are written.
    """

    __slots__ = ("_limit", "blobs", "policy")

    def __init__(self, policy: PayloadPolicy) -> None:
        self.policy = policy
        self._limit = policy.claim_check_bytes
        #: name -> text, of what is kept apart
        self.blobs: dict[str, str] = {}

    def value(self, value: Any) -> str:
        """A value as it is stored: itself, or a reference."""
        text = dumps(value)
        if self.policy.codecs:
            text = self.policy.seal(text)
        if len(text) > self._limit or (not text.isascii() and _bytes(text) > self._limit):
            return self._apart(text)
        return text

    def text(self, text: str) -> str:
        """A text that need not be JSON, and does not begin with ``!``, as it is stored: itself, or a reference."""
        text = self.policy.seal(text)
        return self._apart(text) if _bytes(text) > self._limit else text

    def _apart(self, text: str) -> str:
        name = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        self.blobs[name] = text
        apart = self.policy.apart
        return reference(BESIDE if apart is None else apart.name, name)


#: Data as it is, whatever its size is below the default of ``multiagents_claim_check_bytes``.
PLAIN = PayloadPolicy()


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _says_something(event: Event) -> bool:
    """Whether there is more in an event than that it happened: data, its hash, an error, what somebody wrote."""
    values = event.__dict__
    told = ("payload", "digest", "error", "reason", "actor")
    return bool(event.model_extra) or any(values.get(name) is not None for name in told)


def _named(store: PayloadStore) -> str:
    return f'payload store "{store.name}"'


def _reaching(what: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except StateStoreError:
        raise
    except Exception as error:
        raise PayloadStoreError(
            f"the {what} did not do what it was asked: {type(error).__name__}: {error}; nothing that was acknowledged "
            f"is lost, and it is tried again"
        ) from error
