"""What steps say while they run, and how it is read: one suite over memory and Redis."""

from __future__ import annotations

from typing import Any

import pytest

from multiagents import failpoints
from multiagents.exceptions import DecodeError, StateStoreError, WorkflowError, WorkflowNotFoundError
from multiagents.failpoints import WriteSite
from multiagents.names import Correlation, Direction
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.payloads.codecs.cryptography import AESGCMCodec
from multiagents.state_store.payloads.redaction import redactor
from multiagents.state_store.records import EntryKind, Offset, Said, StreamEntry
from multiagents.workflow.state import RunStatus
from tests.support.journaled import Agent
from tests.support.store_kit import RUN, STEP, RedisKit, StoreKit

MOST = 1_000


@pytest.fixture
def speaker(kit: StoreKit) -> Agent:
    """A worker that has taken an attempt of the run."""
    return Agent(kit)


def says(speaker: Agent, *items: Any, before: int = 0, most: int = MOST, owner: str | None = None) -> bool:
    said = [item if isinstance(item, Said) else Said(EntryKind.ITEM, item) for item in items]
    held = owner or speaker.owner
    return speaker.kit.store.streams.append(speaker.correlation, held, said, before=before, most=most)


def read(kit: StoreKit, after: str = "") -> list[StreamEntry]:
    """All that there is."""
    found: list[StreamEntry] = []
    while True:
        page = kit.store.streams.read(RUN, after)
        found += page.entries
        after = page.offset
        if page.is_whole:
            return found


def told(entries: list[StreamEntry]) -> list[tuple[str, Any, int]]:
    return [(entry.kind, entry.data, entry.attempt) for entry in entries]


def test_what_a_step_says_is_read_in_its_order(speaker: Agent) -> None:
    assert says(speaker, "one", {"file": 2})
    assert says(speaker, Said(EntryKind.TOKEN, "three", "answer", "7"), before=2)

    entries = read(speaker.kit)
    assert told(entries) == [("item", "one", 1), ("item", {"file": 2}, 1), ("token", "three", 1)]
    assert [(entry.step, entry.direction, entry.call, entry.field) for entry in entries] == [
        (STEP, "do", None, None),
        (STEP, "do", None, None),
        (STEP, "do", "7", "answer"),
    ]


def test_offsets_are_in_order_as_texts(speaker: Agent) -> None:
    says(speaker, *range(120))

    offsets = [entry.offset for entry in read(speaker.kit)]
    assert offsets == sorted(offsets)
    assert len(set(offsets)) == 120


def test_a_reader_that_comes_back_misses_nothing_and_gets_nothing_twice(speaker: Agent) -> None:
    says(speaker, *range(1_200), most=10_000)
    entries = read(speaker.kit)
    assert [entry.data for entry in entries] == list(range(1_200))

    for at in (0, 498, 499, 500, 1_199):
        rest = read(speaker.kit, Offset.parse(entries[at].offset).stored)
        assert [entry.data for entry in rest] == list(range(at + 1, 1_200))


def test_what_is_no_offset_is_refused_in_words() -> None:
    with pytest.raises(WorkflowError, match=r"after='yesterday' is no offset of a stream: expected the .offset of"):
        Offset.parse("yesterday")


def test_a_run_that_says_nothing_has_an_empty_stream(speaker: Agent) -> None:
    assert speaker.kit.store.streams.read(RUN) == ([], "", RunStatus.RUNNING, True)


def test_the_stream_of_a_run_that_is_not_there_is_an_error(kit: StoreKit) -> None:
    with pytest.raises(WorkflowNotFoundError):
        kit.store.streams.read("nobody")


# --- whose turn it is ------------------------------------------------------------------------------------------------


def test_another_attempt_says_first_that_it_is_another(speaker: Agent) -> None:
    says(speaker, "half")
    speaker.is_lost()

    assert says(speaker, "whole")
    says(speaker, "and more", before=1)

    said = [("item", "half", 1), ("attempt", 2, 2), ("item", "whole", 2), ("item", "and more", 2)]
    assert told(read(speaker.kit)) == said


