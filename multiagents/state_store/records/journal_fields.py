"""How the journal of a run is stored: the fields of one hash, the same in every store.

Each is named ``<kind>|<step>|<d or u>``, and some have more behind it. What is a text of users (a request, an answer, a
reason, pins) went through codecs. What need not be JSON (a request, a reason) begins with ``=`` before that.

=========================  ===========================================================================================
``j|...``                  `Head`
``p|...|<journal>``        pins
``q|...|<journal>|<k>|<h>``  of a kind and a hash: whose turn it was last, how many it has asked for, the slots
``c|...|<slot>``           `StoredCall`
``r|...|<slot>``           its request, but for what it has in common with that of its base
``a|...|<slot>``           its answer
``w|...|<slot>``           why it was refused
``e|...|<slot>|<owner>``   `Evidence`
``n|...|<name>``           how many calls of this tool there are
``b|...|<key>``            what is spent of a budget of the run, or of the step (`records.budget.Ledger`)
``u|...``                  how many of the calls are to be undone as steps are
=========================  ===========================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple, Self

from multiagents.names import Direction
from multiagents.plain_json import dumps
from multiagents.state_store.records.journal import MAX_MODELS, StepUsage, Usage

#: What a request begins with before it goes through codecs: without it, it could begin as what went through them does.
_MARK = "="


def place_of(step: str, direction: Direction) -> str:
    """What the names of the fields of a step have behind their kind."""
    return f"{step}|{direction.value[0]}"


def mark(text: str) -> str:
    """A text that need not be JSON, before it goes through codecs."""
    return _MARK + text


def unmark(text: str) -> str:
    """The inverse of `mark`."""
    return text.removeprefix(_MARK)


class Head(NamedTuple):
    """What is kept of the calls of a step as a whole; the scripts have these names, too."""

    #: the number of the journal that is filled now
    journal: int = 1
    #: how many attempts there were, and who has the last of them
    turn: int = 0
    #: how many calls there are, and how many of them are of earlier journals
    calls: int = 0
    since: int = 0
    #: how many calls of this journal have an answer that is good
    recorded: int = 0
    #: and how many of these the attempt has not asked for, of those that were there before it
    left: int = 0
    #: the highest number that it has given a call
    high: int = 0
    #: whether it was told that it does something else than those before it
    diverged: int = 0
    replayed: int = 0
    twice: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    micro_usd: int = 0
    #: ms
    latency: int = 0
    #: how many answers that came too late are kept
    evidence: int = 0
    owner: str = ""
    #: one in each line
    models: str = ""
    #: how many of the calls ask a person
    approvals: int = 0
    #: and how many were begun and are not made, for now
    withheld: int = 0

    @classmethod
    def decode(cls, text: str | None) -> Self:
        """Read the stored form; what an earlier release did not write has its default."""
        return cls() if text is None else cls(*json.loads(text)[: len(cls._fields)])

    def encode(self) -> str:
        """The stored form."""
        return dumps(list(self))

    def turned(self, owner: str) -> Self:
        """The same, when this one has the turn; another owner is another attempt."""
        if owner == self.owner:
            return self
        return self._replace(owner=owner, turn=self.turn + 1, left=self.recorded, high=0, diverged=0)

    def named(self, model: str) -> Self:
        """The same with one more model."""
        known = self.models.split("\n") if self.models else []
        if not model or model in known or len(known) >= MAX_MODELS:
            return self
        return self._replace(models="\n".join([*known, model]))

    def spent(self, usage: Usage) -> Self:
        """The same when so much more was used."""
        return self._replace(
            input_tokens=self.input_tokens + usage.input_tokens,
            output_tokens=self.output_tokens + usage.output_tokens,
            micro_usd=self.micro_usd + usage.micro_usd,
        ).named(usage.model)


class StoredCall(NamedTuple):
    """What is kept of one call; the scripts have these names, too."""

    state: str
    kind: str
    journal: int
    occurrence: int
    #: the attempt that has asked last, by its turn; with which number, and what it was told
    turn: int
    number: int
    how: str
    #: the attempt that began it last, by its number
    attempt: int
    #: when it was begun first; how long after that last; how long it took from then (ms)
    begun: int
    after: int = 0
    took: int = 0
    replayed: int = 0
    twice: int = 0
    base: str = ""
    keep: int = 0
    tail: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    micro_usd: int = 0
    name: str = ""
    model: str = ""
    #: of a tool: the how manieth call of it, from 1; 0 where that is not known
    nth: int = 0
    #: 1 if it is to be undone as a step is
    undone: int = 0

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read the stored form; what an earlier release did not write has its default."""
        return cls(*json.loads(text)[: len(cls._fields)])

    def encode(self) -> str:
        """The stored form."""
        return dumps(list(self))


class Evidence(NamedTuple):
    """An answer that came when the attempt that had asked was over."""

    attempt: int
    at: int
    failed: int
    input_tokens: int
    output_tokens: int
    micro_usd: int
    model: str
    answer: str

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read the stored form."""
        return cls(*json.loads(text)[: len(cls._fields)])

    def encode(self) -> str:
        """The stored form."""
        return dumps(list(self))


def heads_of(steps: Sequence[str]) -> list[str]:
    """The fields that `usage_of` reads."""
    return [f"j|{place_of(step, direction)}" for step in steps for direction in Direction]


def usage_of(steps: Sequence[str], heads: Sequence[str | None]) -> dict[str, StepUsage]:
    """What the calls of steps have used, by what `heads_of` names."""
    found = {}
    for step, pair in zip(steps, zip(heads[::2], heads[1::2], strict=True), strict=True):
        there = [Head.decode(text) for text in pair if text is not None]
        if any(head.calls for head in there):
            models = [model for head in there for model in head.models.split("\n") if model]
            found[step] = StepUsage(
                calls=sum(head.calls - head.approvals - head.withheld for head in there),
                replayed=sum(head.replayed for head in there),
                possibly_paid_twice=sum(head.twice for head in there),
                input_tokens=sum(head.input_tokens for head in there),
                output_tokens=sum(head.output_tokens for head in there),
                micro_usd=sum(head.micro_usd for head in there),
                latency=sum(head.latency for head in there) / 1000,
                models=tuple(dict.fromkeys(models)),
            )
    return found
