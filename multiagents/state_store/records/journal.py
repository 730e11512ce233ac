"""The values of the journal: the calls that an attempt makes inside its step, to a model or to a tool (rule S35)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Self

from multiagents.events import ErrorEvent, ResultEvent
from multiagents.names import Direction
from multiagents.state_store.records.difference import difference
from multiagents.workflow.state import StepState

#: How many calls the journal of a step has at most, those of all attempts together.
MAX_CALLS = 10_000
#: How many answers that came too late are kept of a step.
MAX_EVIDENCE = 20
#: How many models `StepUsage.models` names.
MAX_MODELS = 20


class CallKind(StrEnum):
    """What is called."""

    #: a language model
    LM = "lm"
    #: a tool
    TOOL = "tool"
    #: a person, who says whether a tool may be called
    APPROVAL = "approval"
    #: whoever is asked which tools there are
    LISTING = "listing"


class CallVerdict(StrEnum):
    """What whoever wants to make a call is told."""

    #: it is new, and written down as begun: make it
    LIVE = "live"
    #: it has been answered: this is the answer
    REPLAY = "replay"
    #: an earlier attempt began it, and nobody knows what became of it: it is begun again, so make it
    AGAIN = "again"
    #: the same, of a call that must not be made twice: do not make it
    DOUBT = "doubt"
    #: the attempt is no longer ours: do not make it
    LOST = "lost"
    #: there are as many as there may be (`Begun.bound`): do not make it
    FULL = "full"
    #: it is not what an earlier attempt has done, and whoever asks wants to be told before: do not make it
    DIVERGED = "diverged"
    #: the run is to stop, or is paused: do not make it
    STOPPED = "stopped"


class CallState(StrEnum):
    """How it stands with a call; the values are what is stored."""

    STARTED = "s"
    ANSWERED = "d"
    #: answered by an error
    FAILED = "f"
    #: its answer made its attempt fail: it is not used again
    REFUSED = "x"
    #: it was not answered, as whoever was asked is busy or away; whoever asks the same makes a call of its own
    UNANSWERED = "u"
    #: it was begun, and is not made for now: a limit or a budget does not let it
    WITHHELD = "h"
    #: an answer that came when the attempt that had asked was over
    EVIDENCE = "e"


class Request(NamedTuple):
    """What is asked: a text, canonical JSON, told by that of a call before it in the same step.

    Attributes:
        base_slot: that call, by `Begun.slot`; empty: none, and ``text`` is all of it.
        keep: how many characters of that text this one begins with.
        text: what is between its beginning and its end.
        tail: how many characters of that text this one ends with.
    """

    base_slot: str = ""
    keep: int = 0
    text: str = ""
    tail: int = 0

    @classmethod
    def after(cls, base_slot: str, previous: str, text: str) -> Self:
        """Tell a text by another one.

        Args:
            base_slot: the call whose request the other one is; empty: none.
            previous: that request's whole text.
            text: this one's.

        >>> Request.after("1", '["hello"]', '["hello","again"]')
        Request(base_slot='1', keep=8, text=',"again"', tail=1)
        """
        if not base_slot:
            return cls(text=text)
        keep, rest, tail = difference(previous, text)
        return cls(base_slot, keep, rest, tail)


class CallUndo(NamedTuple):
    """What undoes the call of a tool.

    Attributes:
        compensation: the worker.
        arguments: what it is given: those of the call, plain JSON.
    """

    compensation: str
    arguments: Any


class CallOutcome(NamedTuple):
    """What a call that is a step of its run has come to.

    Attributes:
        event: its outcome, as that of any attempt; of a success with the result.
        state: the step after it.
    """

    event: ResultEvent | ErrorEvent
    state: StepState


class Call(NamedTuple):
    """A call that an attempt wants to make.

    Attributes:
        kind: ``lm``, ``tool`` or ``listing``.
        hash: of all that makes it this call; 128 bits suffice. It takes place in the store, so it had better be short.
        number: the how manieth call of this attempt it is, from 1; with the same number it is the same call.
        name: of the model or the tool.
        request: what is asked; None keeps nothing of it.
        again: whether it may be made twice, where nobody knows what became of it.
        idempotent: whether it is of no account if it is made twice: it is not marked as such.
        strict: do not begin it if it is not what an earlier attempt has done.
        most: how many calls of this tool the step may make, all attempts together; 0 is any number.
        undo: of a tool: what undoes the call, which is then a step of the run from its beginning on (rule S36).
    """

    kind: str
    hash: str
    number: int
    name: str = ""
    request: Request | None = None
    again: bool = True
    idempotent: bool = False
    strict: bool = False
    most: int = 0
    undo: CallUndo | None = None


class Opened(NamedTuple):
    """The answer to an attempt that begins.

    Attributes:
        pins: what the first attempt of this journal has fixed, by name.
        recorded: how many calls have been answered and can be replayed.
        lost: the attempt is not ours (any more): nothing was fixed, and ``pins`` is what was brought.
    """

    pins: Mapping[str, str]
    recorded: int
    lost: bool = False


class Begun(NamedTuple):
    """The answer to a call that is to be made.

    Attributes:
        verdict: whether to make it.
        slot: its place in the journal of the step; empty where it has none.
        answer: of a replay: what was answered.
        failed: of a replay: the answer is an error.
        occurrence: the how manieth call with this hash it is, from 1; 0 where it has no slot.
        diverged: it is not what an earlier attempt has done; said once an attempt.
        twice: it may have been made twice.
        cancelled: the run is to stop.
        paused: the run is paused.
        bound: where the verdict is ``full``: how many there may be, `Call.most` or `MAX_CALLS`.
        unanswered: how many calls with this hash right before it were not answered.
        waited_ms: of a doubtful one: how long ago it was begun first (ms).
        nth: of a tool: the how manieth call of it in the step this is, from 1; 0 where that is not known.
        state: the call as a step of the run; None where it is none.
    """

    verdict: CallVerdict
    slot: str = ""
    answer: Any = None
    failed: bool = False
    occurrence: int = 0
    diverged: bool = False
    twice: bool = False
    cancelled: bool = False
    paused: bool = False
    bound: int = 0
    unanswered: int = 0
    waited_ms: int = 0
    nth: int = 0
    state: StepState | None = None


class Decided(NamedTuple):
    """The answer to a person who decides upon a call.

    Attributes:
        is_new: whether it was not decided before.
        decision: the one that counts.
    """

    is_new: bool
    decision: Any


class Usage(NamedTuple):
    """What one call has used.

    Attributes:
        input_tokens: what was asked, in tokens.
        output_tokens: what was answered, in tokens.
        micro_usd: what it cost, in millionths of a US dollar.
        model: who has answered, as he calls himself; empty: as the call says.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    micro_usd: int = 0
    model: str = ""

    @property
    def usd(self) -> float:
        """What it cost, in US dollars."""
        return self.micro_usd / 1_000_000


