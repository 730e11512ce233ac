"""How a `Commit` becomes the arguments of the scripts."""

from __future__ import annotations

from typing import Any

from multiagents.names import RunKeys
from multiagents.state_store.attributes import MAX_ATTRIBUTES
from multiagents.state_store.base import Commit, Dispatch, dumps, signal_field
from multiagents.state_store.codec import pack

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
    return [run.run, run.context, run.results, run.history, run.due, run.sequence, *left, *entered, run.dead]


def arguments_of(run: RunKeys, commit: Commit) -> list[Any]:
    """What the script part ``transition`` reads, in its order."""
    fields: list[Any] = []
    removed: list[str] = []
    for name, value in commit.header.items():
        if value == "":
            removed.append(name)
        else:
            fields += (name, value)
    for name, state in commit.steps.items():
        fields += (f"s:{name}", state.encode())
    args: list[Any] = [len(fields) // 2, *fields]
    args += (len(removed), *removed)
    context = [part for key, value in commit.context.items() for part in (key, dumps(value))]
    args += (len(context) // 2, *context)
    results = [part for step, value in commit.results.items() for part in (f"r:{step}", dumps(value))]
    results += [part for step, value in commit.inputs.items() for part in (f"n:{step}", dumps(value))]
    results += [part for key, value in commit.signals.items() for part in (signal_field(key), dumps(value))]
    args += (len(results) // 2, *results)
    args += (len(commit.events), *(pack(event) for event in commit.events))
    args += (len(commit.letters), *(part for key, letter in commit.letters.items() for part in (key, dumps(letter))))
    args += (len(commit.answered), *commit.answered)
    args.append(len(commit.joins))
    for step, (landing, members) in commit.joins.items():
        args += (step, landing, members)
    args.append(len(commit.dispatches))
    for dispatch in commit.dispatches:
        args += row_of(dispatch)
    args += (int(commit.landed), int(commit.decided))
    args += (0,) if commit.wake is None else (1, *commit.wake)
    args.append(int(commit.moved is not None))
    args += (commit.deadline_ms or 0, commit.retention_ms or 0, run.channel, commit.header.get("status", ""))
    args.append(len(commit.attributes))
    if commit.attributes:
        args += (part for pair in commit.attributes.items() for part in pair)
        args += (run.attributes, MAX_ATTRIBUTES)
    return args


def row_of(dispatch: Dispatch) -> tuple[Any, ...]:
    """One dispatch as ``send`` takes it."""
    return (
        dispatch.step,
        dispatch.mark,
        dispatch.via.value,
        dispatch.target,
        dispatch.prefix,
        dispatch.suffix,
        dispatch.look_after_ms,
        dispatch.first_ms,
        dispatch.close_ms,
        dispatch.start_within_ms,
    )
