"""The values that pass between the engine and a store, whatever the store is. Begin with `commit.Commit`.

`attempt` and `commit` are what is written; `claim`, `snapshot`, `due` and `page` what is read. Their encoded forms are
what Redis keeps: a change here is a change of the stored layout (`redis/scripts/README.md`).
"""

from __future__ import annotations

from multiagents.state_store.records.announced import (
    ANNOUNCED_EVERY,
    REPEATED_EVERY,
    Announced,
    Node,
    of_queues,
    of_workers,
)
from multiagents.state_store.records.approval import AwaitedCall, approval_target, awaited_call, decided, timed_out
from multiagents.state_store.records.attempt import (
    LIMIT_GRACE_MS,
    LINK_GRACE_MS,
    MESSAGES,
    OUTBOX_GRACE_MS,
    Delivery,
    Dispatch,
    InFlight,
    any_record,
    attempt_key_of,
    parse_attempt_key,
    record_prefix,
)
from multiagents.state_store.records.claim import Claim, ClaimRefused, Renewal, limits_of
from multiagents.state_store.records.commit import REVIVED, Commit, Committed, Started, Verdict, Written
from multiagents.state_store.records.definition_cache import DefinitionCache
from multiagents.state_store.records.difference import Difference, difference, restore
from multiagents.state_store.records.due import Due, DueKind
from multiagents.state_store.records.ending import Ending
from multiagents.state_store.records.example import (
    MAX_EXAMPLE,
    Example,
    Experience,
    Feedback,
    Lesson,
    StoredExample,
    Traced,
)
from multiagents.state_store.records.journal import (
    MAX_CALLS,
    MAX_EVIDENCE,
    MAX_MODELS,
    Begun,
    Call,
    CallKind,
    CallRecord,
    CallState,
    CallVerdict,
    Decided,
    Opened,
    Request,
    StepUsage,
    Usage,
)
from multiagents.state_store.records.letter_key import LetterKey, key_of_outcome
from multiagents.state_store.records.page import Page
from multiagents.state_store.records.program import (
    BUILT_IN,
    MAX_PROGRAM_CHANGES,
    MAX_PROGRAMS,
    Placement,
    ProgramChange,
    ProgramRecord,
)
from multiagents.state_store.records.search_attributes import (
    MAX_ATTRIBUTES,
    Condition,
    Place,
    Search,
    check_attribute_count,
    decode_attribute,
    encode_attributes,
    plain_attributes,
)
from multiagents.state_store.records.settled import Settled
from multiagents.state_store.records.snapshot import Snapshot
from multiagents.state_store.records.stream import (
    MAX_ENTRY,
    READ_AT_ONCE,
    EntryKind,
    Offset,
    Said,
    StreamEntry,
    StreamPage,
)

__all__ = [
    "ANNOUNCED_EVERY",
    "BUILT_IN",
    "LIMIT_GRACE_MS",
    "LINK_GRACE_MS",
    "MAX_ATTRIBUTES",
    "MAX_CALLS",
    "MAX_ENTRY",
    "MAX_EVIDENCE",
    "MAX_EXAMPLE",
    "MAX_MODELS",
    "MAX_PROGRAMS",
    "MAX_PROGRAM_CHANGES",
    "MESSAGES",
    "OUTBOX_GRACE_MS",
    "READ_AT_ONCE",
    "REPEATED_EVERY",
    "REVIVED",
    "Announced",
    "AwaitedCall",
    "Begun",
    "Call",
    "CallKind",
    "CallRecord",
    "CallState",
    "CallVerdict",
    "Claim",
    "ClaimRefused",
    "Commit",
    "Committed",
    "Condition",
    "Decided",
    "DefinitionCache",
    "Delivery",
    "Difference",
    "Dispatch",
    "Due",
    "DueKind",
    "Ending",
    "EntryKind",
    "Example",
    "Experience",
    "Feedback",
    "InFlight",
    "Lesson",
    "LetterKey",
    "Node",
    "Offset",
    "Opened",
    "Page",
    "Place",
    "Placement",
    "ProgramChange",
    "ProgramRecord",
    "Renewal",
    "Request",
    "Said",
    "Search",
    "Settled",
    "Snapshot",
    "Started",
    "StepUsage",
    "StoredExample",
    "StreamEntry",
    "StreamPage",
    "Traced",
    "Usage",
    "Verdict",
    "Written",
    "any_record",
    "approval_target",
    "attempt_key_of",
    "awaited_call",
    "check_attribute_count",
    "decided",
    "decode_attribute",
    "difference",
    "encode_attributes",
    "key_of_outcome",
    "limits_of",
    "of_queues",
    "of_workers",
    "parse_attempt_key",
    "plain_attributes",
    "record_prefix",
    "restore",
    "timed_out",
]