class StepUsage(NamedTuple):
    """What the calls of a step have used, all attempts together; of what was replayed, nothing is counted again.

    Attributes:
        calls: how many were begun.
        replayed: how often one was answered from the journal.
        possibly_paid_twice: how many were begun again, because nobody knew what became of them.
        input_tokens: what was asked, in tokens.
        output_tokens: what was answered, in tokens.
        micro_usd: what it cost, in millionths of a US dollar.
        latency: seconds between asking and answer, of all that were answered, together.
        models: who was asked, and who has answered, in this order; at most `MAX_MODELS`.
    """

    calls: int = 0
    replayed: int = 0
    possibly_paid_twice: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    micro_usd: int = 0
    latency: float = 0.0
    models: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data, the money in dollars."""
        told = {name: value for name, value in self._asdict().items() if name != "micro_usd"}
        return {**told, "usd": self.usd, "models": list(self.models)}

    @property
    def usd(self) -> float:
        """What it cost, in US dollars."""
        return self.micro_usd / 1_000_000


class CallRecord(NamedTuple):
    """One call, as the journal shows it.

    Attributes:
        step: the step.
        direction: whether the step was being done or undone.
        slot: its place in the journal of the step.
        kind: ``lm``, ``tool`` or ``listing``.
        name: the model or the tool.
        hash: of all that makes it this call.
        occurrence: the how manieth with this hash.
        journal: 1, and one more each time the step was tried afresh.
        attempt: the number of the attempt that began it last; of evidence, that which has answered.
        state: how it stands with it.
        request: what was asked, as it may be shown.
        answer: what was answered, as it may be shown.
        started: when it was begun last.
        finished: when it was answered.
        usage: what it has used, as far as it was told.
        replayed: how often it was answered from the journal.
        twice: how often it was begun again, because nobody knew what became of it.
        why: why its answer is not used again.
    """

    step: str
    direction: Direction
    slot: str
    kind: str
    name: str
    hash: str
    occurrence: int
    journal: int
    attempt: int
    state: CallState
    request: Any
    answer: Any
    started: datetime
    finished: datetime | None = None
    usage: Usage = Usage()
    replayed: int = 0
    twice: int = 0
    why: str = ""
