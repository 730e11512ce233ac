"""Where an app has a Redis: what it told Celery, taken as kombu and Celery take it."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from celery import Celery
from kombu.transport.redis import Channel, SentinelChannel

from multiagents.address import Kind
from multiagents.exceptions import ConfigurationError
from multiagents.orchestrator.addresses import backend_address, broker_address
from multiagents.orchestrator.runtime import Runtime
from multiagents.redis import pool_of

CA = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca.pem"}
MAIN = {"master_name": "main"}
RABBIT = "amqp://guest@127.0.0.1//"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MULTIAGENTS_REDIS_URL", "MULTIAGENTS_KEY_PREFIX", "CELERY_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)


def app_of(broker: Any, **conf: Any) -> Celery:
    app = Celery("addresses", set_as_current=False)
    app.conf.update(conf, broker_url=broker)
    return app


def what_kombu_connects_to(app: Celery) -> dict[str, Any]:
    """The arguments that kombu's own channel would give to redis-py; it is made, and not connected."""
    connection: Any = app.connection_for_write()
    sentinel = connection.transport_cls == "sentinel"
    kind: Any = SentinelChannel if sentinel else Channel
    channel = kind.__new__(kind)
    channel.connection = connection.transport
    for name, value in connection.transport_options.items():
        if name in kind.from_transport_options:
            setattr(channel, name, value)
    arguments: dict[str, Any] = channel._connparams()
    if sentinel:
        channel._registered = False
        pool = channel._sentinel_managed_pool()
        arguments["master"] = pool.service_name
        found = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
        arguments["sentinels"] = [(each["host"], each["port"]) for each in found]
    return arguments


@pytest.mark.parametrize(
    ("broker", "conf"),
    [
        ("redis://", {}),
        ("redis://cache", {}),
        ("redis://cache:7000/3", {}),
        ("redis://ann:p%40ss%3A%2F@cache/1", {}),
        ("redis://:pass@cache/1", {}),
        ("redis://cache/1", {"broker_user": "ann", "broker_password": "pass"}),
        ("redis://cache/1", {"broker_use_ssl": CA}),
        ("redis://cache/1", {"broker_use_ssl": {"ssl_cert_reqs": ssl.CERT_NONE}}),
        ("rediss://cache/1", {"broker_use_ssl": CA}),
        ("rediss://cache/1", {}),
        ("rediss://cache/1?ssl_cert_reqs=CERT_NONE", {}),
        ("rediss://cache/1?ssl_cert_reqs=none", {"broker_use_ssl": CA}),
        ("rediss://cache/1?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem&ssl_check_hostname=false", {}),
        ("redis://cache/1?ssl_cert_reqs=optional", {}),
        (
            "redis://cache/1",
            {"broker_transport_options": {"socket_timeout": 7, "socket_connect_timeout": 3, "visibility_timeout": 60}},
        ),
        ("redis://cache/1", {"broker_transport_options": {"client_name": "shop", "socket_keepalive": True}}),
        ("redis+socket:///run/redis.sock", {}),
        ("redis+socket:///run/redis.sock?virtual_host=3", {}),
        ("redis+socket://:pass@/run/redis.sock", {}),
        ("redis://first/1;redis://second/2", {}),
        (["redis://first/1", "redis://second/2"], {}),
        ("sentinel://a/2;sentinel://b:7001", {"broker_transport_options": MAIN}),
        ("sentinel://a:7000", {"broker_transport_options": MAIN}),
        ("sentinel://ann:pass@a;sentinel://b", {"broker_transport_options": MAIN}),
        ("sentinel://a;sentinel://b", {"broker_transport_options": MAIN, "broker_use_ssl": CA}),
    ],
)
def test_runs_live_where_kombu_connects_to(broker: Any, conf: dict[str, Any]):
    app = app_of(broker, **conf)
    kombu = what_kombu_connects_to(app)

    ours: Any = pool_of(Runtime(app).address)

    said = ours.connection_kwargs
    if "sentinels" in kombu:
        asked = [each.connection_pool.connection_kwargs for each in ours.sentinel_manager.sentinels]
        assert [(each["host"], each["port"]) for each in asked] == kombu["sentinels"]
        assert ours.service_name == kombu["master"]
    else:
        assert all(said.get(name) == kombu.get(name) for name in ("host", "port", "path"))
    # kombu 5.5 leaves out the name of the client.
    named = [name for name in ("client_name",) if name in Channel.from_transport_options]
    for name in ("db", "username", "password", "socket_timeout", "socket_connect_timeout", *named):
        assert said.get(name) == kombu.get(name), name
    assert ("SSL" in ours.connection_class.__name__) is ("SSL" in kombu["connection_class"].__name__)
    for name in ("ssl_ca_certs", "ssl_check_hostname"):
        assert said.get(name) == kombu.get(name), name
    if "ssl_cert_reqs" in kombu:
        assert said["ssl_cert_reqs"] == ssl.VerifyMode(kombu["ssl_cert_reqs"]).name.removeprefix("CERT_").lower()