def test_an_attempt_after_one_that_has_said_nothing_has_nothing_to_take_back(speaker: Agent) -> None:
    speaker.is_lost()

    says(speaker, "whole")

    assert told(read(speaker.kit)) == [("item", "whole", 2)]


def test_G2_who_has_lost_the_attempt_says_nothing_any_more(speaker: Agent) -> None:
    lost, owner = speaker.correlation, speaker.owner
    says(speaker, "half")
    speaker.is_lost()

    assert not speaker.kit.store.streams.append(lost, owner, [Said(EntryKind.ITEM, "late")], before=1, most=MOST)
    assert not says(speaker, "never mine", owner="somebody")
    assert told(read(speaker.kit)) == [("item", "half", 1)]


def test_what_a_compensation_says_is_told_apart(kit: StoreKit) -> None:
    speaker = Agent(kit, undo=True)

    says(speaker, "refunded")

    [entry] = read(kit)
    assert (entry.direction, entry.attempt, entry.data) == ("undo", 1, "refunded")
    assert speaker.correlation.direction is Direction.UNDO


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_a_stream_keeps_so_many_entries_about(speaker: Agent) -> None:
    for number in range(0, 1_000, 50):
        says(speaker, *range(number, number + 50), before=number, most=100)

    entries = read(speaker.kit)
    assert 100 <= len(entries) <= 301  # Redis drops whole nodes, of a hundred each
    assert entries[-1].data == 999


def test_who_reads_behind_what_is_kept_is_told_how_much_is_missing(speaker: Agent) -> None:
    says(speaker, *range(5))
    known = read(speaker.kit)[2]
    for number in range(5, 1_005, 50):
        says(speaker, *range(number, number + 50), before=number, most=100)

    gap, first, *_ = read(speaker.kit, Offset.parse(known.offset).stored)
    assert (gap.kind, gap.data, gap.step) == ("gap", first.data - 3, None)
    assert known.offset < gap.offset < first.offset
    assert read(speaker.kit, Offset.parse(gap.offset).stored)[0] == first


def test_who_reads_from_the_beginning_is_told_what_is_missing_too(speaker: Agent) -> None:
    for number in range(0, 1_000, 50):
        says(speaker, *range(number, number + 50), before=number, most=100)

    gap, first, *_ = read(speaker.kit)
    assert (gap.kind, gap.data) == ("gap", first.data)


# --- it goes with its run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["forget", "delete", "replace"])
def test_a_stream_goes_with_its_run_and_another_of_the_id_begins_a_new_one(speaker: Agent, way: str) -> None:
    kit = speaker.kit
    says(speaker, "of the first")
    [known] = read(kit)
    kit.end()
    if way == "forget":
        assert kit.store.forget(RUN)
    elif way == "delete":
        kit.store.delete(RUN, status=RunStatus.COMPLETED, tombstone="stone")
    if way != "replace":
        with pytest.raises(WorkflowNotFoundError):
            read(kit)
        assert kit.stored() == {}

    kit.begin(replaces=[RunStatus.COMPLETED])

    assert read(kit) == []
    assert kit.store.streams.read(RUN, Offset.parse(known.offset).stored).entries == []
    kit.claim(owner="another")
    append = kit.store.streams.append
    append(Correlation(RUN, STEP, Direction.DO, 1), "another", [Said(EntryKind.ITEM, "new")], before=0, most=MOST)
    assert told(read(kit)) == [("item", "new", 1)]
    # Who knows the run that is gone learns that this is another one.
    assert told(read(kit, Offset.parse(known.offset).stored)) == [("gap", None, 0), ("item", "new", 1)]


def test_a_clock_that_was_set_back_hides_nothing_of_the_next_run(speaker: Agent) -> None:
    kit = speaker.kit
    says(speaker, *range(5))
    known = read(kit)[-1]
    kit.end()
    kit.set_clock(-3_600)

    kit.begin(replaces=[RunStatus.COMPLETED])
    kit.claim(owner="another")
    append = kit.store.streams.append
    append(Correlation(RUN, STEP, Direction.DO, 1), "another", [Said(EntryKind.ITEM, "new")], before=0, most=MOST)

    assert told(read(kit, Offset.parse(known.offset).stored)) == [("gap", None, 0), ("item", "new", 1)]


