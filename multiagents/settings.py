"""Every setting of the library: its default, what it may be, and where it is read from.

Where a value is given more than once, the first of these wins:

1. the argument ``settings=`` of ``init_app``: ``{"lease": 10}``;
2. the Celery configuration: ``app.conf.multiagents_lease = 10``; under a namespace, ``CELERY_MULTIAGENTS_LEASE = 10``;
3. the environment: ``MULTIAGENTS_LEASE=10``;
4. the default.

A name that is not known is an error in 1 and 2, and a warning in 3: Kubernetes puts names such as ``MULTIAGENTS_PORT``
into the environment of every pod beside a service called ``multiagents``. ``None`` and an empty environment variable
mean "not set".
"""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Literal, NamedTuple

from multiagents.address import Address, Kind
from multiagents.clock import LONGEST
from multiagents.exceptions import ConfigurationError, did_you_mean

__all__ = ["Settings"]

_log = logging.getLogger(__name__)

#: What every setting's name starts with, in the Celery configuration; in upper case, in the environment.
PREFIX = "multiagents_"
#: What keys begin with where neither a setting nor the broker says.
DEFAULT_KEY_PREFIX = "ma"
#: What they may begin with.
KEY_PREFIX = re.compile(r"[A-Za-z0-9._:-]{1,64}")
#: What a payload may have at most: encrypted it takes a third more, and Redis takes no value of more than 512 MiB.
MOST_BYTES = 256 * 1024 * 1024
#: What a limit of a model may be at most.
MOST_LIMITED = 1_000_000_000
#: What the tests and the benchmarks put into the environment, after the prefix: no settings, and no typing errors.
_NO_SETTINGS = ("test_", "bench_")


class _Rule(NamedTuple):
    """What a setting may be, in words and as a function that raises ValueError for anything else."""

    expected: str
    parse: Callable[[Any], Any]
    #: not to be shown in an error
    secret: bool = False


def _number(value: Any) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError  # noqa: TRY004 # one kind of error says "not what was expected"
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _seconds(least: float, most: float = LONGEST, *, more_than: bool = False) -> _Rule:
    def parse(value: Any) -> float:
        number = _number(value)
        if not least <= number <= most or (more_than and number == least):
            raise ValueError
        return number

    low = f"{'greater than' if more_than else 'of at least'} {least:g}"
    return _Rule(f"a number of seconds {low}, at most {most:,.0f}", parse)


def _count(least: int, most: int, what: str = "a whole number") -> _Rule:
    def parse(value: Any) -> int:
        number = _number(value)
        if isinstance(value, timedelta) or number != int(number) or not least <= number <= most:
            raise ValueError
        return int(number)

    return _Rule(f"{what} of at least {least}, at most {most:,}", parse)


def _priority(value: Any) -> int:
    number = _number(value)
    if isinstance(value, timedelta) or number not in range(10):
        raise ValueError
    return int(number)


def _one_of(*choices: str) -> _Rule:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return _Rule(" or ".join(f'"{choice}"' for choice in choices), parse)


def _matching(pattern: str, expected: str) -> _Rule:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError
        return value

    return _Rule(expected, parse)


