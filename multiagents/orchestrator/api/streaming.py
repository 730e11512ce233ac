"""What the steps of a run say while they run, as it is read: `Run.stream`."""

from __future__ import annotations

from functools import partial

from multiagents.exceptions import UnknownStepError
from multiagents.orchestrator.api.following import Item, Read, Talk, Wait
from multiagents.state_store import StateStore
from multiagents.state_store.records import EntryKind, Offset, StreamEntry
from multiagents.workflow.definition import Definition

#: What the names of steps go on with that are laid out for another one: items of a map, rounds of a loop, branches.
_PARTS = ("[", "#", ".")


def entries_of(store: StateStore, transaction_id: str, step: str | None, known: str) -> Talk[StreamEntry]:
    """Read a run's stream, from an offset to the run's end.

    Args:
        store: where the run is.
        transaction_id: the run.
        step: of this step alone, with those that are laid out for it; None: of all.
        known: the last entry that is known, as `known_of` has it.
    """
    if step is not None:
        _check(step, (yield Read(partial(store.load, transaction_id))).definition)
    listens = store.ending(transaction_id)  # held for all of it, so that the run stays listened for
    try:
        while True:
            page = yield Read(partial(store.streams.read, transaction_id, known))
            known = page.offset
            for entry in page.entries:
                if step is None or entry.kind == EntryKind.GAP or _is_of(entry.step or "", step):
                    yield Item(entry, entry.offset)
            if not page.is_whole:
                continue
            if page.status.is_end:
                return
            news = store.ending(transaction_id, entry=known)
            try:
                yield Wait(news)
                if news.done():
                    news.result()  # There may be no such run any more.
            finally:
                news.cancel()
    finally:
        listens.cancel()


def known_of(after: str | None) -> str:
    """The last entry that is known, as the store names it.

    Args:
        after: as `StreamEntry.offset` has it; None: none.

    Raises:
        WorkflowError: when it is no offset.
    """
    return Offset.parse(after).stored if after else ""


def _is_of(name: str, step: str) -> bool:
    return name == step or (name.startswith(step) and name[len(step)] in _PARTS)


def _check(step: str, definition: Definition) -> None:
    if not any(_is_of(name, step) for name in definition.steps):
        written = [name for name in definition.steps if not any(mark in name for mark in _PARTS)]
        raise UnknownStepError(definition.name, step, written)
