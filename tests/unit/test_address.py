"""Where a server is: each spelling is one value, and no secret of it is in any text."""

from __future__ import annotations

import dataclasses
import inspect
import ssl
from typing import Any

import pytest
import redis

from multiagents.address import TLS_OPTIONS, Address, Kind
from multiagents.exceptions import ConfigurationError
from multiagents.redis import pool_of

SECRETS = ("pa55word", "s3ntinel", "key-pa55")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", "redis://127.0.0.1:6379/0"),
        ("redis://cache", "redis://cache:6379/0"),
        ("redis://ann:pa55word@cache:7000/3", "redis://cache:7000/3"),
        ("redis://cache?db=4", "redis://cache:6379/4"),
        ("REDIS://cache/1", "redis://cache:6379/1"),
        ("redis://[::1]:7000/1", "redis://[::1]:7000/1"),
        ("rediss://cache/2", "rediss://cache:6379/2"),
        ("redis://cache/2?ssl_cert_reqs=none", "rediss://cache:6379/2"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("unix://:pa55word@/run/redis.sock", "unix:///run/redis.sock?db=0"),
        ("redis+socket:///run/redis.sock?virtual_host=2", "unix:///run/redis.sock?db=2"),
        ("sentinel://a?master_name=main", "sentinel://a:26379/0?master_name=main"),
        (
            "sentinel://:pa55word@a/1?master_name=main;sentinel://b:7001/1",
            "sentinel://a:26379/1?master_name=main;sentinel://b:7001",
        ),
        ("memory://", "memory://"),
    ],
)
def test_each_spelling_is_shown_as_a_url_that_is_the_same_place(url: str, expected: str):
    address = Address.parse(url)

    assert str(address) == expected
    assert str(Address.parse(expected)) == expected


@pytest.mark.parametrize("spelling", ["none", "NONE", "CERT_NONE", "cert_none", ssl.CERT_NONE, 0, None])
def test_whether_certificates_are_checked_is_spelled_in_many_ways(spelling: Any):
    in_options = Address.parse("redis://cache", tls={"ssl_cert_reqs": spelling, "ssl_ca_certs": "/ca.pem"})

    # An option that is None is not given at all: then it is what redis-py does by itself.
    assert in_options.tls == {"ssl_ca_certs": "/ca.pem"} | ({} if spelling is None else {"ssl_cert_reqs": "none"})
    if isinstance(spelling, str):
        assert Address.parse(f"rediss://cache?ssl_cert_reqs={spelling}").tls == {"ssl_cert_reqs": "none"}


def test_every_option_of_tls_that_the_client_has_is_known():
    theirs = set(inspect.signature(redis.SSLConnection.__init__).parameters)

    assert {name for name in theirs if name.startswith("ssl_")} <= set(TLS_OPTIONS)


def test_an_option_of_tls_that_the_installed_client_is_too_old_for_is_refused_by_its_name():
    address = dataclasses.replace(Address.parse("rediss://cache"), tls={"ssl_of_tomorrow": True})

    with pytest.raises(ConfigurationError, match=f"redis-py {redis.__version__}.*ssl_of_tomorrow"):
        pool_of(address)


def test_a_pool_has_what_the_address_says():
    url = (
        "rediss://ann:p%40ss@cache:7000/3?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem"
        "&ssl_check_hostname=false&ssl_min_version=TLSv1_3&socket_timeout=9&health_check_interval=5&client_name=shop"
        "&socket_keepalive=yes&retry_on_timeout=true"
    )

    connection: Any = pool_of(Address.parse(url)).make_connection()

    assert isinstance(connection, redis.SSLConnection)
    assert (connection.host, connection.port, connection.db) == ("cache", 7000, 3)
    assert (connection.username, connection.password, connection.client_name) == ("ann", "p@ss", "shop")
    assert (connection.ca_certs, connection.certfile, connection.keyfile) == ("/ca.pem", "/c.pem", "/k.pem")
    assert (connection.cert_reqs, connection.check_hostname) == (ssl.CERT_REQUIRED, False)
    assert connection.ssl_min_version is ssl.TLSVersion.TLSv1_3
    assert (connection.socket_timeout, connection.health_check_interval) == (9, 5)


