"""Settings: where they are read from, which of them wins, and what is said about a wrong one."""

from __future__ import annotations

import logging
import pickle
import sys
from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from celery import Celery

from multiagents.exceptions import ConfigurationError
from multiagents.settings import Settings

KEY = bytes(range(16))
OLD = b"\xff" + KEY[1:]
LIMITS = (
    'a dict of models, or patterns such as "gemini/*", each with numbers above 0 for some of '
    '{"requests_per_minute": 60, "tokens_per_minute": 100000, "concurrency": 8}'
)
PRICES = (
    'a dict of models, or patterns such as "gemini/*", each with dollars for a million tokens, '
    '{"input": 0.3, "output": 2.5}'
)


def load(conf: Any = None, environ: dict[str, str] | None = None, **overrides: Any) -> Settings:
    return Settings.load(conf or {}, environ or {}, overrides)


def test_without_any_setting_the_documented_defaults_hold():
    settings = load()

    assert settings == Settings()
    assert (settings.lease, settings.max_lost, settings.sweep_interval) == (30, 5, 1)
    assert (settings.retention, settings.step_timeout, settings.schedule_to_start) == (7 * 86400, 3600, 300)
    assert (settings.redis_url, settings.queue, settings.orchestrator_queue) == (None, None, None)
    assert (settings.key_prefix, settings.partitions, settings.orchestration) == (None, 1, "inline")
    assert settings.lean_qos is True


def test_the_argument_wins_over_the_app_and_the_app_over_the_environment():
    environ = {"MULTIAGENTS_LEASE": "10", "MULTIAGENTS_MAX_LOST": "7", "MULTIAGENTS_PARTITIONS": "2"}
    conf = {"multiagents_lease": 20, "multiagents_max_lost": 8}

    settings = load(conf, environ, lease=40)

    assert (settings.lease, settings.max_lost, settings.partitions) == (40, 8, 2)


def test_an_argument_may_have_the_long_name():
    assert load(multiagents_lease=12).lease == 12


def test_settings_do_not_change_and_travel_to_other_processes():
    settings = load(lease=12)

    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(FrozenInstanceError):
        settings.lease = 1  # type: ignore[misc]


# --- from a Celery app, in every way that people configure one


def module(name: str, **values: Any) -> str:
    made = ModuleType(name)
    vars(made).update(values)
    sys.modules[name] = made
    return name


def test_a_celery_app_gives_what_is_set_on_its_conf():
    app = Celery("shop", broker="redis://localhost/0")
    app.conf.multiagents_lease = 11
    app.conf.update(multiagents_orchestration="queued")

    settings = load(app.conf)

    assert (settings.lease, settings.orchestration) == (11, "queued")


def test_a_celery_app_gives_what_was_passed_to_its_constructor():
    assert load(Celery("shop", multiagents_lease=11).conf).lease == 11


def test_a_celery_app_gives_what_is_in_its_configuration_module():
    app = Celery("shop")
    app.config_from_object(module("settings_plain", broker_url="redis://x", multiagents_lease=11))

    assert load(app.conf).lease == 11


def test_a_configuration_module_may_use_upper_case():
    app = Celery("shop")
    app.config_from_object(module("settings_upper", MULTIAGENTS_LEASE=11))

    assert load(app.conf).lease == 11


@pytest.mark.parametrize("namespace", ["CELERY", "SHOP"])
def test_under_a_namespace_the_name_starts_with_it_as_in_django(namespace: str):
    values = {f"{namespace}_BROKER_URL": "redis://x", f"{namespace}_MULTIAGENTS_LEASE": 11, "DEBUG": True}
    app = Celery("shop")
    app.config_from_object(module("settings_namespace", **values), namespace=namespace)

    assert load(app.conf).lease == 11


def test_what_is_set_on_the_conf_wins_over_the_configuration_module():
    app = Celery("shop")
    app.config_from_object(module("settings_both", CELERY_MULTIAGENTS_LEASE=11), namespace="CELERY")
    app.conf.multiagents_lease = 12

    assert load(app.conf).lease == 12


def test_reading_the_settings_leaves_the_app_open_for_more_configuration():
    app = Celery("shop")
    assert load(app.conf).lease == 30

    app.config_from_object(module("settings_late", multiagents_lease=11, task_default_queue="late"))

    assert load(app.conf).lease == 11
    assert app.conf.task_default_queue == "late"


def test_none_and_an_empty_environment_variable_mean_not_set():
    settings = load({"multiagents_lease": None}, {"MULTIAGENTS_LEASE": "12", "MULTIAGENTS_QUEUE": " "}, max_lost=None)

    assert (settings.lease, settings.queue, settings.max_lost) == (12, None, 5)


