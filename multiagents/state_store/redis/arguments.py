"""How a `Commit` becomes the arguments of the scripts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiagents.keys import RunKeys
from multiagents.state_store.base import Commit, Dispatch, signal_field
from multiagents.state_store.payloads.history_codec import pack
from multiagents.state_store.payloads.policy import PLAIN, Writing
from multiagents.state_store.records.search_attributes import MAX_ATTRIBUTES

#: A run comes back from its end (rule S5): its keys must not expire any more.
REVIVED = -1


def keys_of(run: RunKeys, commit: Commit) -> list[str]:
    """The keys that `commit` and `start` declare."""
    if commit.moved is None:
        left = entered = [run.run, run.run]  # declared and not touched
    else:
        workflow, before, after = commit.moved
        left = [run.index(before), run.index(before, workflow)]
        entered = [run.index(after), run.index(after, workflow)]
    shared = [run.due, run.sequence, *left, *entered, run.dead]
    return [run.run, run.context, run.results, run.history, *shared, run.blobs]


def arguments_of(run: RunKeys, commit: Commit, writing: Writing | None = None) -> list[Any]:
    """What the script part ``transition`` reads, in its order, up to the payloads that are kept apart.

    Args:
        run: the keys.
        commit: what is to be written.
        writing: in what form; it gathers what is to be kept apart. None: all of it as it is.
    """
    writing = writing or Writing(PLAIN)
    policy = writing.policy
    fields: list[Any] = []
    removed: list[str] = []
    for name, value in commit.header.items():
        if value == "":
            removed.append(name)
        else:
            fields += (name, policy.header(name, value))
    for name, state in commit.steps.items():
        fields += (f"s:{name}", state.encode() if policy.is_plain else policy.step(state))
    args: list[Any] = [len(fields) // 2, *fields]
    args += (len(removed), *removed)
    context = [part for key, value in commit.context.items() for part in (key, writing.value(value))]
    args += (len(context) // 2, *context, len(commit.forgotten), *commit.forgotten)
    results = [part for step, value in commit.results.items() for part in (f"r:{step}", writing.value(value))]
    results += [part for step, value in commit.inputs.items() for part in (f"n:{step}", writing.value(value))]
    results += [part for key, value in commit.signals.items() for part in (signal_field(key), writing.value(value))]
    args += (len(results) // 2, *results)
    written = pack if policy.is_plain else policy.event
    args += (len(commit.events), *(written(event) for event in commit.events))
    dead_letters = [part for key, letter in commit.dead_letters.items() for part in (key, policy.text(letter))]
    args += (len(commit.dead_letters), *dead_letters)
    args += (len(commit.answered), *commit.answered)
    args.append(len(commit.joins))
    for step, (landing, members) in commit.joins.items():
        args += (step, landing, members)
    args.append(len(commit.dispatches))
    for dispatch in commit.dispatches:
        args += row_of(dispatch)
    args += (2 if commit.coalesces else int(commit.landed), int(commit.decided))
    args += (0,) if commit.wake is None else (1, *commit.wake)
    args.append(int(commit.moved is not None))
    args += (commit.deadline_ms or 0, commit.retention_ms or 0, run.channel, commit.header.get("status", ""))
    args.append(int(commit.outlives))
    args.append(len(commit.attributes))
    if commit.attributes:
        args += (part for pair in commit.attributes.items() for part in pair)
        args += (run.attributes, MAX_ATTRIBUTES)
    return args


def apart_of(blobs: Mapping[str, str]) -> list[Any]:
    """Payloads that the script keeps apart, as ``transition`` reads them: the last of its arguments."""
    return [len(blobs), *(part for blob in blobs.items() for part in blob)] if blobs else [0]


def row_of(dispatch: Dispatch) -> tuple[Any, ...]:
    """One dispatch as ``send`` takes it."""
    return (
        dispatch.step,
        dispatch.attempt_key,
        dispatch.delivery.value,
        dispatch.target,
        dispatch.prefix,
        dispatch.suffix,
        dispatch.look_after_ms,
        dispatch.first_ms,
        dispatch.close_ms,
        dispatch.start_within_ms,
        dispatch.due_ms,
    )
