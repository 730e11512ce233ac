"""One transition of a run, how it is written down, and what became of it. A start is the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from multiagents.events import Event
from multiagents.failpoints import WriteSite
from multiagents.names import identity_of
from multiagents.state_store.payloads import Writing, pack, signal_field
from multiagents.state_store.records.attempt import Dispatch
from multiagents.state_store.records.example import Lesson
from multiagents.workflow.state import StepState

_NOTHING: Mapping[str, Any] = MappingProxyType({})
#: In place of a retention: a run comes back from its end (rule S5), and its keys must not expire any more.
REVIVED = -1


class Commit(NamedTuple):
    """One transition of a run.

    Attributes:
        transaction_id: the run.
        events: the facts, oldest first; they go into the history.
        header: changed fields of the header; an empty value removes the field.
        steps: changed steps.
        answers: (step, what its record has to start with): the attempt that this commit answers, and ends.
        unrenewed: refuse if the lease of that attempt was renewed since it was found due (`Due.seen_ms`).
        ends: (step, the exact record) of other attempts that this commit takes back.
        epoch: refuse if what workers have in hand of the run has been overtaken since.
        version: refuse if anything was committed since.
        fresh: refuse if one of these steps has been begun: what sends out nothing but first attempts of them is fenced
            by this and the epoch, and needs no look at what else was committed.
        results: step -> its result.
        inputs: step -> what its ``inputs`` answered.
        signals: `signal_id` -> the data of a signal.
        absent: refuse if this field of the run's data is there: a signal with this key has come before.
        context: what to merge into the stored context.
        forgotten: keys of the stored context that go: the run went back to before they were there.
        dead_letters: what goes to the dead letters, by its key (`letter_key`).
        answered: dead letters that a person has settled: they go.
        dispatches: attempts that go out.
        arrivals: join -> how many of those it waits for arrive with this commit, and how many there are in all.
        pending: a decision is pending: leave a ``due`` entry for it.
        coalesces: whoever is to make a decision already makes this one, too: `Committed.decision_due` is answered, and
            ``orchestration`` pushed, only if none was pending before.
        orchestration: (list, prefix, suffix) of an orchestrator message to push along with it.
        decided: this is that decision: remove the entry.
        moved: (workflow, status before, status after): the run changes its place in the indexes.
        deadline_ms: the run is to be undone if it is not over after that long from now. None leaves that as it is.
        retention_ms: the run is over; keep it that long; or `REVIVED`. None while it is not.
        supersedes: it changes a step that a worker has in hand, who is to load the run before it decides.
        lesson: what the attempt that it answers leaves to learn from.
        attributes: what the run is found by, as `encode_attribute` writes it; an empty value removes one.
        site: where the engine makes it.
        nonce: of the run: another one that has its id by now is none (`Verdict.MISSING`).
    """

    transaction_id: str
    events: Sequence[Event]
    header: Mapping[str, str] = _NOTHING
    steps: Mapping[str, StepState] = _NOTHING
    answers: tuple[str, str] | None = None
    unrenewed: int | None = None
    ends: Sequence[tuple[str, str]] = ()
    epoch: int | None = None
    version: int | None = None
    fresh: Sequence[str] = ()
    results: Mapping[str, Any] = _NOTHING
    inputs: Mapping[str, Any] = _NOTHING
    signals: Mapping[str, Any] = _NOTHING
    absent: str = ""
    context: Mapping[str, Any] = _NOTHING
    forgotten: Sequence[str] = ()
    dead_letters: Mapping[str, Any] = _NOTHING
    answered: Sequence[str] = ()
    dispatches: Sequence[Dispatch] = ()
    arrivals: Mapping[str, tuple[int, int]] = _NOTHING
    pending: bool = False
    coalesces: bool = False
    orchestration: tuple[str, str, str] | None = None
    decided: bool = False
    moved: tuple[str, str, str] | None = None
    deadline_ms: int | None = None
    retention_ms: int | None = None
    supersedes: bool = False
    attributes: Mapping[str, str] = _NOTHING
    lesson: Lesson | None = None
    site: WriteSite = WriteSite.ADVANCE
    nonce: str = ""

    @property
    def identity(self) -> str:
        """The run, told apart from others with its id."""
        return identity_of(self.transaction_id, self.nonce)

    @property
    def raises_epoch(self) -> bool:
        """Whether what workers have in hand of the run is no longer so."""
        return self.supersedes or not self.header.keys().isdisjoint(("status", "stop", "signals", "error"))


class Written(NamedTuple):
    """What a commit writes, as text; made before anything is touched, so that nothing is written by halves.

    Attributes:
        fields: of the run's hash.
        removed: fields of it that go.
        context: of the stored context.
        results: of the run's data: ``r:<step>`` a result, ``n:<step>`` what ``inputs`` answered, ``g:<signal>`` what a
            signal brought.
        history: what goes to its end.
        dead_letters: by their keys.
        blobs: payloads that are kept beside the run, by name.
    """

    fields: dict[str, str]
    removed: list[str]
    context: dict[str, str]
    results: dict[str, str]
    history: list[str]
    dead_letters: dict[str, str]
    blobs: Mapping[str, str]

    @classmethod
    def of(cls, commit: Commit, writing: Writing) -> Written:
        """Write a commit down; what a payload store is to keep is there when this returns.

        Args:
            commit: the transition.
            writing: in what form; it has what is kept apart of the run's input, if this is its start.

        Raises:
            PayloadStoreError: when the payload store did not take it.
            TypeError: when something in it is not JSON.
            ValueError: when a number in it is not JSON.
        """
        policy, value = writing.policy, writing.value
        fields: dict[str, str] = {}
        removed: list[str] = []
        for name, text in commit.header.items():
            if text == "":
                removed.append(name)
            else:
                fields[name] = policy.header(name, text)
        for name, state in commit.steps.items():
            fields[f"s:{name}"] = state.encode() if policy.is_plain else policy.step(state)
        results: dict[str, str] = {}
        for step, result in commit.results.items():
            results[f"r:{step}"] = value(result)
        for step, given in commit.inputs.items():
            results[f"n:{step}"] = value(given)
        for signal, data in commit.signals.items():
            results[signal_field(signal)] = value(data)
        return cls(
            fields,
            removed,
            {key: value(part) for key, part in commit.context.items()},
            results,
            list(map(pack if policy.is_plain else policy.event, commit.events)),
            {key: policy.text(letter) for key, letter in commit.dead_letters.items()} if commit.dead_letters else {},
            policy.put_apart(commit.transaction_id, writing.blobs),
        )


class Verdict(StrEnum):
    """What became of a commit."""

    APPLIED = "applied"
    #: the attempt it answers is not the one in flight: a duplicate, or too late
    LATE = "late"
    #: the run has moved on: load it again and decide again
    CONFLICT = "conflict"
    #: the attempt that was to be given up is alive after all
    RENEWED = "renewed"
    #: there is no such run
    MISSING = "missing"


class Committed(NamedTuple):
    """The answer to a commit."""

    verdict: Verdict
    #: a join was completed, or the first of what coalesces has come: a decision over the whole run is pending
    decision_due: bool = False


class Started(NamedTuple):
    """The answer to a start: whether the run is new, and if not, what it was started with."""

    created: bool
    workflow: str
    definition_hash: str
    input_digest: str
    #: of a new one: the hash of another content with which a run of its name and version was started before
    other: str = ""