def test_a_pool_behind_sentinels_has_the_master_s_credentials_and_other_ones_for_the_sentinels():
    url = (
        "sentinel://ann:pa55word@a/2?master_name=main&sentinel_username=watch&sentinel_password=s3ntinel"
        "&min_other_sentinels=1;sentinel://b:7001"
    )

    pool: Any = pool_of(Address.parse(url), socket_timeout=1)

    assert pool.service_name == "main"
    assert pool.sentinel_manager.min_other_sentinels == 1
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["db"]) == ("ann", 2)
    asked = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
    assert [(each["host"], each["port"]) for each in asked] == [("a", 26379), ("b", 7001)]
    assert [(each["username"], each["password"]) for each in asked] == [("watch", "s3ntinel")] * 2


class Rotating(redis.CredentialProvider):
    """Credentials that change, as a cloud has them."""

    def get_credentials(self) -> tuple[str, str]:
        """Today's."""
        return "ann", "pa55word"


def test_credentials_come_from_a_provider_by_its_path_or_by_itself():
    by_path = Address.parse(f"redis://ann:old@cache?credential_provider={__name__}:Rotating")
    itself = Address.parse("redis://cache", options={"credential_provider": Rotating()})

    for address in (by_path, itself):
        connection: Any = pool_of(address).make_connection()
        assert isinstance(connection.credential_provider, Rotating)
        assert (connection.username, connection.password) == (None, None)
    with pytest.raises(ConfigurationError, match=r"a str; expected|cannot be imported"):
        pool_of(Address.parse("redis://cache?credential_provider=no.such.provider"))


@pytest.mark.parametrize(
    "url",
    [
        "redis://ann:pa55word@cache/shop",
        "redis://:pa55word/@cache/0",
        "redis://:pa55word#@cache/0",
        "redis://:#pa55word@cache/0",
        "redis://:/pa55word@cache/0",
        "redis://ann/pa55word@cache/0",
        "redis://:pa55word?@cache/0",
        "redis://:pa55word[@cache/0",
        "redis://:pa55word@cache:port/0",
        "redis:/:pa55word@cache",
        "http://:pa55word@cache",
        "rediss://:pa55word@cache?ssl_cert_reqs=sometimes",
        "rediss://:pa55word@cache?ssl_password=key-pa55&cert_reqs=none",
        "sentinel://:pa55word@a/0?sentinel_password=s3ntinel;sentinel://b/1",
        "redis://:pa55word@a/0;redis://:pa55word@b/0",
        "sentinel://:pa55word@a/0?sentinel_password=s3ntinel",
    ],
)
def test_no_error_shows_a_secret(url: str):
    with pytest.raises(ConfigurationError) as caught:
        Address.parse(url, "multiagents_redis_url").checked("multiagents_redis_url")

    assert "multiagents_redis_url" in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_no_text_of_an_address_shows_a_secret():
    address = Address.parse(
        "sentinel://ann:pa55word@a/0?master_name=main&sentinel_password=s3ntinel&ssl_password=key-pa55"
    )

    for text in (str(address), repr(address), f"{address}", repr([address])):
        assert not any(secret in text for secret in SECRETS)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("amqp://localhost", r"must be a URL that begins redis://.* this one begins 'amqp'"),
        (
            "rediss://cache?ssl_cert_req=none",
            r'option \'ssl_cert_req\' that is not known; did you mean "ssl_cert_reqs"',
        ),
        ("redis://cache?socket_timeout=soon", r"option 'socket_timeout' with a value that is none: 'soon'"),
        ("sentinel://a;sentinel://b/2", r"names the databases 0 and 2; name one, at the first URL"),
        ("sentinel://a/0", r"and not the master to ask them for; say it in the URL: .*\?master_name=mymaster"),
        ("redis://a;redis://b", r"names 2 servers, and runs live in one"),
    ],
)
def test_what_cannot_be_used_is_said_in_words(url: str, words: str):
    with pytest.raises(ConfigurationError, match=words):
        Address.parse(url).checked("the URL")


