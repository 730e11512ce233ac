"""What an attempt of an agent leaves to learn from, and what is read of it again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from multiagents.clock import from_ms
from multiagents.names import parse_identity
from multiagents.plain_json import dumps
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.records.difference import difference, restore
from multiagents.workflow.state import RunStatus

#: Bytes of JSON that an example may have. One with more loses its trace; one that has more without it is left out.
MAX_EXAMPLE = 64 * 1024
#: Texts of a trace from so many characters on are told by the one before them.
_LONG = 200
#: What stands in the place of such a text: how far it begins as the other one did, how far it ends so, what is between.
_TOLD = "~"


class Lesson(NamedTuple):
    """What a commit keeps of an attempt, to be learned from; a later attempt of the step takes its place.

    Attributes:
        worker: whose.
        step: the step.
        text: an `Experience`, as it is stored.
        most: how many a worker has; the oldest go first.
        keep_ms: how long they are kept.
    """

    worker: str
    step: str
    text: str
    most: int
    keep_ms: int


class Traced(NamedTuple):
    """What one predictor of a program was asked, and what it came to.

    Attributes:
        predictor: its name in the program.
        inputs: field -> value.
        outputs: field -> value.
    """

    predictor: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


class Experience(NamedTuple):
    """What an attempt of an agent was about and has come to; all of it plain JSON.

    Attributes:
        inputs: the input fields of its question.
        outputs: the output fields of the answer; None of an attempt that failed, and of an agent without a question.
        trace: what its predictors were asked, in this order; empty where that was too much to keep.
        error: what it failed with, in words; empty if it has not.
        attempt: which attempt of the step it was.
        seconds: how long it took.
        models: which models it may ask.
        program: the version of the program that has answered; empty where the worker has but one.
        dspy: the release of DSPy.
        edited: a person has changed what a tool was called with, or has supplied the outputs.
        wanted: the output fields of its question, while it has no outputs.
    """

    inputs: Mapping[str, Any] = {}
    outputs: Mapping[str, Any] | None = None
    trace: Sequence[Traced] = ()
    error: str = ""
    attempt: int = 1
    seconds: float = 0.0
    models: Sequence[str] = ()
    program: str = ""
    dspy: str = ""
    edited: bool = False
    wanted: Sequence[str] = ()

    def supplied(self, result: Any) -> Experience | None:
        """It with what a person says that it should have come to; None if that answers no question of its."""
        said = result if isinstance(result, Mapping) else {}
        outputs = {name: said[name] for name in self.wanted or self.outputs or () if name in said}
        return self._replace(outputs=outputs, error="", trace=(), edited=True, wanted=()) if outputs else None

    def written(self, policy: PayloadPolicy) -> str | None:
        """It as it is stored: without what is not to be shown, for it is made to be taken elsewhere.

        Returns:
            None if it is too large to be kept, even without its trace.
        """
        shown = self if policy.redact is None else self._redacted(policy)
        for one in (shown, shown._replace(trace=())):
            text = dumps(_short(one._replace(trace=_told(one.trace))._asdict()))
            if len(text.encode("utf-8", "surrogatepass")) <= MAX_EXAMPLE:
                return policy.seal(text)
        return None

    def _redacted(self, policy: PayloadPolicy) -> Experience:
        redact = policy.redact or (lambda value: value)
        trace = [Traced(each.predictor, redact(each.inputs), redact(each.outputs)) for each in self.trace]
        return self._replace(
            inputs=redact(self.inputs), outputs=None if self.outputs is None else redact(self.outputs), trace=trace
        )

    @classmethod
    def read(cls, text: str, policy: PayloadPolicy) -> Experience:
        """The inverse of `written`; what a newer release has added is left out.

        Raises:
            DecodeError: when it cannot be read here.
        """
        fields = json.loads(policy.open(text))
        made = cls(**{name: value for name, value in fields.items() if name in cls._fields})
        return made._replace(
            trace=_whole([Traced(*each) for each in made.trace]), models=tuple(made.models), wanted=tuple(made.wanted)
        )


class Feedback(NamedTuple):
    """What somebody has said of what an agent has done.

    Attributes:
        score: from 0 to 1.
        note: in words.
        actor: who.
        at: when (ms).
    """

    score: float
    note: str = ""
    actor: str = ""
    at: int = 0

    def written(self, policy: PayloadPolicy) -> str:
        """It as it is stored."""
        return policy.text(list(self))

    @classmethod
    def read(cls, text: str, policy: PayloadPolicy) -> Feedback:
        """The inverse of `written`."""
        return cls(*json.loads(policy.open(text))[: len(cls._fields)])


class Example(NamedTuple):
    """One execution of an agent's step, to learn from.

    Attributes:
        worker: the agent.
        transaction_id: the run.
        nonce: which of those that have had its id.
        step: the step; an item of a map and a round of a loop have steps of their own.
        at: when it was over.
        place: where it stands among the worker's; the next page begins before it.
        experience: what it was about and has come to.
        outcome: the status of its run, which goes on or has ended so; None where nobody knows any more.
        edited: a person has changed what came of it: arguments of a tool, or the result of a step of its run.
        feedback: what was said of it last.
    """

    worker: str
    transaction_id: str
    nonce: str
    step: str
    at: datetime
    place: int
    experience: Experience
    outcome: str | None = None
    edited: bool = False
    feedback: Feedback | None = None

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The input fields of its question."""
        return self.experience.inputs

    @property
    def outputs(self) -> Mapping[str, Any] | None:
        """The output fields of the answer; None if there was none."""
        return self.experience.outputs

    @property
    def trace(self) -> Sequence[Traced]:
        """What its predictors were asked, and what each came to."""
        return self.experience.trace

    @property
    def score(self) -> float | None:
        """What somebody has thought of it, from 0 to 1; None if nobody has said so."""
        return None if self.feedback is None else self.feedback.score

    @property
    def has_ended(self) -> bool:
        """Whether it is known how its run has ended."""
        return self.outcome is not None and RunStatus(self.outcome).is_end

    def as_dict(self) -> dict[str, Any]:
        """It as plain JSON: a line of an export."""
        about, said = self.experience, self.feedback or Feedback(0.0)
        return {
            "worker": self.worker,
            "transaction_id": self.transaction_id,
            "nonce": self.nonce,
            "step": self.step,
            "at": self.at.isoformat(),
            "inputs": dict(about.inputs),
            "outputs": None if about.outputs is None else dict(about.outputs),
            "trace": [each._asdict() for each in about.trace],
            "outcome": self.outcome,
            "edited": self.edited,
            "score": self.score,
            "note": said.note or None,
            "scored_by": said.actor or None,
            "error": about.error or None,
            "attempt": about.attempt,
            "seconds": about.seconds,
            "models": list(about.models),
            "program": about.program or None,
            "dspy": about.dspy,
        }

    @classmethod
    def decode(cls, worker: str, stored: StoredExample, policy: PayloadPolicy) -> Example:
        """Put one together from what is stored.

        Raises:
            DecodeError: when it cannot be read here.
        """
        identity, _, step = stored.member.partition("|")
        transaction_id, nonce = parse_identity(identity)
        experience = Experience.read(stored.text, policy)
        return cls(
            worker,
            transaction_id,
            nonce,
            step,
            from_ms(stored.at),
            stored.at,
            experience,
            stored.outcome or None,
            stored.edited or experience.edited,
            Feedback.read(stored.feedback, policy) if stored.feedback else None,
        )


