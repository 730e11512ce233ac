"""Any workflow, in any weather: a machine that makes up definitions and drives them through a shell that misbehaves.

The shell is the engine's in miniature. Each attempt in flight has a record; whoever answers has to match it. Answers
are held back, shuffled, doubled and dropped; a dropped one becomes a loss later, and may turn up after all. Runs are
cancelled at any moment, and attempts that nobody has claimed are taken back when the run turns. Steps are agents that
call tools, each of which has a compensation.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from multiagents.events import CommandEvent, CompensationEvent, ErrorEvent, ErrorInfo, ErrorKind, Event, ResultEvent
from multiagents.events import StatusEvent as Status
from multiagents.names import Correlation, Direction
from multiagents.retry import RetryPolicy
from multiagents.workflow.decider import (
    Fact,
    advance,
    changed_steps,
    decide,
    evolve,
    fan_in,
    fold,
    needs_undo,
    react,
    start_event,
)
from multiagents.workflow.decider.tool_calls import called_event
from multiagents.workflow.definition import Definition, StepDefinition, call_name, maker_of
from multiagents.workflow.state import Activity, ActivityStatus, RunState, RunStatus
from tests.support.driven_run import by

ID = "A-1"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OUTCOMES = ["result", "result", ErrorKind.FAILED, ErrorKind.TIMEOUT, ErrorKind.UNKNOWN, ErrorKind.NO_EFFECT, "terminal"]
pick = st.integers(0, 1_000)


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    """Sequences, forks and joins, any acyclic graph, in any order of definition, with any options."""
    count = draw(st.integers(1, 6))
    shape = draw(st.sampled_from(["sequence", "parallel", "graph", "graph"]))
    steps = {}
    for number in draw(st.permutations(range(count))):
        if shape == "sequence":
            before = {number - 1} if number else set()
        elif shape == "parallel":
            before = set() if number == 0 else {0} if number < count - 1 else set(range(count - 1))
        else:
            before = draw(st.sets(st.integers(0, number - 1))) if number else set()
        compensated = draw(st.booleans())
        in_block = draw(st.booleans())
        on_unknown = draw(st.sampled_from(["compensate", "compensate", "resolve", "park"]))
        steps[f"s{number}"] = StepDefinition(
            name=f"s{number}",
            worker=f"do_{number}",
            after=tuple(f"s{each}" for each in sorted(before)),
            compensation=f"undo_{number}" if compensated else None,
            compensate_on_failure=compensated and draw(st.booleans()),
            when=draw(st.sampled_from([None, None, None, bool, len, dict.items])),
            retry=RetryPolicy(max_attempts=draw(st.integers(1, 2)), initial_interval=draw(st.sampled_from([0, 5]))),
            undo_retry=RetryPolicy(max_attempts=draw(st.integers(1, 2))) if compensated else None,
            cancel_safe=draw(st.booleans()),
            external=draw(st.sampled_from([False, False, True])),
            on_unknown=on_unknown,
            resolve_with=f"probe_{number}" if on_unknown == "resolve" else None,
            block="risk" if in_block else None,
            cancel_siblings=in_block and draw(st.booleans()),
        )
    undoable = sorted(name for name, step in steps.items() if step.compensation)
    explicit = draw(st.none() | st.none() | st.permutations(undoable).map(tuple)) if undoable else None
    return Definition(name="any", steps=steps, compensate_in=explicit)


def ask(step: StepDefinition, command: CommandEvent) -> Event:
    """``bool`` stands for a `when` that is true, ``len`` for a false one, ``dict.items`` for one that raises."""
    common = {
        "id": f"{step.name}/asked",
        "transaction_id": ID,
        "timestamp": command.timestamp,
        "occurred_at": command.timestamp,
        "step": step.name,
    }
    if step.when is len:
        return Status(**common, status=Fact.SKIPPED)
    if step.when is dict.items:
        error = ErrorInfo(type="KeyError", message="total")
        return ErrorEvent(
            **common, correlation_id=command.correlation_id, attempt=command.attempt, error=error, retryable=False
        )
    return command


@dataclass
class Record:
    """An attempt in flight, as the store keeps it."""

    correlation: Correlation
    claimed: bool = False


class RunMachine(RuleBasedStateMachine):
    """One run; ``records`` is what the store holds, ``answers`` what is on its way to it."""

    @initialize(definition=definitions(), max_lost=st.integers(1, 3))
    def start(self, definition: Definition, max_lost: int) -> None:
        self.definition = definition
        self.now = NOON
        self.state = RunState(ID, definition.name)
        self.history: list[Event] = []
        self.records: dict[str, Record] = {}
        self.answers: list[Event] = []
        #: claimed attempts whose workers still run: also those that count as lost
        self.working: list[Correlation] = []
        self.undone: Counter[str] = Counter()
        #: join -> how many of its members have arrived
        self.arrived: Counter[str] = Counter()
        #: steps of unknown outcome of which a person has said that they are to be undone
        self.decided: set[str] = set()
        self.accepted: set[str] = set()
        begun = start_event(definition, ID, now=self.now, max_lost=max_lost)
        self.commit(begun, evolve(definition, self.state, begun))

    # --- what happens to it ---

    @rule(number=pick)
    @precondition(lambda self: any(not record.claimed for record in self.records.values()))
    def claim(self, number: int) -> None:
        waiting = [record for record in self.records.values() if not record.claimed]
        record = waiting[number % len(waiting)]
        record.claimed = True
        self.working.append(record.correlation)

    @rule(number=pick, outcome=st.sampled_from(OUTCOMES), dropped=st.booleans())
    @precondition(lambda self: self.working)
    def finish(self, number: int, outcome: Any, dropped: bool) -> None:
        """A worker comes to its end; when its answer is dropped, only its lease will tell."""
        correlation = self.working.pop(number % len(self.working))
        if not dropped:
            self.answers.append(self.answer(correlation, outcome))

    @rule(number=pick, doubled=st.booleans(), outcome=st.sampled_from(OUTCOMES))
    @precondition(lambda self: self.answers)
    def deliver(self, number: int, doubled: bool, outcome: Any) -> None:
        event = self.answers[number % len(self.answers)]
        if not doubled:
            self.answers.remove(event)
        self.take(event)

    @rule(number=pick)
    @precondition(lambda self: any(record.claimed for record in self.records.values()))
    def lose(self, number: int) -> None:
        """The lease of a claimed attempt runs out; its worker may go on without knowing."""
        claimed = [record for record in self.records.values() if record.claimed]
        correlation = claimed[number % len(claimed)].correlation
        self.take(self.answer(correlation, ErrorKind.LOST))

    @rule(number=pick)
    @precondition(lambda self: self.history)
    def hear_again(self, number: int) -> None:
        """Any fact of the past arrives once more, or a foreign answer to any attempt there ever was."""
        event = self.history[number % len(self.history)]
        if isinstance(event, CommandEvent | CompensationEvent):
            event = self.answer(Correlation.parse(event.correlation_id), OUTCOMES[number % len(OUTCOMES)])
        if isinstance(event, ResultEvent | ErrorEvent) and event.correlation_id:
            self.take(event)

    @rule(number=pick, tool=st.sampled_from(["flight", "hotel"]))
    @precondition(lambda self: self.working and not self.state.cancel_requested)
    def call(self, number: int, tool: str) -> None:
        """An agent that holds its attempt calls a tool."""
        makers = [each for each in self.working if self.is_held_by(each) and each.direction is Direction.DO]
        if makers:
            maker = makers[number % len(makers)]
            index = sum(name.startswith(f"{maker.step}.{tool}[") for name in self.state.called)
            self.now += timedelta(seconds=1)
            event = called_event(maker, call_name(maker.step, tool, index), f"undo_{tool}", self.now)
            self.commit(event, evolve(self.definition, self.state, event))

    @rule(number=pick, outcome=st.sampled_from(["result", "result", ErrorKind.FAILED, ErrorKind.UNKNOWN]))
    @precondition(lambda self: self.state.called)
    def call_ends(self, number: int, outcome: Any) -> None:
        """A tool answers: in time, or when the attempt that has called it is over, and then only a success is told."""
        name = sorted(self.state.called)[number % len(self.state.called)]
        in_time = self.state.step(name).do.in_flight and any(
            each.step == maker_of(name) and self.is_held_by(each) for each in self.working
        )
        self.now += timedelta(seconds=1)
        event = self.answer(Correlation(ID, name, Direction.DO, 1), outcome if in_time else "result")
        event = event.model_copy(
            update={"timestamp": self.now, "retryable": False} if in_time else {"timestamp": self.now}
        )
        self.commit(event, evolve(self.definition, self.state, event))

    def is_held_by(self, attempt: Correlation) -> bool:
        record = self.records.get(attempt.step)
        return record is not None and record.claimed and record.correlation == attempt

    @property
    def whole(self) -> Definition:
        """The definition with the calls of tools that the run has made."""
        return self.definition.expanded({}, (), self.state.called)

    @rule()
    @precondition(lambda self: len(self.history) > 4 and (not self.state.cancel_requested or self.is_held))
    def cancel(self) -> None:
        if self.is_held:
            self.decided |= {name for name, step in self.state.steps.items() if step.outcome == "unknown"}
        self.now += timedelta(seconds=1)
        event = Status(transaction_id=ID, timestamp=self.now, status=Fact.CANCEL_REQUESTED)
        self.commit(event, evolve(self.definition, self.state, event))

    @property
    def is_held(self) -> bool:
        return self.state.status is RunStatus.PAUSED

    # --- what must always be so ---

    @invariant()
    def the_history_tells_the_state(self) -> None:
        if self.history:
            assert fold(self.definition, ID, self.history) == self.state

    @invariant()
    def nothing_more_is_due_and_every_attempt_has_a_record(self) -> None:
        assert react(self.definition, self.state) == ()
        in_flight = {
            str(Correlation(ID, name, direction, activity.attempt))
            for name, step in self.state.steps.items()
            for direction, activity in ((Direction.DO, step.do), (Direction.UNDO, step.undo))
            if activity.in_flight and not (step.called and direction is Direction.DO)
        }
        assert in_flight == {str(record.correlation) for record in self.records.values()}

    @invariant()
    def a_live_run_waits_for_something(self) -> None:
        assert self.records or self.state.status.is_end or self.state.status is RunStatus.PAUSED

    def teardown(self) -> None:
        """Let everything arrive, and see how it ended."""
        if not self.history:
            return
        for _ in range(500):
            if self.answers:
                self.deliver(0, doubled=False, outcome=None)
            elif self.working:
                self.finish(0, outcome="result", dropped=False)
            elif any(not record.claimed for record in self.records.values()):
                self.claim(0)
            elif self.records:
                self.lose(0)
            elif self.is_held:
                self.cancel()
            else:
                break
        self.it_ended_as_it_should()

    def it_ended_as_it_should(self) -> None:
        status, steps = self.state.status, self.state.steps
        assert status.is_end
        assert self.state.finished_at is not None
        assert not self.records
        if status is RunStatus.COMPLETED:
            assert all(self.state.step(name).is_done for name in self.definition.steps)
            assert not self.undone
            return
        assert self.state.error is not None
        undos = [step.undo.status for step in steps.values()]
        for name, definition in self.whole.steps.items():
            step = self.state.step(name)
            if not needs_undo(definition, step):
                assert step.undo == Activity()
            elif not step.undo.is_over:
                assert step.undo.status is ActivityStatus.SUCCEEDED
                assert not step.undo_again
                # Once; and once more for each success that came after an undo had begun.
                assert 1 <= self.undone[name] <= 1 + len(step.late)
        assert (status is RunStatus.COMPENSATION_FAILED) == any(step.undo.is_over for step in steps.values())
        if status is RunStatus.FAILED:
            assert ActivityStatus.SUCCEEDED not in undos
        if status is RunStatus.COMPENSATED:
            assert ActivityStatus.SUCCEEDED in undos

    # --- the shell ---

    def answer(self, correlation: Correlation, outcome: Any) -> Event:
        common: dict[str, Any] = {
            "id": f"{correlation}/{outcome}",
            "transaction_id": ID,
            "correlation_id": str(correlation),
            "step": correlation.step,
            "attempt": correlation.attempt,
        }
        if outcome == "result":
            return ResultEvent(**common)
        kind = outcome if isinstance(outcome, ErrorKind) else ErrorKind.FAILED
        error = ErrorInfo(type="Trouble", message=str(outcome), attempt=correlation.attempt)
        return ErrorEvent(**common, kind=kind, error=error, retryable=outcome != "terminal")

    def take(self, event: Any) -> None:
        self.now += timedelta(seconds=1)
        event = event.model_copy(update={"timestamp": self.now})
        correlation = Correlation.parse(event.correlation_id)
        before = self.state
        awaited = self.records.get(correlation.step)
        matches = awaited is not None and awaited.correlation == correlation
        after = evolve(self.definition, before, event)
        if matches:
            assert after is not before
            del self.records[correlation.step]
            self.a_projection_says_a_part_of_it(event)
        elif after is not before:
            assert isinstance(event, ResultEvent)
            assert after.step(correlation.step).do == before.step(correlation.step).do
        if matches and isinstance(event, ResultEvent):
            assert event.correlation_id not in self.accepted
            self.accepted.add(event.correlation_id)
            if correlation.direction is Direction.UNDO:
                self.undone[correlation.step] += 1
        self.commit(event, after)
        # Deciding again with the same event gives the same state and says nothing.
        assert decide(self.definition, self.state, event, by(ask))[:2] == (self.state, ())

    def a_projection_says_a_part_of_it(self, event: Event) -> None:
        if self.state.status is not RunStatus.RUNNING:
            return
        part = self.state._replace(steps={event.step: self.state.step(event.step or "")})
        seen, said, *_ = decide(self.definition, part, event, by(ask))
        whole, all_said, *_ = decide(self.definition, self.state, event, by(ask))
        forward = (RunStatus.RUNNING, RunStatus.COMPLETED)
        if seen.status in forward and whole.status in forward:
            assert set(map(repr, said)) <= set(map(repr, all_said))
            assert all(whole.step(name) == step for name, step in seen.steps.items())
        elif seen.status not in forward:
            assert whole.status not in forward

    def each_that_is_done_arrives_once(self, before: RunState, after: RunState) -> None:
        """What decisions bring to a join adds up to those of its members that are done: so it is decided, and once."""
        changed = changed_steps(before, after)
        definition = self.definition.expanded({}, (), after.called)
        brought = fan_in(definition, before, after, changed, {}, results={}, context=None, now=self.now)
        for join, (arriving, _) in brought.arrivals.items():
            self.arrived[join] += arriving
        for join, step in self.definition.steps.items():
            if len(step.after) > 1:
                assert self.arrived[join] == sum(after.step(name).is_done for name in step.after)

    def commit(self, event: Event, state: RunState) -> None:
        """As the engine does: decide on the whole run, take back what nobody claimed, and record it all."""
        ended = self.state.status.is_end
        doing = {n: each for n, each in self.records.items() if each.correlation.direction is Direction.DO}
        unclaimed = {n for n, each in doing.items() if not each.claimed and not self.definition.steps[n].external}
        before = self.state
        state, said, *_ = advance(self.definition, state, now=self.now, answer=by(ask), unclaimed=unclaimed)
        facts = [event, *said]
        self.state = state
        self.each_that_is_done_arrives_once(before, state)
        replayed = fold(self.definition, ID, self.history)
        # A step that nobody had taken was taken back: whatever it declares, nothing of it is in doubt.
        unclaimed |= {fact.step for fact in said if isinstance(fact, CommandEvent) and not fact.probe}
        assert (
            not {fact.step for fact in said if isinstance(fact, Status) and fact.status == Fact.ATTEMPT_ABANDONED}
            & unclaimed
        )
        for name in doing:
            if not state.step(name).do.in_flight:
                del self.records[name]
        for fact in facts:
            replayed = evolve(self.definition, replayed, fact)
            self.history.append(fact)
            if isinstance(fact, CommandEvent | CompensationEvent):
                self.it_may_go_out(fact, replayed)
        for name, record in list(self.records.items()):
            # It was to go out, and the same decision took it back.
            if record.correlation.direction is Direction.DO and not state.step(name).do.in_flight:
                del self.records[name]
        if ended:
            assert not any(isinstance(fact, CommandEvent) for fact in facts)

    def it_may_go_out(self, fact: CommandEvent | CompensationEvent, state: RunState) -> None:
        name = fact.step or ""
        step = self.definition.expanded({}, (), state.called).steps[name]
        assert name not in self.records or fact.correlation_id != str(self.records[name].correlation)
        self.records[name] = Record(Correlation.parse(fact.correlation_id))
        if isinstance(fact, CommandEvent) and fact.probe:
            assert state.status in (RunStatus.RUNNING, RunStatus.COMPENSATING)
            assert fact.worker == step.resolve_with
            assert state.step(name).undo == Activity()
            return
        if isinstance(fact, CommandEvent):
            assert state.status is RunStatus.RUNNING
            assert all(state.step(before).is_done for before in step.after)
            assert not any(key.startswith(f"{ID}/{name}/") for key in self.accepted)
            return
        assert state.status is RunStatus.COMPENSATING
        assert step.compensation == fact.worker
        assert fact.outcome != "unknown" or step.on_unknown == "compensate" or name in self.decided
        assert not any(each.do.in_flight for each in state.steps.values())
        definition = self.definition.expanded({}, (), state.called)
        for other in self.behind(definition, name):
            undo = state.step(other).undo
            if needs_undo(definition.steps[other], state.step(other)):
                assert undo.is_over or (undo.status is ActivityStatus.SUCCEEDED and not state.step(other).undo_again)

    @staticmethod
    def behind(definition: Definition, name: str) -> list[str]:
        """What is to be undone before a step: what stands behind it, each with its calls, and its own newer calls."""
        maker = maker_of(name) if name in definition.called else name
        calls = definition.calls.get(maker, ())
        newer = calls if name == maker else calls[calls.index(name) + 1 :]
        explicit = definition.compensate_in
        if explicit is not None and maker in explicit:
            before = explicit[: explicit.index(maker)]
        elif explicit is not None:
            before = explicit
        else:
            before = tuple(after for after in definition.order if maker in definition.ancestors(after))
        return [each for other in before for each in (other, *definition.calls.get(other, ()))] + list(newer)


def test_any_run_ends_as_it_should_whatever_happens_to_its_events_G1_S5_S6_S18_S21() -> None:
    run_state_machine_as_test(RunMachine, settings=settings(max_examples=300, stateful_step_count=30))


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(4))
def test_any_run_ends_as_it_should_in_a_thousand_more_cases_G1_S5_S6_S18_S21(part: int) -> None:
    @seed(part)
    class Part(RunMachine):
        pass

    run_state_machine_as_test(Part, settings=settings(max_examples=1_000, stateful_step_count=60))