# --- who waits -------------------------------------------------------------------------------------------------------


def test_who_waits_for_an_entry_hears_of_it_at_once(speaker: Agent) -> None:
    kit = speaker.kit
    says(speaker, "one")
    page = kit.store.streams.read(RUN)
    waits = kit.store.ending(RUN, entry=page.offset)
    try:
        assert not waits.done()

        says(speaker, "two", before=1)

        assert waits.result(10) is RunStatus.RUNNING
        [entry] = kit.store.streams.read(RUN, page.offset).entries
        assert entry.data == "two"
    finally:
        waits.cancel()


def test_an_entry_that_was_there_before_somebody_waited_is_not_waited_for(speaker: Agent) -> None:
    kit = speaker.kit
    held = kit.store.ending(RUN, poll=60)  # somebody else, so that the run is listened for already
    first = kit.store.ending(RUN, entry="", poll=60)
    says(speaker, "one")
    assert first.result(10) is RunStatus.RUNNING

    assert kit.store.ending(RUN, entry="", poll=60).result(10) is RunStatus.RUNNING
    held.cancel()


def test_who_waits_for_an_entry_hears_of_the_end(speaker: Agent) -> None:
    waits = speaker.kit.store.ending(RUN, entry="")

    speaker.kit.end()

    assert waits.result(10) is RunStatus.COMPLETED
    assert speaker.kit.store.streams.read(RUN).status is RunStatus.COMPLETED


def test_who_waits_for_the_end_alone_is_not_woken_by_entries(speaker: Agent) -> None:
    waits = speaker.kit.store.ending(RUN)

    says(speaker, "one")
    also = speaker.kit.store.ending(RUN, entry="")
    also.result(10)

    assert not waits.done()
    waits.cancel()


# --- payloads --------------------------------------------------------------------------------------------------------


def test_what_is_said_is_encrypted_and_what_is_not_to_be_seen_is_not_kept(kit: StoreKit) -> None:
    codec = AESGCMCodec({"k1": bytes(range(32))})
    kit.under(PayloadPolicy(codecs=(codec,), redact=redactor(["*secret*"])))
    speaker = Agent(kit)

    says(speaker, {"secret": "a", "shown": "b-visible"}, Said(EntryKind.TOKEN, "c", "my_secret"))

    assert [entry.data for entry in read(kit)] == [{"secret": "[redacted]", "shown": "b-visible"}, "[redacted]"]
    if isinstance(kit, RedisKit):
        kept = kit.client.xrange(kit.keys.of_run(RUN).stream)
        assert "b-visible" not in str(kept)


def test_what_cannot_be_read_here_says_so(redis_kit: RedisKit) -> None:
    Agent(redis_kit)
    redis_kit.client.xadd(redis_kit.keys.of_run(RUN).stream, {"what": "is this"})

    with pytest.raises(DecodeError, match="the stream of run 'order-1' has an entry without the field"):
        read(redis_kit)


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("undo", [False, True], ids=["do", "undo"])
@pytest.mark.parametrize("is_made", [False, True], ids=["before", "after"])
def test_G5_who_never_hears_that_an_entry_was_written_repeats_it_and_nothing_is_there_twice(
    kit: StoreKit, is_made: bool, undo: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker = Agent(kit, undo=undo)
    says(speaker, "half")
    speaker.is_lost()
    if isinstance(kit, RedisKit):
        site = WriteSite.STREAM_APPEND_UNDO if undo else WriteSite.STREAM_APPEND
        hit: list[WriteSite] = []

        def injector(at: WriteSite, action: Any) -> Any:
            if at is not site or hit:
                return action()
            hit.append(at)
            if is_made:
                action()
            raise StateStoreError("nobody has heard of it")

        monkeypatch.setattr(failpoints, "injector", injector)
        with pytest.raises(StateStoreError):
            says(speaker, 1, 2)
    elif is_made:
        says(speaker, 1, 2)

    assert says(speaker, 1, 2, 3)  # what it had, and what came meanwhile
    assert says(speaker, 4, before=3)

    again = [("item", number, 2) for number in (1, 2, 3, 4)]
    assert told(read(kit)) == [("item", "half", 1), ("attempt", 2, 2), *again]
