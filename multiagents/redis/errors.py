"""What to do about each kind of error that the client raises.

A test walks ``redis.exceptions`` and fails when a release of the client brings a kind that `ADVICE` does not know.
"""

from __future__ import annotations

import redis

#: The roots of what the client raises; not all of its classes descend from ``RedisError``.
CLIENT_ERRORS = (
    redis.RedisError,
    redis.exceptions.RedisClusterException,
    redis.exceptions.ChildDeadlockedError,
    getattr(redis.exceptions, "IncorrectPolicyType", redis.RedisError),  # since redis-py 7
)

_ACCESS = (
    "the ACL of this user lacks a command or the keys; grant it what docs/redis.md lists, on ~{prefix}:* and "
    "&{prefix}:*, and on the broker's own keys if the broker is the same database"
)
_CREDENTIALS = "the server refused the credentials; check user and password in the URL (multiagents_redis_url)"
_CLUSTER = (
    "the server is a Redis Cluster, or part of one that is not whole; point the URL (multiagents_redis_url) at a "
    "single Redis or a master behind Sentinel"
)
_OWN_FAULT = "this is a fault of multiagents and not of your set-up; please report it with this message"
_UNREACHED = (
    "nothing acknowledged was lost: check that the server runs and that host, port and TLS in the URL "
    "(multiagents_redis_url) are right, then try again"
)

#: Kind of error, by the name of its class or of its nearest parent -> what to do.
ADVICE = {
    "AskError": _CLUSTER,
    "AuthenticationError": _CREDENTIALS,
    "AuthenticationWrongNumberOfArgsError": _CREDENTIALS,
    "AuthorizationError": _ACCESS,
    "BusyLoadingError": "the server is loading its data; try again when it has finished (redis-cli INFO persistence)",
    "ChildDeadlockedError": "a fork happened while a connection was made; connect only after the fork, in the child",
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
    "MasterNotFoundError": (
        "nothing acknowledged was lost: while they choose another master, wait; else check that the Sentinels run, "
        "that their password is given (sentinel_kwargs, or sentinel_password in the URL), and the name (master_name)"
    ),
    "MasterDownError": "the replica lost its master; wait for the failover, or use the master",
    "MaxConnectionsError": (
        "all connections were in use for too long: check the server's load (redis-cli --latency), use fewer threads, "
        "or raise max_connections in the URL"
    ),
    "ModuleError": "the server refused a module; load it or use another server",
    "MovedError": _CLUSTER,
    "NoPermissionError": _ACCESS,
    "NoScriptError": _OWN_FAULT,
    "NoSuchFieldsetError": _OWN_FAULT,
    "OutOfMemoryError": (
        "the server is full: what runs goes on to its end, and nothing new begins; raise its maxmemory, delete runs "
        "that are over, shorten multiagents_retention, or remove groups of the event bus that nobody reads "
        "(remove_group)"
    ),
    "PubSubError": _OWN_FAULT,
    "ReadOnlyError": "this is a replica; point the URL (multiagents_redis_url) at the master, or at a Sentinel's",
    "RedisClusterException": _CLUSTER,
    "RedisError": "see the cause",
    "ResponseError": (
        "the command was refused; the server must be Redis 7.0, Valkey 7.2 or newer, and nothing else may use the keys"
    ),
    "SlotNotCoveredError": _CLUSTER,
    "TimeoutError": (
        "the server did not answer in time, and nothing acknowledged was lost: check its load (redis-cli --latency), "
        "then try again"
    ),
    "TryAgainError": _CLUSTER,
    "WatchError": _OWN_FAULT,
}

#: What a server says that is not, or not yet, the one to talk to ...
ELSEWHERE = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.MasterDownError,
    redis.exceptions.AuthenticationError,
)
#: ... and for what redis-py has no class: a master that its replicas have left, and one that was demoted just now.
_ELSEWHERE_WORDS = ("NOREPLICAS", "UNBLOCKED")

#: What a server says that has no room (``maxmemory``) for what it is to write.
FULL = redis.exceptions.OutOfMemoryError

#: Trying again does not help against these: the configuration is wrong.
_CONFIGURATION = frozenset({"AuthenticationError", "AuthenticationWrongNumberOfArgsError", "ExternalAuthProviderError"})
#: What a server answers that would do no such call now, whatever it is about: it is full, no master, or not ready ...
_NOT_NOW = frozenset({"ClusterDownError", "MasterDownError", "OutOfMemoryError", "ReadOnlyError", "TryAgainError"})
#: ... and how such answers begin that have no class of their own.
_NOT_NOW_WORDS = ("BUSY ", "MISCONF ", "NOAUTH ", "NOREPLICAS ", "UNKILLABLE ")


def advice(error: BaseException, prefix: str) -> str:
    """Say what to do about an error of the client.

    Args:
        error: of one of `CLIENT_ERRORS`.
        prefix: what the keys' tags start with.
    """
    return ADVICE[_kind(error)].format(prefix=prefix)


def says_elsewhere(error: BaseException) -> bool:
    """Whether a server has said that it cannot do what is asked, where another connection may lead to one that can.

    After a failover a demoted master says so for ever to whoever stays with it.
    """
    return isinstance(error, ELSEWHERE) or (
        isinstance(error, redis.exceptions.ResponseError) and str(error).startswith(_ELSEWHERE_WORDS)
    )


def is_configuration(error: BaseException) -> bool:
    """Whether trying again will not help."""
    return _kind(error) in _CONFIGURATION


def is_refusal(error: BaseException) -> bool:
    """Whether the server is there and refused a call over what that call is about, so that others may be done."""
    return (
        isinstance(error, redis.ResponseError)
        and _kind(error) not in _NOT_NOW
        and not str(error).startswith(_NOT_NOW_WORDS)
    )


def _kind(error: BaseException) -> str:
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in ADVICE), "RedisError")
