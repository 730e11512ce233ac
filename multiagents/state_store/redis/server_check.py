"""What a server must be to keep runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiagents.exceptions import ConfigurationError
from multiagents.keys import SCHEMA

#: The oldest releases whose scripts do what ours rely on.
OLDEST_REDIS = (7, 0)
OLDEST_VALKEY = (7, 2)


def findings_of(info: Mapping[str, Any], where: str) -> list[str]:
    """What is risky about a server, in words.

    Args:
        info: what its ``INFO`` says, or its ``HELLO``: then nothing is known of its configuration.
        where: its address, without credentials.

    Raises:
        ConfigurationError: when it is too old, or a Redis Cluster.
    """
    valkey = info.get("valkey_version")
    version = str(valkey or info["redis_version"])
    oldest = OLDEST_VALKEY if valkey else OLDEST_REDIS
    if tuple(int(part) for part in version.split(".")[:2]) < oldest:
        raise ConfigurationError(
            f"the state store at {where} is {'Valkey' if valkey else 'Redis'} {version}; expected Redis 7.0, Valkey "
            f"7.2, or newer: upgrade the server"
        )
    if "cluster" in (info.get("redis_mode"), info.get("server_mode")):  # the latter is Valkey's word
        raise ConfigurationError(
            f"the state store at {where} is a node of a Redis Cluster, which cannot keep runs: a run's steps, its "
            f"messages and its timers are changed together, and a cluster spreads them over servers; expected a single "
            f"Redis or Valkey, or a master behind Sentinels (sentinel://): set multiagents_redis_url to one"
        )
    findings = []
    policy = info.get("maxmemory_policy")
    if policy not in (None, "noeviction"):
        findings.append(
            f"maxmemory-policy is {policy!r}: under memory pressure the server drops runs; expected 'noeviction': "
            f"set it with CONFIG SET maxmemory-policy noeviction and in the server's configuration"
        )
    if not int(info.get("aof_enabled", 1)):
        findings.append(
            "appendonly is 'no': a restart of the server loses what came after its last snapshot; expected 'yes': "
            "set it with CONFIG SET appendonly yes and in the server's configuration"
        )
    return findings


def info_of_hello(hello: Mapping[str, Any]) -> dict[str, Any]:
    """What ``HELLO`` tells, which every user may say, whatever its ACL, in the words of ``INFO``."""
    version = "valkey_version" if hello["server"] == "valkey" else "redis_version"
    return {version: hello["version"], "redis_mode": hello["mode"]}


def check_schema(found: str | None, where: str) -> None:
    """See that what is in the store is laid out as this release reads and writes it.

    Args:
        found: the number of the layout that the store was begun with; None if it has none.
        where: its address, without credentials.

    Raises:
        ConfigurationError: when it is another layout.
    """
    if found == str(SCHEMA):
        return
    if found is None:
        what, todo = "a layout from before the first release", "finish its runs with the code that began them"
    elif int(found) > SCHEMA:
        what, todo = f"layout {found}", "upgrade celery-multiagents here"
    else:
        what, todo = f"layout {found}", f"finish its runs with a release that has layout {found}"
    raise ConfigurationError(
        f"the runs in the state store at {where} are in {what}, and this release has layout {SCHEMA}: they cannot be "
        f"read; {todo}, or use another multiagents_key_prefix or database"
    )


def check_partitions(wanted: int, first_used_with: int, where: str) -> None:
    """See that runs are looked for where they are.

    Raises:
        ConfigurationError: when the number of partitions has changed.
    """
    if wanted != first_used_with:
        raise ConfigurationError(
            f"multiagents_partitions is {wanted}, but the state store at {where} was first used with "
            f"{first_used_with}; runs would not be found: set it to {first_used_with}, or use "
            f"another multiagents_key_prefix"
        )
