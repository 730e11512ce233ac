"""Where a Redis or Valkey is: every spelling that redis-py, kombu and Celery have for it, as one value.

=========================================== ==========================================================================
``redis://user:password@host:6379/0``       a server; ``?db=0`` says its database, too
``rediss://host:6379/0``                    a server with TLS; options: ``?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required``
``unix:///run/redis.sock?db=0``             a server of this machine; kombu: ``redis+socket:///run/redis.sock?virtual_host=0``
``sentinel://a:26379/0;sentinel://b:26379`` whichever server these Sentinels call the master: ``?master_name=mymaster``
``memory://``                               this process
=========================================== ==========================================================================

No secret is in a text that this module makes: not in ``str()``, not in ``repr()``, not in an error.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from multiagents.exceptions import ConfigurationError, did_you_mean

REDIS_PORT = 6379
SENTINEL_PORT = 26379


class Kind(Enum):
    """By what way a server is reached."""

    SERVER = "server"
    SOCKET = "socket"
    SENTINEL = "sentinel"
    MEMORY = "memory"


#: Scheme of a URL -> by what way, and the option that names the database where the path does not.
_SCHEMES = {
    "redis": (Kind.SERVER, "db"),
    "rediss": (Kind.SERVER, "db"),
    "unix": (Kind.SOCKET, "db"),
    # kombu and Celery read no other here; were `db` taken as well, store and broker would seem to be one.
    "redis+socket": (Kind.SOCKET, "virtual_host"),
    "sentinel": (Kind.SENTINEL, "db"),
    "memory": (Kind.MEMORY, "db"),
}
_EXAMPLES = "redis://host:6379/0, rediss://host:6379/0, unix:///run/redis.sock or sentinel://host:26379/0"


def _switch(value: Any) -> bool:
    return str(value).lower() not in ("0", "f", "false", "n", "no", "")


def _cert_reqs(value: Any) -> str:
    """``CERT_NONE``, ``none``, ``ssl.CERT_NONE``, ... as redis-py spells it."""
    word = value.lower() if isinstance(value, str) else ssl.VerifyMode(value or 0).name.lower()
    word = word.removeprefix("verifymode.").removeprefix("cert_")
    if word not in ("none", "optional", "required"):
        raise ValueError
    return word


def _tls_version(value: Any) -> ssl.TLSVersion:
    return ssl.TLSVersion[value] if isinstance(value, str) and not value.isdecimal() else ssl.TLSVersion(int(value))


def _verify_flags(value: Any) -> list[ssl.VerifyFlags]:
    names = value.strip("[]").split(",") if isinstance(value, str) else value
    return [ssl.VerifyFlags[name.strip()] if isinstance(name, str) else ssl.VerifyFlags(name) for name in names]


def _any(value: Any) -> Any:
    return value


#: Options of TLS, as redis-py names them, and what makes a value of a text.
TLS_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "ssl_ca_certs": _any,
    "ssl_ca_data": _any,
    "ssl_ca_path": _any,
    "ssl_cert_reqs": _cert_reqs,
    "ssl_certfile": _any,
    "ssl_check_hostname": _switch,
    "ssl_ciphers": _any,
    "ssl_exclude_verify_flags": _verify_flags,
    "ssl_include_verify_flags": _verify_flags,
    "ssl_keyfile": _any,
    "ssl_min_version": _tls_version,
    "ssl_ocsp_context": _any,
    "ssl_ocsp_expected_cert": _any,
    "ssl_password": _any,
    "ssl_validate_ocsp": _switch,
    "ssl_validate_ocsp_stapled": _switch,
}
#: Options of a connection, of a URL's query or among kombu's transport options.
OPTIONS: dict[str, Callable[[Any], Any]] = {
    "client_name": str,
    "credential_provider": _any,
    "health_check_interval": float,
    "socket_connect_timeout": float,
    "socket_keepalive": _switch,
    "socket_keepalive_options": dict,
    "socket_timeout": float,
}
#: Options of a connection that in kombu's transport options mean something of its own.
_OPTIONS_OF_URLS: dict[str, Callable[[Any], Any]] = {"max_connections": int, "protocol": int}
#: What has a field of its own here. And what is sent again is not for a URL to say.
_ELSEWHERE = {
    *("db", "virtual_host", "username", "password", "master_name", "min_other_sentinels"),
    *("sentinel_username", "sentinel_password", "retry_on_timeout"),
}


@dataclass(frozen=True, repr=False)
class Address:
    """A Redis or Valkey, and how it is reached.

    >>> Address.parse("rediss://ann:s3cret@redis.example/2?ssl_cert_reqs=CERT_NONE&socket_timeout=3")
    Address('rediss://redis.example:6379/2')
    >>> Address.parse("sentinel://a;sentinel://b:5000/0?master_name=mymaster").hosts
    (('a', 26379), ('b', 5000))
    """

    kind: Kind
    #: host and port of the server, or of each Sentinel
    hosts: tuple[tuple[str, int], ...] = ()
    #: of the socket
    path: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = None
    #: what the Sentinels call the server; empty: not said
    master: str = ""
    #: arguments of the connections to the Sentinels themselves
    sentinel_options: Mapping[str, Any] = field(default_factory=dict)
    #: how many others a Sentinel must know of to be believed
    min_other_sentinels: int = 0
    #: options of TLS, of `TLS_OPTIONS`; None: without TLS
    tls: Mapping[str, Any] | None = None
    #: further arguments of a connection, of `OPTIONS`
    options: Mapping[str, Any] = field(default_factory=dict)
    #: what all keys begin with, ours too (``global_keyprefix``)
    key_prefix: str = ""

    @classmethod
    def parse(
        cls,
        url: str,
        source: str = "the URL",
        *,
        tls: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        username: str | None = None,
        password: str | None = None,
        strict: bool = True,
    ) -> Address:
        """Take a URL apart, or several, with ``;`` between them.

        Args:
            url: as in the table above.
            source: where it is from, for errors: ``broker_url``.
            tls: options of TLS where the URL has none, as ``broker_use_ssl``; with them there is TLS.
            options: transport options of kombu or Celery; what else they say is passed over.
            username: where the URL has none.
            password: likewise.
            strict: whether the URL may have no options but these.

        Raises:
            ConfigurationError: when it is none of these, or an option is not known or has a value that is none.
        """
        parts = [_split(each.strip(), source) for each in url.split(";")]
        scheme = parts[0].scheme
        kind, database_option = _SCHEMES[scheme]
        query = dict(pair for part in parts for pair in _query(part))
        if strict:
            _check_names(query, scheme, source)
        given = dict(options or {})
        secured = _tls({name: value for name, value in query.items() if name.startswith("ssl_")} or tls, source)
        first = parts[0]
        sentinel_options = dict(given.get("sentinel_kwargs") or {})
        for name in ("username", "password"):
            if value := query.get(f"sentinel_{name}"):
                sentinel_options[name] = value
        return cls(
            kind=kind,
            hosts=() if kind in (Kind.SOCKET, Kind.MEMORY) else tuple(_host(part, kind) for part in parts),
            path=unquote(first.path) if kind is Kind.SOCKET else "",
            database=_database(parts, kind, query.get(database_option), source),
            username=unquote(first.username or "") or query.get("username") or username,
            password=unquote(first.password or "") or query.get("password") or password,
            master=query.get("master_name") or given.get("master_name") or "",
            sentinel_options=sentinel_options,
            min_other_sentinels=int(query.get("min_other_sentinels") or given.get("min_other_sentinels") or 0),
            tls={} if secured is None and scheme == "rediss" else secured,
            options={**_read(given, OPTIONS, source), **_read(query, {**OPTIONS, **_OPTIONS_OF_URLS}, source)},
            key_prefix=given.get("global_keyprefix") or "",
        )

    def __str__(self) -> str:
        """A URL of it that may be shown: without credentials and options."""
        if self.kind is Kind.MEMORY:
            return "memory://"
        if self.kind is Kind.SOCKET:
            return f"unix://{self.path}?db={self.database}"
        hosts = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts]
        if self.kind is Kind.SERVER:
            return f"{'redis' if self.tls is None else 'rediss'}://{hosts[0]}/{self.database}"
        first, *others = (f"sentinel://{host}" for host in hosts)
        return ";".join([f"{first}/{self.database}?master_name={self.master}", *others])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def is_same_database(self, other: Address) -> bool:
        """Whether both are surely one database of one server, by what they say; nobody is asked."""
        if (self.kind, self.database) != (other.kind, other.database):
            return False
        if self.kind is Kind.SERVER:
            # Of several, kombu takes whichever answers.
            return len(self.hosts) == len(other.hosts) == 1 and _plain(self) == _plain(other)
        if self.kind is Kind.SENTINEL:
            known = not (self.master and other.master) or self.master == other.master
            return known and bool(_plain(self) & _plain(other))
        return self.kind is Kind.SOCKET and self.path == other.path

    def completed_by(self, other: Address) -> Address:
        """This address with what only the other says of the same database.

        But that certificates are not checked, an address that asks for TLS has to say itself.
        """
        unchecked = (
            {"ssl_cert_reqs"} if self.tls is not None and (other.tls or {}).get("ssl_cert_reqs") == "none" else ()
        )
        tls = {name: value for name, value in (other.tls or {}).items() if name not in unchecked} | dict(self.tls or {})
        return replace(
            self,
            username=self.username or (None if self.password else other.username),
            password=self.password or (None if self.username else other.password),
            master=self.master or other.master,
            sentinel_options={**other.sentinel_options, **self.sentinel_options},
            min_other_sentinels=self.min_other_sentinels or other.min_other_sentinels,
            tls=None if self.tls is None and other.tls is None else tls,
            options={**other.options, **self.options},
            key_prefix=self.key_prefix or other.key_prefix,
        )

    def checked(self, source: str) -> Address:
        """This address, if it says all that is needed to connect.

        Raises:
            ConfigurationError: when it names Sentinels without a master, or several servers.
        """
        if self.kind is Kind.SENTINEL and not self.master:
            raise ConfigurationError(
                f"{source} names Sentinels, and not the master to ask them for; say it in the URL: "
                f"{str(self).partition('?')[0]}?master_name=mymaster, or as master_name among the transport options "
                f"of the broker (broker_transport_options)"
            )
        if self.kind is Kind.SERVER and len(self.hosts) > 1:
            raise ConfigurationError(
                f"{source} names {len(self.hosts)} servers, and runs live in one; name that one, or the Sentinels that "
                f"know which it is (sentinel://host:26379/0?master_name=mymaster). A password's ; is written %3B"
            )
        return self


def _plain(address: Address) -> set[tuple[str, int]]:
    loopback = ("localhost", "::1")
    return {("127.0.0.1" if host in loopback else host, port) for host, port in address.hosts}


def _split(url: str, source: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        clear = not parts.fragment and parts.port != 0
    except ValueError:  # its words show what it could not read, which may be part of a password
        clear = False
    if not clear:
        raise ConfigurationError(
            f"{source} cannot be read: its host or port is none, or it has a #; expected e.g. {_EXAMPLES}, in which "
            f"the characters : / ? # [ ] @ ; of a user name or password are percent-encoded"
        )
    if parts.scheme not in _SCHEMES or "://" not in url:
        raise ConfigurationError(
            f"{source} must be a URL that begins redis://, rediss://, unix://, redis+socket:// or sentinel://, and "
            f"this one begins {url.partition(':')[0][:12]!r}; expected e.g. {_EXAMPLES}"
        )
    return parts


def _query(part: SplitResult) -> Iterator[tuple[str, str]]:
    yield from reversed(parse_qsl(part.query))  # of two, redis-py takes the first


def _check_names(query: Mapping[str, str], scheme: str, source: str) -> None:
    known = {*OPTIONS, *_OPTIONS_OF_URLS, *TLS_OPTIONS, *_ELSEWHERE}
    for name in query:
        if name not in known:
            raise ConfigurationError(
                f"{source} has an option {name!r} that is not known{did_you_mean(name, known)} (a {scheme}:// URL "
                f"takes {', '.join(sorted(known))})"
            )


def _read(given: Mapping[str, Any], known: Mapping[str, Callable[[Any], Any]], source: str) -> dict[str, Any]:
    """Those of the options that are known, read."""
    return {
        name: _value(name, known[name], value, source)
        for name, value in given.items()
        if name in known and value is not None
    }


def _value(name: str, read: Callable[[Any], Any], value: Any, source: str) -> Any:
    try:
        return read(value)
    except (ValueError, TypeError, KeyError):
        raise ConfigurationError(f"{source} has the option {name!r} with a value that is none: {value!r}") from None


def _tls(given: Mapping[str, Any] | None, source: str) -> dict[str, Any] | None:
    if given is None:
        return None
    for name in given:
        if name not in TLS_OPTIONS:
            raise ConfigurationError(
                f"{source} has an option of TLS {name!r} that is not known{did_you_mean(name, TLS_OPTIONS)} (known: "
                f"{', '.join(TLS_OPTIONS)})"
            )
    return _read(given, TLS_OPTIONS, source)


def _host(part: SplitResult, kind: Kind) -> tuple[str, int]:
    default = SENTINEL_PORT if kind is Kind.SENTINEL else REDIS_PORT
    return unquote(part.hostname or "") or "127.0.0.1", part.port or default


def _database(parts: list[SplitResult], kind: Kind, option: str | None, source: str) -> int:
    paths = ["" if kind is Kind.SOCKET else unquote(part.path).strip("/") for part in parts]
    said = option if option is not None else paths[0]
    others = {path for path in paths[1:] if path} - {said or "0"}
    if kind is Kind.SENTINEL and others:
        raise ConfigurationError(
            f"{source} names the databases {said or '0'} and {', '.join(sorted(others))}; name one, at the first URL, "
            f"where kombu and Celery read it"
        )
    if not (said or "0").isdecimal():
        # What stands there may be the end of a password with a / in it.
        raise ConfigurationError(f"{source} ends with the name of a database; expected its number, as in {_EXAMPLES}")
    return int(said or 0)