def _switch(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    try:
        return words[str(value).lower()]
    except KeyError:
        raise ValueError from None


def _several(value: Any) -> tuple[Any, ...]:
    """One thing, or a list of them; in a string (the environment), separated by commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)


def _named(one: Any, *methods: str) -> Any:
    """A dotted path or a short name, or an object that has these methods."""
    if isinstance(one, str) and re.fullmatch(r"[\w.-]+", one):
        return one
    if isinstance(one, str) or not all(callable(getattr(one, method, None)) for method in methods):
        raise ValueError
    return one


def _codecs(value: Any) -> tuple[Any, ...]:
    return tuple(_named(one, "encode", "decode") for one in _several(value))


def _server(value: Any, source: str = "multiagents_redis_url") -> str:
    if not isinstance(value, str) or Address.parse(value, source).kind is Kind.MEMORY:
        raise ValueError
    return value


def _payload_store(value: Any) -> Any:
    if isinstance(value, str) and "://" in value:
        source = "multiagents_claim_check_store"
        Address.parse(value, source).checked(source)
        return _server(value, source)
    return _named(value, "put", "get", "forget")


def _archive(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        value = os.path.abspath(value)  # noqa: PTH100 - any path-like object
    return value if isinstance(value, str) and "/" in value else _named(value, "append", "read")


def _patterns(value: Any) -> tuple[str, ...]:
    patterns = _several(value)
    if not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise ValueError
    return patterns


def _keys(value: Any) -> tuple[tuple[str, bytes], ...]:
    """Key id -> key, as a mapping, as pairs, or in a string as ``id:base64,id:base64``."""
    if isinstance(value, str):
        value = [part.split(":", 1) for part in _several(value)]
    pairs = value.items() if isinstance(value, Mapping) else value
    try:
        keys = tuple((name, key if isinstance(key, bytes) else _from_base64(key)) for name, key in pairs)
    except TypeError:
        raise ValueError from None
    for name, key in keys:
        if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) and len(key) in (16, 24, 32)):
            raise ValueError
    return keys


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text.strip().replace("-", "+").replace("_", "/"), validate=True)


def _lm(value: Any) -> Any:
    """A model's name, a mapping that has one, an object that is asked by calling it, or a list of these."""
    for one in value if isinstance(value, list | tuple) and value else [value]:
        name = one.get("model") if isinstance(one, Mapping) else one
        if not (isinstance(name, str) and name.strip()) and (isinstance(one, Mapping) or not callable(one)):
            raise ValueError
    return value


def _by_model(check: Callable[[Any], dict[str, float]]) -> Callable[[Any], dict[str, dict[str, float]]]:
    """What is said of models, by their names or patterns of them; in a string (the environment) as JSON."""

    def parse(value: Any) -> dict[str, dict[str, float]]:
        table = json.loads(value) if isinstance(value, str) else value
        if not isinstance(table, Mapping) or not all(isinstance(name, str) and name.strip() for name in table):
            raise ValueError
        return {name: check(about) for name, about in table.items()}

    return parse


def _price(value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping) or set(value) != {"input", "output"}:
        raise ValueError
    prices = {name: _number(value[name]) for name in ("input", "output")}
    if min(prices.values()) < 0:
        raise ValueError
    return prices


def _limits(value: Any) -> dict[str, float]:
    known = {"requests_per_minute", "tokens_per_minute", "concurrency"}
    if not isinstance(value, Mapping) or not value or not known.issuperset(value):
        raise ValueError
    limits = {name: _number(number) for name, number in value.items()}
    whole = limits.get("concurrency", 1)
    if min(limits.values()) <= 0 or max(limits.values()) > MOST_LIMITED or whole != int(whole):
        raise ValueError
    return limits


_CODECS = _Rule('codecs: "gzip", "aes-gcm", dotted paths or objects with encode and decode, one or a list', _codecs)
_QUEUE = _matching(r"\S+", "the name of a queue, without spaces")

_RULES: dict[str, _Rule] = {
    "redis_url": _Rule("a URL that begins redis://, rediss://, unix:// or sentinel://", _server, secret=True),
    "key_prefix": _matching(KEY_PREFIX.pattern, "1 to 64 characters of A-Z a-z 0-9 . _ : -"),
    "partitions": _count(1, 1024),
    "orchestration": _one_of("inline", "queued"),
    "lease": _seconds(1, 86_400),
    "max_lost": _count(1, 1000),
    "sweep_interval": _seconds(0, more_than=True),
    "retention": _seconds(0, more_than=True),
    "dead_letter_retention": _seconds(0, more_than=True),
    "step_timeout": _seconds(0),
    "schedule_to_start": _seconds(0, more_than=True),
    "max_payload_bytes": _count(1, MOST_BYTES, "a number of bytes"),
    "claim_check_bytes": _count(1, MOST_BYTES, "a number of bytes"),
    "claim_check_store": _Rule(
        "the URL of a Redis, a dotted path or an object with put, get and forget", _payload_store, secret=True
    ),
    "payload_codec": _CODECS,
    "payload_decode": _CODECS,
    "encryption_keys": _Rule(
        "key ids of A-Z a-z 0-9 . _ - with keys of 16, 24 or 32 bytes in base64, the newest first", _keys, secret=True
    ),
    "history_limit": _count(0, 1_000_000),
    "history_archive": _Rule(
        "the path of a folder (with a /), a dotted path or an object with append and read", _archive
    ),
    "redact": _Rule('patterns of keys such as "*password*", one or a list', _patterns),
    "stream_length": _count(1, 1_000_000),
    "queue": _QUEUE,
    "orchestrator_queue": _QUEUE,
    "start_priority": _Rule("a whole number from 0 to 9", _priority),
    "lean_qos": _Rule("true or false", _switch),
    "examples": _count(0, 1_000_000),
    "example_retention": _seconds(0, more_than=True),
    "lm": _Rule(
        'a model such as "gemini/gemini-3.8-flash", a dict with "model", a dspy.LM, or a list of these',
        _lm,
        secret=True,
    ),
    "lm_prices": _Rule(
        'a dict of models, or patterns such as "gemini/*", each with dollars for a million tokens, '
        '{"input": 0.3, "output": 2.5}',
        _by_model(_price),
    ),
    "lm_limits": _Rule(
        'a dict of models, or patterns such as "gemini/*", each with numbers above 0 for some of '
        '{"requests_per_minute": 60, "tokens_per_minute": 100000, "concurrency": 8}',
        _by_model(_limits),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold the settings of one Celery app, checked.

    Raises:
        ConfigurationError: when a value is not what its setting expects.

    >>> Settings(lease="10").lease
    10.0
    >>> Settings.load({"multiagents_lease": 10}, environ={}).lease
    10.0
    >>> Settings(lease="soon")
    Traceback (most recent call last):
    multiagents.exceptions.ConfigurationError: multiagents_lease must be a number of seconds of at least 1, got 'soon'
    """

    #: URL of the Redis or Valkey that holds the runs (see `multiagents.address`); None: the Redis broker with all its
    #: options, else the Redis result backend with its own.
    redis_url: str | None = field(default=None, repr=False)
    #: What every Redis key of this deployment starts with; None: ``ma``, behind the ``global_keyprefix`` of the broker
    #: (or of the result backend) where the runs live there.
    key_prefix: str | None = None
    #: Over how many hash tags runs are spread; fixed at first use.
    partitions: int = 1
    #: Where a result is decided: ``inline`` in the process that produced it, or ``queued`` as a Celery task of its own.
    orchestration: Literal["inline", "queued"] = "inline"
    #: Seconds without a sign of life after which an attempt counts as lost. Recovery takes about as long.
    lease: float = 30.0
    #: After how many lost attempts the outcome of a step is unknown (rule S1a).
    max_lost: int = 5
    #: Seconds between two sweeps of a worker: at most a third of the lease; by default 1, or less for a short lease.
    sweep_interval: float = 1.0
    #: Seconds that a finished run is kept.
    retention: float = 7 * 86400.0
    #: Seconds that a dead letter is kept which nobody settles.
    dead_letter_retention: float = 90 * 86400.0
    #: Seconds that an attempt may take where its worker and step say nothing; 0 is without limit.
    step_timeout: float = 3600.0
    #: Seconds that a step may wait for a worker that knows it.
    schedule_to_start: float = 300.0
    #: Largest input, result, or data of a signal, as JSON.
    max_payload_bytes: int = 10 * 1024 * 1024
    #: A payload (input, result, answer of ``inputs``, part of the context) that takes more than this as it is stored is
    #: kept apart from the run and fetched by the steps that read it.
    claim_check_bytes: int = 256 * 1024
    #: Where such payloads are kept: the URL of a Redis, a dotted path, or an object with ``put``, ``get``, ``forget``;
    #: None: beside the run.
    claim_check_store: Any = field(default=None, repr=False)
    #: What every stored payload, error and dead letter goes through, in this order: ``"gzip"``, ``"aes-gcm"``, dotted
    #: paths or objects.
    payload_codec: tuple[Any, ...] = ()
    #: Codecs that nothing new is written with, and that older values may have been written with.
    payload_decode: tuple[Any, ...] = ()
    #: Keys of ``"aes-gcm"``: id -> key in base64, the newest first; in the environment ``id:key,id:key``.
    encryption_keys: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    #: How many events a run's history keeps; it may grow to twice as many before older ones are moved to the archive.
    #: None or 0: all of them.
    history_limit: int | None = None
    #: Where older events go: a folder that all processes see, a dotted path, or an object with ``append`` and ``read``.
    history_archive: Any = None
    #: Patterns of keys whose values are not to be seen in histories and in dead letters that are shown.
    redact: tuple[str, ...] = ()
    #: How many entries of what its steps say (``current_step().stream``) a run keeps, about.
    stream_length: int = 5_000
    #: Queue of the steps that name none; None: Celery's own routing decides.
    queue: str | None = None
    #: Queue of the orchestrator task; None: as for any other task.
    orchestrator_queue: str | None = None
    #: Priority of the messages that start a run, so that runs under way, and above all undos, are not held up by them.
    #: On Redis 0 is the most urgent and 9 the least; None is 3 there, and no priority on other brokers; 0 is none.
    start_priority: int | None = None
    #: Let the engine's own messages skip kombu's ack emulation; leases recover them instead.
    lean_qos: bool = True
    #: How many examples to learn from are kept of an agent, the newest; 0: none.
    examples: int = 10_000
    #: Seconds that such an example is kept.
    example_retention: float = 90 * 86400.0
    #: Which language model agents ask that name none (`multiagents.dspy_worker`): a model, a dict with ``model`` and
    #: more, a ``dspy.LM``, or a list of these, asked in this order; None: what ``dspy.configure`` was given.
    lm: Any = field(default=None, repr=False)
    #: What models cost, by name, or by a pattern such as ``gemini/*`` (of several the longest counts): ``{"input": usd,
    #: "output": usd}`` for a million tokens; of others DSPy's own list is asked, as it was released. In the environment
    #: as JSON.
    lm_prices: Mapping[str, Mapping[str, float]] | None = None
    #: How much models are asked by all workers together, by name or pattern as above: ``requests_per_minute``,
    #: ``tokens_per_minute`` and ``concurrency``, any of them. What has one pattern shares its limits.
    lm_limits: Mapping[str, Mapping[str, float]] | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            value = one.default if value is None else _parse(one.name, value, PREFIX + one.name)
            object.__setattr__(self, one.name, value)
        default = type(self).sweep_interval
        if self.sweep_interval == default:
            # Half of what is allowed: a tick may come late, and a pause of half a lease reads as an outage.
            object.__setattr__(self, "sweep_interval", min(default, self.lease / 6))
        elif self.sweep_interval > self.lease / 3:
            raise ConfigurationError(
                f"{PREFIX}sweep_interval must be at most a third of {PREFIX}lease ({self.lease:g} s), got "
                f"{self.sweep_interval:g}; a lease that is looked at less often cannot be renewed in time"
            )

    @classmethod
    def load(
        cls,
        conf: Mapping[str, Any],
        environ: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Settings:
        """Gather the settings from an app's configuration and the environment.

        Reading a Celery configuration loads it, so call this when the settings are first needed and not while
        ``celery_app.py`` is still being imported: ``config_from_object`` may come after ``init_app``.

        Args:
            conf: ``app.conf``, or any mapping.
            environ: the environment; None for the real one.
            overrides: values that win over both, named with or without ``multiagents_``.

        Raises:
            ConfigurationError: when a value is not what its setting expects, or ``conf`` or ``overrides`` have a
                ``multiagents_*`` name that is not known.
        """
        values: dict[str, Any] = {}
        for label, name, value in _in_environment(os.environ if environ is None else environ):
            values[name] = _parse(name, value, label)
        for label, name, value in _in_conf(conf):
            values[name] = _parse(name, value, label)
        for label, value in (overrides or {}).items():
            name = label.lower().removeprefix(PREFIX)
            _check_known(name, label)
            if value is not None:
                values[name] = _parse(name, value, label)
        return cls(**values)


def _parse(name: str, value: Any, label: str) -> Any:
    rule = _RULES[name]
    try:
        return rule.parse(value)
    except (ValueError, OverflowError):
        shown = f"a {type(value).__name__} that is not shown" if rule.secret else repr(value)
        raise ConfigurationError(f"{label} must be {rule.expected}, got {shown}") from None


def _check_known(name: str, label: str) -> None:
    if name not in _RULES:
        raise ConfigurationError(
            f'setting "{label}" is not known{did_you_mean(PREFIX + name, [PREFIX + known for known in _RULES])} '
            f"(settings: {', '.join(PREFIX + known for known in _RULES)})"
        )


def _in_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    unknown = []
    for label, value in environ.items():
        if not label.startswith(PREFIX.upper()):
            continue
        name = label[len(PREFIX) :].lower()
        if name in _RULES:
            if value.strip():
                yield label, name, value.strip()
        elif not name.startswith(_NO_SETTINGS):
            unknown.append(f"{label}{did_you_mean(label, [(PREFIX + known).upper() for known in _RULES])}")
    if unknown:
        _log.warning("no settings of multiagents, so not read: %s", ", ".join(sorted(unknown)))


def _in_conf(conf: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Find the ``multiagents_*`` names, the least important first.

    Celery answers ``conf["multiagents_lease"]`` for a key spelled ``CELERY_MULTIAGENTS_LEASE``, but lists the key as it
    was written, in one of several layers. So the layers are read one by one, which finds misspelled names as well.
    """
    namespace = (getattr(conf, "prefix", None) or "").lower()
    for layer in reversed(getattr(conf, "maps", [conf])):
        for label in list(layer):
            name = label.lower() if isinstance(label, str) else ""
            name = name.removeprefix(namespace)
            if not name.startswith(PREFIX):
                continue
            name = name.removeprefix(PREFIX)
            _check_known(name, label)
            value = layer[label]
            if value is not None:
                yield label, name, value
