"""The calls of a run as they are shown, read from what is stored of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic_core import from_json

from multiagents.clock import from_ms
from multiagents.exceptions import DecodeError
from multiagents.names import Direction
from multiagents.state_store.payloads import Reading
from multiagents.state_store.records.difference import restore
from multiagents.state_store.records.journal import CallRecord, CallState, Usage
from multiagents.state_store.records.journal_fields import Evidence, StoredCall, unmark


def calls_of(fields: Mapping[str, str], reading: Reading, step: str | None, last: int | None) -> list[CallRecord]:
    """The calls of a run, in the order in which they were begun, as they may be shown.

    Args:
        fields: the whole journal.
        reading: opens what is stored.
        step: of this step alone; None: of all.
        last: so many of the last; None: all.

    Raises:
        DecodeError: when something cannot be read.
    """
    stored: dict[tuple[str, str], dict[str, str]] = {}
    for name, text in fields.items():
        kind, of, way, *rest = name.split("|", 3)
        if step in (None, of):
            stored.setdefault((of, way), {})["|".join((kind, *rest))] = text
    try:
        pages = {place: _Page.read(*place, mine, reading) for place, mine in stored.items()}
        order = sorted(each for page in pages.values() for each in page.order())
        wanted = order if last is None else order[max(0, len(order) - last) :]
        shown = {place: page.records([each for each in wanted if each[1:3] == place]) for place, page in pages.items()}
    except (ValueError, TypeError, KeyError) as error:
        raise DecodeError(
            f"the journal of run {reading.transaction_id!r} cannot be read ({type(error).__name__}: {error}); "
            f"something else wrote there, or a newer release"
        ) from error
    return [next(shown[each[1:3]]) for each in wanted]


class _Place(NamedTuple):
    """Where a call, or a late answer to it, stands among all of the run."""

    begun: int
    step: str
    way: str
    slot: int
    #: of a late answer: when it came, and whose it is
    at: int = 0
    owner: str = ""


class _Page(NamedTuple):
    """What the journal has of one step in one direction."""

    step: str
    way: str
    mine: Mapping[str, str]
    reading: Reading
    calls: Mapping[int, StoredCall]
    late: Mapping[tuple[int, str], Evidence]

    @classmethod
    def read(cls, step: str, way: str, mine: Mapping[str, str], reading: Reading) -> _Page:
        calls = {int(name[2:]): StoredCall.decode(text) for name, text in mine.items() if name.startswith("c|")}
        late = {}
        for name, text in mine.items():
            if name.startswith("e|"):
                slot, owner = name[2:].split("|", 1)
                if int(slot) in calls:  # else both have come while a long journal was being read
                    late[int(slot), owner] = Evidence.decode(text)
        return cls(step, way, mine, reading, calls, late)

    def order(self) -> Iterator[_Place]:
        for slot, call in self.calls.items():
            yield _Place(call.begun, self.step, self.way, slot)
        for (slot, owner), each in self.late.items():
            yield _Place(self.calls[slot].begun, self.step, self.way, slot, each.at, owner)

    def records(self, wanted: Iterable[_Place]) -> Iterator[CallRecord]:
        """These calls and late answers, in this order: that of their slots."""
        wanted = list(wanted)
        texts = self._texts(wanted)
        hashes = self._hashes()
        requests = self._requests(texts, {place.slot for place in wanted})
        records = []
        for place in wanted:
            asked = requests.get(place.slot)
            record = self._record(place.slot, hashes.get(place.slot, ""), asked, texts.get(f"a|{place.slot}"))
            if place.owner:
                late = self.late[place.slot, place.owner]
                record = self._late(record, late, texts[f"e|{place.slot}|{place.owner}"])
            records.append(record)
        return iter(records)

    def _texts(self, wanted: Iterable[_Place]) -> Mapping[str, str]:
        """What is needed of texts, opened: all that was asked up to there, and what was answered to these."""
        most = max((place.slot for place in wanted), default=0)
        sealed = {name: self.mine[name] for slot in self.calls if slot <= most and (name := f"r|{slot}") in self.mine}
        for place in wanted:
            if place.owner:
                sealed[f"e|{place.slot}|{place.owner}"] = self.late[place.slot, place.owner].answer
            elif (name := f"a|{place.slot}") in self.mine:
                sealed[name] = self.mine[name]
        return self.reading.whole(sealed)

    def _hashes(self) -> dict[int, str]:
        return {
            slot: name.split("|", 3)[3]
            for name, text in self.mine.items()
            if name.startswith("q|")
            for slot in json.loads(text)[2:]
        }

    def _requests(self, texts: Mapping[str, str], wanted: set[int]) -> dict[int, Any]:
        """What was asked, put together along its chain; a text is kept no longer than another one is told by it."""
        told = Counter(self.calls[slot].base for slot in self.calls if f"r|{slot}" in texts)
        whole: dict[str, str] = {}
        found = {}
        for slot in sorted(self.calls):
            if f"r|{slot}" not in texts:
                continue
            call = self.calls[slot]
            text = restore(whole.get(call.base, ""), call.keep, unmark(texts[f"r|{slot}"]), call.tail)
            told[call.base] -= 1
            if not told[call.base]:
                whole.pop(call.base, None)
            if told[str(slot)]:
                whole[str(slot)] = text
            if slot in wanted:
                found[slot] = self._shown(text)
        return found

    def _shown(self, text: str | None) -> Any:
        if text is None:
            return None
        redact = self.reading.policy.redact
        value = _plain(text)
        return value if redact is None else redact(value)

    def _record(self, slot: int, hashed: str, request: Any, answer: str | None) -> CallRecord:
        call = self.calls[slot]
        started = call.begun + call.after
        is_answered = f"a|{slot}" in self.mine
        return CallRecord(
            self.step,
            Direction.UNDO if self.way == "u" else Direction.DO,
            str(slot),
            call.kind,
            call.name,
            hashed,
            call.occurrence,
            call.journal,
            call.attempt,
            CallState(call.state),
            request=request,
            answer=self._shown(answer),
            started=from_ms(started),
            finished=from_ms(started + call.took) if is_answered else None,
            usage=Usage(call.input_tokens, call.output_tokens, call.micro_usd, call.model),
            replayed=call.replayed,
            twice=call.twice,
            why=unmark(self.reading.text(self.mine.get(f"w|{slot}")) or ""),
        )

    def _late(self, record: CallRecord, late: Evidence, answer: str) -> CallRecord:
        return record._replace(
            attempt=late.attempt,
            state=CallState.EVIDENCE,
            answer=self._shown(answer),
            finished=from_ms(late.at),
            usage=Usage(late.input_tokens, late.output_tokens, late.micro_usd, late.model),
            replayed=0,
            twice=0,
            why=f"the attempt was over when this {'error' if late.failed else 'answer'} came",
        )


def _plain(text: str) -> Any:
    """A request or an answer as JSON; what is none is shown as it is."""
    try:
        return from_json(text)
    except ValueError:
        return text
