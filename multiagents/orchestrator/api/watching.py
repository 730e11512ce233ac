"""The events of a run, as somebody watches it: `Run.watch`."""

from __future__ import annotations

from functools import partial

from multiagents.events import Event
from multiagents.exceptions import WorkflowError
from multiagents.orchestrator.api.following import Item, Read, Talk, Wait
from multiagents.orchestrator.api.progress import LOOK_EVERY, Progress
from multiagents.state_store import StateStore


def events_of(store: StateStore, transaction_id: str, after: int, poll: float) -> Talk[Event]:
    """Read a run's history as it grows, from a place in it to the run's end, with what heartbeats say.

    Args:
        store: where the run is.
        transaction_id: the run.
        after: how many events are known.
        poll: seconds between two looks while nothing happens.
    """
    progress, seen, version = Progress(store, transaction_id), 0, 0
    over = store.ending(transaction_id)  # held for all of it, so that the run stays listened for
    try:
        while True:
            news = store.ending(transaction_id, after=version, poll=poll)
            try:
                while not news.done():
                    yield Wait(news, None if progress.is_silent else max(poll, LOOK_EVERY))
                    if not news.done():
                        for event in (yield Read(progress.look)):
                            yield Item(event, str(seen))
                ended, version = news.result().is_end, news.version
            finally:
                news.cancel()
            events: list[Event] = yield Read(partial(store.history, transaction_id, seen))
            if seen + len(events) < after:
                raise WorkflowError(
                    f"run {transaction_id!r} has {seen + len(events)} events, and after={after} is none of them: it is "
                    f"of another run that had the id; watch it from the beginning"
                )
            for event in events:  # also those that are known: they say which steps are out
                seen += 1
                progress.take_in(event)
                if seen > after:
                    yield Item(event, str(seen))
            if ended:
                return
    finally:
        over.cancel()


def place(after: str | int | None) -> int:
    """How many events are known, as somebody says it.

    Raises:
        WorkflowError: when it is no number.
    """
    text = str(0 if after is None else after)
    if not text.isdecimal():
        raise WorkflowError(f"after={after!r:.80} is no place in a history: expected the .offset of what watch() gives")
    return int(text)