class StoredExample(NamedTuple):
    """What a store has of an example.

    Attributes:
        member: the run and the step, ``<transaction>~<nonce>|<step>``.
        at: when it was written (ms); no two of a worker and partition were at once.
        text: an `Experience`, as it is stored.
        outcome: the run's status; empty if nobody knows.
        edited: a person has settled something in the run.
        feedback: a `Feedback`, as it is stored; empty for none.
    """

    member: str
    at: int
    text: str
    outcome: str = ""
    edited: bool = False
    feedback: str = ""


def _short(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is as it mostly is."""
    defaults = Experience._field_defaults
    return {name: value for name, value in fields.items() if value != defaults[name]}


def _told(trace: Sequence[Traced]) -> tuple[Any, ...]:
    """A trace in which long texts are told by the last one of the same predictor and field.

    Each turn of an agent repeats all turns before it; so a trace grows with the conversation, not with its square.
    """
    before: dict[tuple[str, str], str] = {}
    told = []
    for each in trace:
        fields: dict[str, Any] = {}
        for name, value in each.inputs.items():
            fields[name] = value
            if isinstance(value, str) and len(value) >= _LONG:
                last = before.get((each.predictor, name))
                before[each.predictor, name] = value
                if last is not None:
                    keep, text, tail = difference(last, value)
                    fields[name] = {_TOLD: [keep, text, tail]}
            elif isinstance(value, Mapping) and value.keys() == {_TOLD}:
                fields[name] = {_TOLD: value}  # the user's own
        told.append((each.predictor, fields, each.outputs))
    return tuple(told)


def _whole(trace: Sequence[Traced]) -> tuple[Traced, ...]:
    """The inverse of `_told`."""
    before: dict[tuple[str, str], str] = {}
    whole = []
    for each in trace:
        fields = dict(each.inputs)
        for name, value in each.inputs.items():
            if isinstance(value, Mapping) and value.keys() == {_TOLD}:
                told = value[_TOLD]
                if isinstance(told, Mapping):
                    fields[name] = told
                    continue
                fields[name] = restore(before[each.predictor, name], *told)
            text = fields[name]
            if isinstance(text, str) and len(text) >= _LONG:
                before[each.predictor, name] = text
        whole.append(each._replace(inputs=fields))
    return tuple(whole)