# --- names that are not known


def test_an_unknown_name_on_the_app_is_an_error_that_suggests_the_nearest():
    with pytest.raises(ConfigurationError, match='"multiagents_leese" is not known; did you mean "multiagents_lease"'):
        load({"multiagents_leese": 3})


def test_an_unknown_name_under_a_namespace_is_an_error_too():
    app = Celery("shop")
    app.config_from_object(module("settings_typo", CELERY_MULTIAGENTS_LEESE=3), namespace="CELERY")

    with pytest.raises(ConfigurationError, match='"CELERY_MULTIAGENTS_LEESE" is not known; did you mean'):
        load(app.conf)


def test_an_unknown_argument_is_an_error():
    with pytest.raises(ConfigurationError, match='"leese" is not known; did you mean "multiagents_lease"'):
        load(leese=3)


def test_unknown_names_in_the_environment_only_warn(caplog: pytest.LogCaptureFixture):
    environ = {"MULTIAGENTS_PORT": "tcp://10.0.0.1:80", "MULTIAGENTS_LEESE": "3", "MULTIAGENTS_LEASE": "12"}

    with caplog.at_level(logging.WARNING):
        settings = load({}, environ)

    assert settings.lease == 12
    assert len(caplog.messages) == 1
    assert 'MULTIAGENTS_LEESE; did you mean "MULTIAGENTS_LEASE"?' in caplog.messages[0]
    assert "MULTIAGENTS_PORT" in caplog.messages[0]


def test_names_of_the_tests_and_of_others_do_not_even_warn(caplog: pytest.LogCaptureFixture):
    load(
        {"broker_url": "redis://x"}, {"MULTIAGENTS_TEST_SERVER": "redis", "MULTIAGENTS_BENCH_URL": "x", "PATH": "/bin"}
    )

    assert caplog.messages == []


