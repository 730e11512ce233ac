"""Locks as they may be written down."""

from __future__ import annotations

from multiagents.workflow.builder import validation as check
from multiagents.workflow.builder.elements import Lock
from multiagents.workflow.definition.key_template import check_template


def check_lock(workflow: str, lock: Lock) -> None:
    """Refuse a lock whose options do not fit."""
    check.code(workflow, lock)
    check.plain_function(workflow, lock.name, "key", lock.key)
    if not callable(lock.key):
        check_template(workflow, f'step "{lock.name}"', "key", lock.key)
    if not check.is_seconds(lock.lease, zero=False):
        expected = "a number, more than 0 seconds, or None to hold it until the run is over"
        raise check.refusal(workflow, lock.name, "lease", lock.lease, expected)
    if not check.is_seconds(lock.timeout, zero=False):
        expected = "a number, more than 0 seconds, or None to wait as long as it takes"
        raise check.refusal(workflow, lock.name, "timeout", lock.timeout, expected)
    if lock.on_timeout not in ("fail", "continue"):
        raise check.refusal(workflow, lock.name, "on_timeout", lock.on_timeout, "'fail' or 'continue'")