def test_a_result_backend_is_taken_with_its_own_options():
    app = app_of(
        RABBIT,
        result_backend="sentinel://:pass@a/3;sentinel://b/3",
        result_backend_transport_options={**MAIN, "global_keyprefix": "team:", "sentinel_kwargs": {"password": "s"}},
        redis_backend_use_ssl=CA,
    )

    runtime = Runtime(app)

    assert str(runtime.address) == "sentinel://a:26379/3?master_name=main;sentinel://b:26379"
    assert runtime.address.tls == {"ssl_cert_reqs": "required", "ssl_ca_certs": "/ca.pem"}
    assert runtime.address.sentinel_options == {"password": "s"}
    assert runtime.keys.prefix == "team:ma"


@pytest.mark.parametrize(
    ("broker", "backend"), [(RABBIT, None), (RABBIT, "rpc://"), (RABBIT, "db+sqlite:///x"), ("sqs://", "file:///x")]
)
def test_a_broker_or_backend_of_another_kind_is_no_redis(broker: str, backend: str | None):
    conf = app_of(broker, result_backend=backend).conf

    assert (broker_address(conf), backend_address(conf)) == (None, None)


def test_an_url_of_its_own_that_is_the_brokers_database_need_not_repeat_the_brokers_options():
    app = app_of(
        "sentinel://:pass@a/0;sentinel://b",
        multiagents_redis_url="sentinel://b/0;sentinel://a",
        broker_use_ssl=CA,
        broker_transport_options={**MAIN, "global_keyprefix": "team:", "socket_timeout": 9},
    )

    runtime = Runtime(app)

    assert (runtime.address.master, runtime.address.password) == ("main", "pass")
    assert (runtime.address.tls or {})["ssl_ca_certs"] == "/ca.pem"
    assert runtime.address.options == {"socket_timeout": 9.0}
    assert runtime.keys.prefix == "team:ma"
    assert runtime.dispatcher.atomic


def test_an_url_of_its_own_elsewhere_has_nothing_of_the_broker():
    app = app_of(
        "redis://:pass@cache/0",
        multiagents_redis_url="redis://cache/1",
        broker_use_ssl=CA,
        broker_transport_options={"global_keyprefix": "team:", "socket_timeout": 9},
    )

    runtime = Runtime(app)

    assert (runtime.address.password, runtime.address.tls, runtime.address.options) == (None, None, {})
    assert runtime.keys.prefix == "ma"
    assert not runtime.dispatcher.atomic


@pytest.mark.parametrize(
    ("given", "options", "expected"),
    [
        (None, {}, "ma"),
        (None, {"global_keyprefix": "team:"}, "team:ma"),
        ("team:runs", {"global_keyprefix": "team:"}, "team:runs"),
        ("shop", {}, "shop"),
    ],
)
def test_keys_begin_with_the_brokers_prefix_unless_one_is_set(
    given: str | None, options: dict[str, Any], expected: str
):
    runtime = Runtime(app_of("redis://cache/0", multiagents_key_prefix=given, broker_transport_options=options))

    assert runtime.keys.prefix == runtime.settings.key_prefix == expected


def test_a_prefix_of_the_broker_that_keys_cannot_begin_with_is_refused_with_what_to_set():
    runtime = Runtime(app_of("redis://cache/0", broker_transport_options={"global_keyprefix": "{team}"}))

    with pytest.raises(ConfigurationError, match=r"global_keyprefix is '\{team\}'.*set multiagents_key_prefix"):
        _ = runtime.keys


def test_sentinels_without_a_master_s_name_are_refused_with_what_to_set():
    with pytest.raises(ConfigurationError, match=r"broker_url names Sentinels, and not the master.*master_name"):
        _ = Runtime(app_of("sentinel://a;sentinel://b")).address


@pytest.mark.parametrize(
    ("broker", "store", "atomic"),
    [
        ("redis://cache/0", None, True),
        ("redis+socket:///run/r.sock", None, True),
        ("redis+socket:///run/r.sock?virtual_host=1", "unix:///run/r.sock?db=1", True),
        ("sentinel://a;sentinel://b", None, True),
        ("redis://cache/0;redis://other/0", None, False),
        ("redis://cache/0", "redis://cache/1", False),
        (RABBIT, "redis://cache/1", False),
    ],
)
def test_commits_push_messages_only_where_the_broker_is_surely_the_runs_own_database(
    broker: str, store: str | None, atomic: bool
):
    runtime = Runtime(app_of(broker, multiagents_redis_url=store, broker_transport_options=MAIN))

    assert runtime.dispatcher.atomic is atomic


def test_without_a_broker_in_use_runs_are_in_memory():
    assert Runtime(app_of("redis://cache/0", task_always_eager=True)).address.kind is Kind.MEMORY
