"""How a stored value says that it is not plain JSON.

A value is one of three texts; the first character tells them apart, because no JSON begins with ``!``:

- JSON;
- ``!<codec>,<codec>!<base64>``: JSON that went through these codecs, in this order;
- ``!@<where>:<name>``: a reference to a payload that is kept apart, which is one of the two above. ``where`` is ``run``
  (the key beside the run) or the name of a payload store.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence

from multiagents.exceptions import DecodeError, MultiAgentsError
from multiagents.state_store.payloads.codecs.base import PayloadCodec

#: What an envelope or a reference begins with.
MARK = "!"
#: What a reference begins with.
REFERENCE = "!@"
#: Where a payload is that lies beside its run.
BESIDE = "run"


def has_marks(texts: Iterable[str | None]) -> bool:
    """Whether any of these values is more than plain JSON."""
    for text in texts:  # noqa: SIM110 - every field that is loaded is looked at: a generator would double the time
        if text is not None and text[:1] == MARK:
            return True
    return False


def seal(text: str, codecs: Sequence[PayloadCodec]) -> str:
    """Put a value through codecs.

    >>> from multiagents.state_store.payloads.codecs.gzip import GzipCodec
    >>> seal('{"total":5}', [GzipCodec(least=0)])[:12]
    '!gzip!H4sIAA'
    """
    data = text.encode("utf-8", "surrogatepass")
    names = []
    for codec in codecs:
        changed = codec.encode(data)
        if changed is not None:
            data = changed
            names.append(codec.name)
    return f"!{','.join(names)}!{b64encode(data).decode()}" if names else text


def unseal(text: str, known: Mapping[str, PayloadCodec]) -> str:
    """The inverse of `seal`; a value that went through no codec is given back as it is.

    Raises:
        DecodeError: when it went through a codec that is not known, or the codec cannot read it.
    """
    if text[:1] != MARK or text[:2] == REFERENCE:
        return text
    _, names, body = text.split(MARK, 2) if text.count(MARK, 1) else ("", "", "")
    try:
        data = b64decode(body, validate=True)
    except ValueError:
        data = b""
    if not names or not data:
        raise DecodeError(f"a stored value begins with {text[:40]!r} and is no envelope; something else wrote it")
    for name in reversed(names.split(",")):
        codec = known.get(name)
        if codec is None:
            raise DecodeError(
                f'a stored value was written with the codec "{name}", which is not set here '
                f"({', '.join(known) or 'none is'}); add it to multiagents_payload_codec, or to "
                f"multiagents_payload_decode if nothing new is to be written with it"
            )
        data = _decoded(codec, data)
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise DecodeError(f"a stored value that went through {names} is not text after it: {error}") from None


def _decoded(codec: PayloadCodec, data: bytes) -> bytes:
    try:
        return codec.decode(data)
    except MultiAgentsError:
        raise
    except Exception as error:
        raise DecodeError(
            f'a stored value cannot be read by the codec "{codec.name}": {type(error).__name__}: {error}'
        ) from error


def reference(where: str, name: str) -> str:
    """What is stored in the place of a payload that is kept apart."""
    return f"{REFERENCE}{where}:{name}"


def parse_reference(text: str) -> tuple[str, str]:
    """The inverse of `reference`: where, and the name."""
    where, _, name = text[len(REFERENCE) :].partition(":")
    return where, name