# --- values


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("redis_url", "rediss://:secret@db.example:6380/3", "rediss://:secret@db.example:6380/3"),
        ("redis_url", "unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("key_prefix", "shop-1:eu", "shop-1:eu"),
        ("partitions", "16", 16),
        ("orchestration", "queued", "queued"),
        ("lease", "2.5", 2.5),
        ("lease", timedelta(minutes=1), 60.0),
        ("max_lost", 1, 1),
        ("sweep_interval", 0.5, 0.5),
        ("retention", timedelta(days=1), 86400.0),
        ("step_timeout", 0, 0.0),
        ("schedule_to_start", "1", 1.0),
        ("max_payload_bytes", "1000", 1000),
        ("claim_check_bytes", 1e6, 1_000_000),
        ("claim_check_store", "rediss://:secret@blobs:6380/3", "rediss://:secret@blobs:6380/3"),
        ("claim_check_store", "shop.payloads.Bucket", "shop.payloads.Bucket"),
        ("payload_codec", "gzip, aes-gcm", ("gzip", "aes-gcm")),
        ("payload_codec", ["shop.payloads.Codec"], ("shop.payloads.Codec",)),
        ("payload_decode", "gzip", ("gzip",)),
        (
            "encryption_keys",
            "2026:AAECAwQFBgcICQoLDA0ODw==,2025:_wECAwQFBgcICQoLDA0ODw==",
            (("2026", KEY), ("2025", OLD)),
        ),
        ("encryption_keys", {"2026": KEY, "2025": OLD}, (("2026", KEY), ("2025", OLD))),
        ("redact", "*password*, pin", ("*password*", "pin")),
        ("redact", ["pin"], ("pin",)),
        ("queue", "orders.eu", "orders.eu"),
        ("orchestrator_queue", "sagas", "sagas"),
        ("lean_qos", "off", False),
        ("lean_qos", 1, True),
        ("lm_limits", {"*": {"concurrency": 8}}, {"*": {"concurrency": 8.0}}),
        ("lm_prices", {"gemini/*": {"input": "0.3", "output": 2}}, {"gemini/*": {"input": 0.3, "output": 2.0}}),
        ("lm_prices", '{"gemini/*": {"input": 0.3, "output": 2}}', {"gemini/*": {"input": 0.3, "output": 2.0}}),
        ("start_priority", "6", 6),
        ("start_priority", 0, 0),
    ],
)
def test_a_good_value_is_taken_in_each_of_its_forms(name: str, given: Any, kept: Any):
    settings = load(**{name: given})

    assert getattr(settings, name) == kept
    assert type(getattr(settings, name)) is type(kept)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("key_prefix", "{ma}", "1 to 64 characters of A-Z a-z 0-9 . _ : -"),
        ("partitions", 0, "a whole number of at least 1, at most 1,024"),
        ("partitions", 1.5, "a whole number of at least 1, at most 1,024"),
        ("partitions", timedelta(seconds=2), "a whole number of at least 1, at most 1,024"),
        ("orchestration", "inlined", '"inline" or "queued"'),
        ("lease", "soon", "a number of seconds of at least 1, at most 86,400"),
        ("lease", 0.5, "a number of seconds of at least 1, at most 86,400"),
        ("lease", float("nan"), "a number of seconds of at least 1, at most 86,400"),
        ("lease", True, "a number of seconds of at least 1, at most 86,400"),
        ("lease", [30], "a number of seconds of at least 1, at most 86,400"),
        ("max_lost", 0, "a whole number of at least 1, at most 1,000"),
        ("sweep_interval", 0, "a number of seconds greater than 0, at most 3,155,760,000"),
        ("retention", -1, "a number of seconds greater than 0, at most 3,155,760,000"),
        ("step_timeout", -1, "a number of seconds of at least 0, at most 3,155,760,000"),
        ("schedule_to_start", 0, "a number of seconds greater than 0, at most 3,155,760,000"),
        ("max_payload_bytes", "10 MB", "a number of bytes of at least 1, at most 268,435,456"),
        ("claim_check_bytes", 0, "a number of bytes of at least 1, at most 268,435,456"),
        (
            "payload_codec",
            5,
            'codecs: "gzip", "aes-gcm", dotted paths or objects with encode and decode, one or a list',
        ),
        ("redact", [5], 'patterns of keys such as "*password*", one or a list'),
        ("queue", "two words", "the name of a queue, without spaces"),
        ("orchestrator_queue", 5, "the name of a queue, without spaces"),
        ("lean_qos", "maybe", "true or false"),
        ("lm_prices", {"gemini/*": 3}, PRICES),
        ("lm_prices", {"gemini/*": {"input": 3}}, PRICES),
        ("lm_prices", {"gemini/*": {"input": 3, "output": -1}}, PRICES),
        ("lm_prices", "gemini=3", PRICES),
        ("lm_limits", {"gemini/*": 3}, LIMITS),
        ("lm_limits", {"gemini/*": {}}, LIMITS),
        ("lm_limits", {"gemini/*": {"tokens": 3}}, LIMITS),
        ("lm_limits", {"gemini/*": {"tokens_per_minute": 0}}, LIMITS),
        ("lm_limits", {"gemini/*": {"concurrency": 1.5}}, LIMITS),
        ("start_priority", 10, "a whole number from 0 to 9"),
        ("start_priority", 2.5, "a whole number from 0 to 9"),
        ("start_priority", True, "a whole number from 0 to 9"),
    ],
)
def test_a_wrong_value_is_an_error_that_says_what_was_expected(name: str, given: Any, expected: str):
    with pytest.raises(ConfigurationError) as caught:
        load({f"multiagents_{name}": given})

    assert str(caught.value) == f"multiagents_{name} must be {expected}, got {given!r}"


def test_a_wrong_value_in_the_environment_is_named_as_it_is_spelled_there():
    with pytest.raises(ConfigurationError, match=r"^MULTIAGENTS_LEASE must be .* got 'soon'$"):
        load({}, {"MULTIAGENTS_LEASE": "soon"})


def test_an_error_about_a_url_does_not_show_its_password():
    with pytest.raises(ConfigurationError) as caught:
        load(redis_url="http://:hunter2@localhost/0")

    assert "hunter2" not in str(caught.value)


def test_a_sweep_that_is_too_slow_for_the_lease_is_an_error():
    with pytest.raises(ConfigurationError, match=r"at most a third of multiagents_lease \(6 s\), got 2.5"):
        load(lease=6, sweep_interval=2.5)


def test_a_short_lease_makes_the_default_sweep_quicker():
    assert load(lease=1.5).sweep_interval == 0.25


def test_every_setting_has_a_rule_and_a_default_that_keeps_it():
    for field in fields(Settings):
        if field.default is not None:
            assert load(**{field.name: field.default}) == Settings()
        with pytest.raises(ConfigurationError):
            load(**{field.name: object()})


@pytest.mark.parametrize(
    "name", [one.name for one in fields(Settings) if "float" in str(one.type) or "int" in str(one.type)]
)
@pytest.mark.parametrize("given", [1e300, 10**400, float("inf"), -1e300, "1e999"])
def test_every_number_is_bounded(name: str, given: Any):
    with pytest.raises(ConfigurationError, match=f"multiagents_{name} must be a"):
        load({f"multiagents_{name}": given})