@pytest.mark.parametrize(
    ("own", "broker", "expected"),
    [
        ("redis://cache", "redis://cache", None),
        ("redis://cache", "rediss://cache?ssl_cert_reqs=none", {"ssl_cert_reqs": "none"}),
        ("rediss://cache", "rediss://cache?ssl_cert_reqs=none&ssl_certfile=/c", {"ssl_certfile": "/c"}),
        ("rediss://cache", "rediss://cache?ssl_ca_certs=/ca", {"ssl_ca_certs": "/ca"}),
        ("rediss://cache?ssl_cert_reqs=none", "rediss://cache", {"ssl_cert_reqs": "none"}),
        ("rediss://cache?ssl_ca_certs=/own", "rediss://cache?ssl_ca_certs=/ca", {"ssl_ca_certs": "/own"}),
    ],
)
def test_who_asks_for_tls_has_certificates_checked_unless_he_says_otherwise_himself(
    own: str, broker: str, expected: dict[str, Any] | None
):
    assert Address.parse(own).completed_by(Address.parse(broker)).tls == expected


SENTINELS = "sentinel://a;sentinel://b/0"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("redis://localhost/1", "redis://127.0.0.1:6379/1", True),
        ("redis://ann:pa55word@cache/1", "redis://cache/1", True),
        ("redis://cache/1?ssl_cert_reqs=none", "rediss://cache/1", True),
        ("redis://cache/1", "redis://cache/2", False),
        ("redis://cache/1", "redis://cache:7000/1", False),
        ("redis://cache/1", "redis://other/1", False),
        ("redis://cache/1", "redis://cache/1;redis://other/1", False),
        ("unix:///run/r.sock?db=1", "redis+socket:///run/r.sock?virtual_host=1", True),
        ("unix:///run/r.sock?db=1", "redis+socket:///run/r.sock?db=1", False),
        ("unix:///run/r.sock", "redis://localhost/0", False),
        (f"{SENTINELS}?master_name=main", "sentinel://b?master_name=main;sentinel://c", True),
        (f"{SENTINELS}?master_name=main", f"{SENTINELS}?master_name=other", False),
        (f"{SENTINELS}?master_name=main", SENTINELS, True),
        (f"{SENTINELS}?master_name=main", "sentinel://c?master_name=main", False),
        ("memory://", "memory://", False),
    ],
)
def test_two_addresses_are_one_database_only_if_both_say_so(first: str, second: str, same: bool):
    one, other = Address.parse(first), Address.parse(second)

    assert one.is_same_database(other) is other.is_same_database(one) is same


def test_an_address_takes_from_another_only_what_it_does_not_say_itself():
    own = Address.parse("sentinel://a/0?socket_timeout=1")
    broker = Address.parse(
        "sentinel://:pa55word@a/0",
        tls={"ssl_ca_certs": "/ca.pem"},
        options={"master_name": "main", "socket_timeout": 9, "client_name": "shop", "global_keyprefix": "team:"},
    )

    both = own.completed_by(broker)

    assert (both.master, both.password, both.key_prefix) == ("main", "pa55word", "team:")
    assert (both.tls, both.options) == ({"ssl_ca_certs": "/ca.pem"}, {"socket_timeout": 1.0, "client_name": "shop"})
    assert Address.parse("redis://ann@cache").completed_by(Address.parse("redis://bob:pa55word@cache")).password is None
    assert both.kind is Kind.SENTINEL
