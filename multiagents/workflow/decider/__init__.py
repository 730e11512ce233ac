"""What happens next: pure functions of a definition, a state and an event. Begin with `decider.decide`.

`evolve` says what is, `react` what is due, `facts` what a status can state; each other file holds the rules of one
matter (retries, compensation, joins, timers, time-outs, save-points, children, operators). No clock, no I/O, no user
code: what takes user code comes out as a question (`questions`), and whoever asked for the decision answers it.
"""

from __future__ import annotations

from multiagents.workflow.decider.children import (
    concerns_others,
    failure_of_child,
    is_to_stop,
    is_undone,
    running_children,
    settled_with_child,
)
from multiagents.workflow.decider.commands import NOT_YET, command, start_event
from multiagents.workflow.decider.commands import status as said
from multiagents.workflow.decider.compensation import is_told_to_stop, needs_undo, stops_others
from multiagents.workflow.decider.context import all_results, as_given, as_mapping, merge, merge_note, overlaps
from multiagents.workflow.decider.decider import advance, advancing, decide, neighbourhood
from multiagents.workflow.decider.evolve import call_after, evolve, fold, why_late
from multiagents.workflow.decider.facts import FACTS, Fact, has_result, is_replayed, result_of
from multiagents.workflow.decider.fork import Takeover, takeover
from multiagents.workflow.decider.interventions import is_so_already, settleable, why_not
from multiagents.workflow.decider.joins import changed_steps, fan_in, meets
from multiagents.workflow.decider.probe_answer import Resolution, resolved
from multiagents.workflow.decider.questions import Decision, Question, answered, as_it_is
from multiagents.workflow.decider.react import react
from multiagents.workflow.decider.signals import Answer, Lateness, answer_of, lateness, rejected, signal_id, why_unclear
from multiagents.workflow.decider.timeouts import Silence
from multiagents.workflow.decider.timers import deadline_of, is_early, later, moved_to
from multiagents.workflow.decider.tool_calls import call_begun, called_event

__all__ = [
    "FACTS",
    "NOT_YET",
    "Answer",
    "Decision",
    "Fact",
    "Lateness",
    "Question",
    "Resolution",
    "Silence",
    "Takeover",
    "advance",
    "advancing",
    "all_results",
    "answer_of",
    "answered",
    "as_given",
    "as_it_is",
    "as_mapping",
    "call_after",
    "call_begun",
    "called_event",
    "changed_steps",
    "command",
    "concerns_others",
    "deadline_of",
    "decide",
    "evolve",
    "failure_of_child",
    "fan_in",
    "fold",
    "has_result",
    "is_early",
    "is_replayed",
    "is_so_already",
    "is_to_stop",
    "is_told_to_stop",
    "is_undone",
    "lateness",
    "later",
    "meets",
    "merge",
    "merge_note",
    "moved_to",
    "needs_undo",
    "neighbourhood",
    "overlaps",
    "react",
    "rejected",
    "resolved",
    "result_of",
    "running_children",
    "said",
    "settleable",
    "settled_with_child",
    "signal_id",
    "start_event",
    "stops_others",
    "takeover",
    "why_late",
    "why_not",
    "why_unclear",
]
