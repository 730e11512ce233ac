"""Codecs, envelopes, redaction, and what the settings make of them."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiagents.exceptions import ConfigurationError, DecodeError
from multiagents.settings import Settings
from multiagents.state_store.payloads import PayloadPolicy, Writing, dumps, has_marks, policy_of
from multiagents.state_store.payloads.archives import HistoryArchive
from multiagents.state_store.payloads.archives.file import FileArchive
from multiagents.state_store.payloads.codecs import PayloadCodec
from multiagents.state_store.payloads.codecs.cryptography import AESGCMCodec
from multiagents.state_store.payloads.codecs.gzip import GzipCodec
from multiagents.state_store.payloads.envelope import parse_reference, reference, seal, unseal
from multiagents.state_store.payloads.offload import PayloadStore
from multiagents.state_store.payloads.offload.memory import InMemoryPayloadStore
from multiagents.state_store.payloads.offload.redis import RedisPayloadStore
from multiagents.state_store.payloads.redaction import redactor

KEY = "bWluZSBpcyBhIGtleSBvZiB0aGlydHktdHdvIGJ5dGU="
AES = AESGCMCodec({"2026": b"k" * 32})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
CODECS = st.lists(st.sampled_from([GzipCodec(least=0), GzipCodec(least=50), AES]), max_size=3)


class OwnCodec:
    name = "own"

    def encode(self, data: bytes) -> bytes:
        return data

    def decode(self, data: bytes) -> bytes:
        raise ValueError("it is broken")


OWN = OwnCodec()


# --- envelopes -------------------------------------------------------------------------------------------------------


@given(JSON, CODECS)
def test_a_value_comes_out_of_its_envelope_as_it_went_in(value: Any, codecs: list[PayloadCodec]) -> None:
    text = dumps(value)

    sealed = seal(text, codecs)

    assert unseal(sealed, {codec.name: codec for codec in codecs}) == text
    assert has_marks([sealed]) is (sealed != text)


@given(JSON)
def test_no_json_looks_like_an_envelope(value: Any) -> None:
    assert not has_marks([dumps(value), None])


@given(st.text(max_size=60))
def test_whatever_else_stands_there_is_named_and_never_a_surprise(tail: str) -> None:
    try:
        unseal(f"!{tail}", {"gzip": GzipCodec(), "aes-gcm": AES})
    except DecodeError:
        pass


def test_a_text_that_is_no_unicode_survives() -> None:
    assert unseal(seal('"\ud800"', [GzipCodec(least=0)]), {"gzip": GzipCodec()}) == '"\ud800"'


def test_a_reference_says_where_and_what() -> None:
    assert parse_reference(reference("run", "a1")) == ("run", "a1")
    assert unseal(reference("run", "a1"), {}) == reference("run", "a1")


def test_what_a_codec_raises_is_named() -> None:
    with pytest.raises(DecodeError, match=r'cannot be read by the codec "own": ValueError: it is broken'):
        unseal(seal("5", [OWN]), {"own": OWN})


# --- codecs ----------------------------------------------------------------------------------------------------------


def test_equal_values_are_not_equal_when_they_are_encrypted() -> None:
    assert len({AES.encode(b"4111") for _ in range(10)}) == 10


@pytest.mark.parametrize("position", range(50))
def test_a_changed_byte_is_noticed(position: int) -> None:
    sealed = bytearray(AES.encode(b"4111-1111-1111-1111"))
    sealed[position % len(sealed)] ^= 1

    with pytest.raises(DecodeError):
        AES.decode(bytes(sealed))


def test_another_key_under_the_same_id_is_told_from_a_missing_one() -> None:
    with pytest.raises(DecodeError, match=r'cannot be decrypted with the key "2026": it was changed in the store, or'):
        AESGCMCodec({"2026": b"x" * 32}).decode(AES.encode(b"4111"))


def test_small_values_are_not_compressed_and_large_ones_are() -> None:
    codec = GzipCodec()

    assert codec.encode(b"x" * 1023) is None
    assert len(codec.encode(b"x" * 1024) or b"") < 100


def test_what_is_not_compressed_is_no_surprise() -> None:
    with pytest.raises(DecodeError, match="cannot be decompressed"):
        GzipCodec().decode(b"nonsense")


# --- redaction -------------------------------------------------------------------------------------------------------


def test_keys_match_whole_and_whatever_their_case_at_any_depth() -> None:
    redact = redactor(["*Password*", "pin", "card_?"])
    assert redact is not None

    seen = redact({"a": ({"my_PASSWORD_2": {"x": 1}, "pins": 2, "PIN": 3},), "card_1": 4, "card_12": 5, 6: "pin"})

    hidden = "[redacted]"
    assert seen == {
        "a": [{"my_PASSWORD_2": hidden, "pins": 2, "PIN": hidden}],
        "card_1": hidden,
        "card_12": 5,
        6: "pin",
    }


def test_without_patterns_nobody_looks() -> None:
    assert redactor([]) is None


# --- settings --------------------------------------------------------------------------------------------------------


def test_without_settings_the_policy_is_the_plain_one() -> None:
    assert policy_of(Settings()) == PayloadPolicy()
    assert PayloadPolicy().claim_check_bytes == 256 * 1024


def test_codecs_come_by_their_short_names_and_keys_from_the_environment() -> None:
    environ = {"MULTIAGENTS_PAYLOAD_CODEC": "gzip, aes-gcm", "MULTIAGENTS_ENCRYPTION_KEYS": f"2026:{KEY},2025:{KEY}"}

    policy = policy_of(Settings.load({}, environ))

    assert [codec.name for codec in policy.codecs] == ["gzip", "aes-gcm"]
    assert policy.open(policy.seal("5")) == "5"


def test_codecs_and_stores_come_as_objects_classes_and_dotted_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shop_payloads", sys.modules[__name__])
    store = InMemoryPayloadStore()
    settings = Settings(
        payload_codec=[OWN, "shop_payloads.OwnCodec"],
        payload_decode="shop_payloads.OWN",
        claim_check_store=store,
        history_limit=0,
    )

    policy = policy_of(settings)

    assert [type(codec) for codec in policy.codecs] == [OwnCodec, OwnCodec]
    assert policy.readable == (OWN,)
    assert policy.history_limit is None
    assert policy.apart is store


def test_a_url_names_another_redis_for_what_is_large() -> None:
    policy = policy_of(Settings(claim_check_store="redis://:secret@blobs:6379/1"))

    assert isinstance(policy.apart, RedisPayloadStore)
    assert isinstance(policy.apart, PayloadStore)
    assert "secret" not in repr(Settings(claim_check_store="redis://:secret@blobs:6379/1"))


def test_older_events_go_to_a_folder(tmp_path: Path) -> None:
    for folder in (tmp_path, str(tmp_path)):
        policy = policy_of(Settings(history_archive=folder, history_limit="5"))

        assert isinstance(policy.archive, FileArchive)
        assert isinstance(policy.archive, HistoryArchive)
        assert [policy.is_too_long(events) for events in (5, 10, 11)] == [False, False, True]


def test_keys_are_read_with_as_long_as_they_are_there() -> None:
    keys = {"2026": KEY}
    sealed = policy_of(Settings(payload_codec="aes-gcm", encryption_keys=keys)).seal("5")

    assert policy_of(Settings(encryption_keys=keys)).open(sealed) == "5"
    with pytest.raises(DecodeError, match=r'the codec "aes-gcm", which is not set here \(gzip\)'):
        policy_of(Settings()).open(sealed)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"payload_codec": "aes-gcm"}, "needs a key: set multiagents_encryption_keys"),
        ({"payload_codec": "shop.nowhere.Codec"}, r"'shop.nowhere.Codec', which cannot be imported: No module named"),
        ({"payload_codec": "gzipp"}, r"'gzipp', which cannot be imported: .* or 'gzip' or 'aes-gcm'"),
        ({"payload_codec": "builtins.list"}, r"is no codec: expected an object with name, encode\(bytes\)"),
        ({"history_archive": "builtins.int"}, r"is no archive: expected an object with append and read"),
        ({"history_limit": 100}, r"multiagents_history_limit is 100, and multiagents_history_archive is not set"),
        ({"claim_check_store": "builtins.list"}, r"is no payload store: expected an object with name, put, get"),
    ],
)
def test_what_cannot_be_made_is_a_configuration_error(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        policy_of(Settings(**settings))


def test_without_its_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any) -> Any:
        if name.startswith("cryptography"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="cryptography")
        return real(name, *args)

    monkeypatch.delitem(sys.modules, "multiagents.state_store.payloads.codecs.cryptography")
    monkeypatch.setattr(builtins, "__import__", missing)

    with pytest.raises(ConfigurationError, match=r"pip install 'celery-multiagents\[encryption\]'"):
        policy_of(Settings(payload_codec="aes-gcm", encryption_keys={"2026": KEY}))


def test_an_error_about_keys_shows_none_of_them() -> None:
    for wrong in ("2026:c2hvcnQ=", {"a b": KEY}, {"2026": KEY[:-4]}, 5, "2026"):
        with pytest.raises(ConfigurationError) as caught:
            Settings(encryption_keys=wrong)
        assert "c2hvcnQ" not in str(caught.value)
        assert KEY[:-4] not in str(caught.value)
    assert "encryption_keys" not in repr(Settings(encryption_keys={"2026": KEY}))


# --- the cost of being off -------------------------------------------------------------------------------------------


def test_a_value_that_nothing_is_asked_of_goes_through_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("nobody asked for this")

    for name in ("seal", "unseal", "sha256"):
        monkeypatch.setattr(f"multiagents.state_store.payloads.policy.{name}", never)
    writing = Writing(PayloadPolicy())

    assert writing.value({"total": 5, "who": "Zoë"}) == '{"total":5,"who":"Zoë"}'
    assert PayloadPolicy().text({"why": 1}) == '{"why":1}'
    assert writing.blobs == {}


@pytest.mark.parametrize("name", ["error", "signals"])
def test_what_people_have_written_is_sealed_in_the_header_of_their_run_too(name: str) -> None:
    policy = PayloadPolicy(codecs=(GzipCodec(least=0),))

    stored = {"status": policy.header("status", "running"), name: policy.header(name, '["ann", "too dear"]')}

    assert stored["status"] == "running"
    assert "ann" not in stored[name]
    assert policy.fields(stored) == {"status": "running", name: '["ann", "too dear"]'}
