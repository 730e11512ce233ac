"""What to do about each kind of error that a Redis client raises.

Kinds are found by the name of the class or of its nearest parent, so this table needs no client to be imported. A test
walks ``redis.exceptions`` and fails when a release brings a kind that nobody has thought about.
"""

from __future__ import annotations

_ACCESS = (
    "the ACL of this user lacks a command or the keys; grant it +@stream +@hash +@connection +@transaction on "
    "~{{{prefix}:*"
)
_CREDENTIALS = "the server refused the credentials; check user and password in the URL"
_CLUSTER = (
    "the server is a Redis Cluster, or part of one that is not whole; point the bus at a single Redis, a Sentinel "
    "master, or the node that serves its slots"
)
_OWN_FAULT = "this is a fault of the bus and not of your set-up; please report it with this message"

ADVICE = {
    "AskError": _CLUSTER,
    "AuthenticationError": _CREDENTIALS,
    "AuthenticationWrongNumberOfArgsError": _CREDENTIALS,
    "AuthorizationError": _ACCESS,
    "BusyLoadingError": "the server is loading its data; try again when it has finished (redis-cli INFO persistence)",
    "ChildDeadlockedError": "a fork happened while a connection was made; make the bus anew in the child process",
    "ClusterCrossSlotError": _CLUSTER,
    "ClusterError": _CLUSTER,
    "ConnectionError": "check that the server runs and that host, port and TLS in the URL are right, then try again",
    "ExternalAuthProviderError": _CREDENTIALS,
    "MasterDownError": "the replica lost its master; wait for the failover, or point the bus at the master",
    "MaxConnectionsError": "all connections are in use; raise max_connections in the URL or use fewer threads",
    "ModuleError": "the server refused a module; load it or point the bus at another server",
    "MovedError": _CLUSTER,
    "NoPermissionError": _ACCESS,
    "OutOfMemoryError": "the server is full; raise its maxmemory, or remove groups that nobody reads (remove_group)",
    "ReadOnlyError": "this is a replica; point the bus at the master, or give it a client of a Sentinel",
    "RedisClusterException": _CLUSTER,
    "ResponseError": "the command was refused; the server must be Redis 7.0, Valkey 7.2 or newer, the key a stream",
    "SlotNotCoveredError": _CLUSTER,
    "TimeoutError": "the server did not answer in time; check its load (redis-cli --latency), then try again",
    "TryAgainError": _CLUSTER,
    # The bus uses neither locks nor Pub/Sub nor WATCH, and sends no data that a client could refuse.
    "CrossSlotTransactionError": _OWN_FAULT,
    "DataError": _OWN_FAULT,
    "ExecAbortError": "the server refused a transaction; see the cause, often an ACL or a full memory",
    "IncorrectPolicyType": _OWN_FAULT,
    "InvalidPipelineStack": _OWN_FAULT,
    "InvalidResponse": "what answered does not speak the Redis protocol; check host, port and TLS in the URL",
    "LockError": _OWN_FAULT,
    "LockNotOwnedError": _OWN_FAULT,
    "NoScriptError": _OWN_FAULT,
    "NoSuchFieldsetError": _OWN_FAULT,
    "PubSubError": _OWN_FAULT,
    "RedisError": "see the cause",
    "WatchError": _OWN_FAULT,
    "ClusterDownError": _CLUSTER,
}


def advice(error: BaseException, prefix: str) -> str:
    """Say what to do about an error of a Redis client, by its kind or its nearest parent's."""
    for kind in type(error).__mro__:
        if kind.__name__ in ADVICE:
            return ADVICE[kind.__name__].format(prefix=prefix)
    return ADVICE["RedisError"]
