"""Runs are moved on here: decide, commit, publish, follow up. Begin with `pipeline`, then `engine.Engine`.

Three ways lead into the pipeline: `start` begins a run, `settle` takes what came of a claimed attempt, `advance`
decides upon a whole run. The decisions are those of `multiagents.workflow.decider`; here is what it takes to make them
last. Rules do not belong here.
"""

from __future__ import annotations

from multiagents.orchestrator.engine.advance import LEFT_FOR
from multiagents.orchestrator.engine.attempts import why_unclaimable
from multiagents.orchestrator.engine.child_ids import child_of, children_of
from multiagents.orchestrator.engine.children import is_done_by_child
from multiagents.orchestrator.engine.conflict_policy import OnConflict, identity_of
from multiagents.orchestrator.engine.dead_letters import keep
from multiagents.orchestrator.engine.eager import EagerEngine
from multiagents.orchestrator.engine.engine import Engine
from multiagents.orchestrator.engine.name_check import is_unannounced, missing_names, named, others, shared_names
from multiagents.orchestrator.engine.signals import SignalOutcome

__all__ = [
    "LEFT_FOR",
    "EagerEngine",
    "Engine",
    "OnConflict",
    "SignalOutcome",
    "child_of",
    "children_of",
    "identity_of",
    "is_done_by_child",
    "is_unannounced",
    "keep",
    "missing_names",
    "named",
    "others",
    "shared_names",
    "why_unclaimable",
]
