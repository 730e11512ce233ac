"""How a `Commit` becomes the KEYS and ARGV of the scripts; `scripts/README.md` has them by name."""

from __future__ import annotations

from itertools import chain
from typing import Any

from multiagents.keys import RunKeys
from multiagents.state_store.records import MAX_ATTRIBUTES, MESSAGES, Commit, Dispatch, Search, Written

#: How many runs of a partition one call of a search looks at.
WINDOW = 1_000


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


def arguments_of(run: RunKeys, commit: Commit, written: Written) -> list[Any]:
    """What the script part ``transition`` reads, in its order.

    Args:
        run: the keys.
        commit: what is to be written.
        written: as text.
    """
    args: list[Any] = []
    args += (len(written.fields), *chain.from_iterable(written.fields.items()))
    args += (len(written.removed), *written.removed)
    args += (len(written.context), *chain.from_iterable(written.context.items()))
    args += (len(commit.forgotten), *commit.forgotten)
    args += (len(written.results), *chain.from_iterable(written.results.items()))
    args += (len(written.history), *written.history)
    args += (len(written.dead_letters), *chain.from_iterable(written.dead_letters.items()))
    args += (len(commit.answered), *commit.answered)
    args.append(len(commit.arrivals))
    for step, (arriving, members) in commit.arrivals.items():
        args += (step, arriving, members)
    args.append(len(commit.dispatches))
    for dispatch in commit.dispatches:
        args += row_of(dispatch)
    args += (2 if commit.coalesces else int(commit.pending), int(commit.decided))
    args += (0,) if commit.orchestration is None else (1, *commit.orchestration)
    args.append(int(commit.moved is not None))
    args += (commit.deadline_ms or 0, commit.retention_ms or 0, run.channel, commit.header.get("status", ""))
    args += (len(commit.attributes), *chain.from_iterable(commit.attributes.items()))
    if commit.attributes:
        args += (run.attributes, MAX_ATTRIBUTES)
    args += (len(written.blobs), *chain.from_iterable(written.blobs.items()))
    return args


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
        dispatch.sent if dispatch.delivery in MESSAGES else dispatch.due_ms,
    )


def arguments_of_search(search: Search, runs: str) -> list[Any]:
    """The ARGV of the script ``search``.

    Args:
        search: what is asked for.
        runs: what the keys of runs start with.
    """
    first, after = search.walked[0], search.after
    low, high = (search.since_ms or "", "") if first.kind == "s" else (_end(first.low), _end(first.high))
    rows = [
        part
        for condition in search.conditions
        for part in (f"a:{condition.name}", condition.kind, condition.text, _end(condition.low), _end(condition.high))
    ]
    statuses = "" if search.statuses is None else f"|{'|'.join(search.statuses)}|"
    place = ("", "") if after is None else (repr(after[0]), after[1])
    return [runs, WINDOW, search.limit + 1, low, high, *place, search.workflow or "", statuses, search.since_ms, *rows]


def _end(value: float | None) -> str:
    return "" if value is None else repr(value)
