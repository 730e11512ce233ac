"""How every state store moves older events to an archive, and reads them there. One suite over memory and Redis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multiagents.events import StatusEvent
from multiagents.exceptions import ConfigurationError, DecodeError, PayloadStoreError, WorkflowNotFoundError
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.payloads.archives import HistoryArchive
from multiagents.state_store.payloads.archives.file import FileArchive
from multiagents.state_store.payloads.archives.memory import InMemoryArchive
from multiagents.state_store.payloads.codecs.cryptography import AESGCMCodec
from multiagents.state_store.records import Commit, Verdict
from tests.support.store_kit import RedisKit, StoreKit


class Watched(InMemoryArchive):
    """Tells what it was asked, and may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.away = False

    def append(self, transaction_id: str, first: int, records: Sequence[str]) -> None:
        self.asked.append(f"append {len(records)} from {first}")
        if self.away:
            raise OSError("the disk is full")
        super().append(transaction_id, first, records)

    def read(self, transaction_id: str, first: int, last: int) -> Sequence[str]:
        self.asked.append(f"read {first} to {last}")
        return super().read(transaction_id, first, last)


@pytest.fixture(params=["memory", "files"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> HistoryArchive:
    return InMemoryArchive() if request.param == "memory" else FileArchive(tmp_path / "archive")


def note(kit: StoreKit, count: int, transaction_id: str = "order-1") -> None:
    """Put events into a history."""
    version = kit.store.load(transaction_id).version
    for number in range(count):
        event = StatusEvent(
            transaction_id=transaction_id, timestamp=kit.store.now(), status="note", reason=f"n{version + number}"
        )
        assert kit.store.commit(Commit(transaction_id, [event], version=version + number)).verdict is Verdict.APPLIED


def test_a_history_is_read_whole_wherever_its_events_are(kit: StoreKit, archive: HistoryArchive) -> None:
    kit.under(PayloadPolicy(archive=archive))
    kit.begin()
    note(kit, 6)
    before = kit.store.history("order-1")

    moved = kit.store.archive("order-1", keep=3)

    assert (moved, len(kit.stored()["history"])) == (5, 3)
    for after in range(10):
        assert kit.store.history("order-1", after) == before[after:]
    note(kit, 1)
    assert kit.store.archive("order-1") == 3
    assert kit.store.history("order-1")[:-1] == before
    assert len(kit.stored()["history"]) == 1


def test_the_newest_event_always_stays(kit: StoreKit, archive: HistoryArchive) -> None:
    kit.under(PayloadPolicy(archive=archive))
    kit.begin()

    assert [kit.store.archive("order-1", keep=keep) for keep in (5, 0, 0)] == [0, 1, 0]


def test_over_the_limit_older_events_move_by_themselves(kit: StoreKit) -> None:
    archive = Watched()
    kit.under(PayloadPolicy(archive=archive, history_limit=3))
    kit.begin()

    note(kit, 9)

    assert archive.asked == ["append 4 from 0", "append 4 from 4"]
    assert len(kit.stored()["history"]) == 3
    assert [event.reason for event in kit.store.history("order-1")[2:]] == [f"n{number}" for number in range(1, 10)]


def test_what_is_read_from_the_run_alone_asks_no_archive(kit: StoreKit) -> None:
    archive = Watched()
    kit.under(PayloadPolicy(archive=archive))
    kit.begin()
    note(kit, 4)
    kit.store.history("order-1")
    kit.store.archive("order-1", keep=2)

    kit.store.history("order-1", 4)

    assert archive.asked == ["append 4 from 0"]


def test_a_commit_does_not_fail_because_the_archive_is_away(kit: StoreKit) -> None:
    archive = Watched()
    kit.under(PayloadPolicy(archive=archive, history_limit=1))
    kit.begin()
    archive.away = True

    note(kit, 3)

    assert len(kit.store.history("order-1")) == 5
    with pytest.raises(PayloadStoreError, match="the archive did not do what it was asked: OSError: the disk is full"):
        kit.store.archive("order-1")
    archive.away = False
    note(kit, 1)
    assert (len(kit.stored()["history"]), len(kit.store.history("order-1"))) == (1, 6)


def test_a_process_without_the_archive_says_that_it_lacks_it(kit: StoreKit, archive: HistoryArchive) -> None:
    kit.under(PayloadPolicy(archive=archive))
    kit.begin()
    kit.store.archive("order-1")
    kit.under(PayloadPolicy())

    with pytest.raises(DecodeError, match=r"the first 1 events of run 'order-1' were moved .* is not set here"):
        kit.store.history("order-1")
    assert len(kit.store.history("order-1", 1)) == 1
    with pytest.raises(ConfigurationError, match="set multiagents_history_archive to a folder"):
        kit.store.archive("order-1")
    with pytest.raises(DecodeError, match="does not have all of them"):
        kit.under(PayloadPolicy(archive=InMemoryArchive())).history("order-1")


def test_there_is_nothing_to_move_of_a_run_that_does_not_exist(kit: StoreKit, archive: HistoryArchive) -> None:
    with pytest.raises(WorkflowNotFoundError, match="'order-1'"):
        kit.under(PayloadPolicy(archive=archive)).archive("order-1")


def test_what_is_encrypted_stays_so_in_the_archive(kit: StoreKit) -> None:
    archive = InMemoryArchive()
    policy = PayloadPolicy(archive=archive, codecs=(AESGCMCodec({"1": b"k" * 32}),))
    kit.under(policy)
    kit.begin()
    note(kit, 2)

    kit.store.archive("order-1")

    assert not any('"n1"' in record for record in archive.read("order-1", 0, 9))
    assert kit.store.history("order-1")[2].reason == "n1"
    with pytest.raises(DecodeError, match='the codec "aes-gcm"'):
        kit.under(replace(policy, codecs=())).history("order-1")


def test_the_archive_outlives_the_run_and_a_later_run_of_its_id_does_not_read_it(
    kit: StoreKit, archive: HistoryArchive
) -> None:
    kit.under(PayloadPolicy(archive=archive))
    kit.begin()
    note(kit, 4)
    kit.store.archive("order-1")
    kit.end()

    kit.store.forget("order-1")

    assert len(archive.read("order-1", 0, 9)) == 5
    assert kit.store.history("order-1") == []
    kit.begin()
    kit.store.archive("order-1")
    assert [event.type for event in kit.store.history("order-1")] == ["status", "command"]


def test_a_move_that_was_not_finished_is_made_again(kit: StoreKit, archive: HistoryArchive) -> None:
    kit.under(PayloadPolicy(archive=archive))
    kit.begin()
    note(kit, 4)
    before = kit.store.history("order-1")
    archive.append("order-1", 0, kit.stored()["history"][:2])  # and then it was killed

    kit.store.archive("order-1", keep=2)

    assert kit.store.history("order-1") == before


def test_a_reader_who_is_overtaken_by_a_move_reads_all_of_it(
    redis_kit: RedisKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_kit.under(PayloadPolicy(archive=InMemoryArchive()))
    redis_kit.begin()
    note(redis_kit, 4)
    before = redis_kit.store.history("order-1")
    asked: list[int] = []
    call = redis_kit.server.call

    def overtaken(action: Any) -> Any:
        asked.append(1)
        if len(asked) == 1:
            redis_kit.another().archive("order-1", keep=2)
        return call(action)

    monkeypatch.setattr(redis_kit.server, "call", overtaken)

    assert redis_kit.store.history("order-1", 1) == before[1:]
    assert len(asked) == 2


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    archive = FileArchive(tmp_path)
    archive.append("order-1", 0, ["a", "ü\nb"])
    with (tmp_path / "order-1.jsonl").open("a") as file:
        file.write('[2, "c')

    assert archive.read("order-1", 0, 3) == ["a", "ü\nb"]
    archive.append("order-1", 2, ["c", "d"])
    assert archive.read("order-1", 1, 4) == ["ü\nb", "c", "d"]


@pytest.mark.parametrize("name", [".", "..", "a:b@c.d-e", "x" * 128])
def test_any_id_of_a_run_is_the_name_of_a_file(tmp_path: Path, name: str) -> None:
    archive = FileArchive(tmp_path / "archive")

    archive.append(name, 0, ["a"])

    assert archive.read(name, 0, 1) == ["a"]
    assert [path.parent for path in tmp_path.rglob("*.jsonl")] == [tmp_path / "archive"]
