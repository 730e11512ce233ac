"""What to do about each kind of error that a Redis client raises.

Kinds are found by the name of the class or of its nearest parent, so this table needs no client to be imported. A test
walks ``redis.exceptions`` and fails when a release brings a kind that nobody has thought about.
"""

from __future__ import annotations

_ACCESS = (
    "the ACL of this user lacks a command or the keys; grant it +@all -@dangerous +info on "
    "~{{{prefix}:* and &{{{prefix}:*, and on the broker's lists if the broker is the same database"
)
_CREDENTIALS = "the server refused the credentials; check user and password in multiagents_redis_url"
_CLUSTER = (
    "the server is a Redis Cluster, or part of one that is not whole; point multiagents_redis_url at a single Redis or "
    "a master behind Sentinel"
)
_OWN_FAULT = "this is a fault of the state store and not of your set-up; please report it with this message"
_UNREACHED = "nothing acknowledged was lost: start the server or check multiagents_redis_url, and try again"

#: Trying again does not help against these: the configuration is wrong.
CONFIGURATION = frozenset({"AuthenticationError", "AuthenticationWrongNumberOfArgsError", "ExternalAuthProviderError"})

ADVICE = {
    "AskError": _CLUSTER,
    "AuthenticationError": _CREDENTIALS,
    "AuthenticationWrongNumberOfArgsError": _CREDENTIALS,
    "AuthorizationError": _ACCESS,
    "BusyLoadingError": "the server is loading its data; try again when it has finished (redis-cli INFO persistence)",
    "ChildDeadlockedError": "a fork happened while a connection was made; use the orchestrator only after the fork",
    "ClusterCrossSlotError": _CLUSTER,
    "ClusterDownError": _CLUSTER,
    "ClusterError": _CLUSTER,
    "ConnectionError": _UNREACHED,
    "CrossSlotTransactionError": _CLUSTER,
    "DataError": _OWN_FAULT,
    "ExecAbortError": "the server refused a transaction; see the cause, often an ACL or a full memory",
    "ExternalAuthProviderError": _CREDENTIALS,
    "IncorrectPolicyType": _OWN_FAULT,
    "InvalidPipelineStack": _OWN_FAULT,
    "InvalidResponse": "what answered does not speak the Redis protocol; check host, port and TLS in the URL",
    "LockError": _OWN_FAULT,
    "LockNotOwnedError": _OWN_FAULT,
    "MasterDownError": "the replica lost its master; wait for the failover, or use the master",
    "MaxConnectionsError": "all connections are in use; raise max_connections in the URL or use fewer threads",
    "ModuleError": "the server refused a module; load it or use another server",
    "MovedError": _CLUSTER,
    "NoPermissionError": _ACCESS,
    "NoScriptError": _OWN_FAULT,
    "NoSuchFieldsetError": _OWN_FAULT,
    "OutOfMemoryError": "the server is full; raise its maxmemory, or shorten multiagents_retention",
    "PubSubError": _OWN_FAULT,
    "ReadOnlyError": "this is a replica; point multiagents_redis_url at the master",
    "RedisClusterException": _CLUSTER,
    "RedisError": "see the cause",
    "ResponseError": "the command was refused; the server must be Redis 7.0, Valkey 7.2 or newer, and the keys its own",
    "SlotNotCoveredError": _CLUSTER,
    "TimeoutError": _UNREACHED,
    "TryAgainError": _CLUSTER,
    "WatchError": _OWN_FAULT,
}


def advice(error: BaseException, prefix: str) -> str:
    """Say what to do about an error of a Redis client, by its kind or its nearest parent's."""
    return ADVICE[_nearest(error)].format(prefix=prefix)


def is_configuration(error: BaseException) -> bool:
    """Whether trying again will not help."""
    return _nearest(error) in CONFIGURATION


def _nearest(error: BaseException) -> str:
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in ADVICE), "RedisError")
