"""What is done with each file, and with all of them together, as workers."""

from __future__ import annotations

from typing import Any

from examples._support.world import RefusedError, Service
from multiagents import RetryPolicy, current_step, worker

#: A file that is still being written is there soon; a broken one never is.
UNLESS_BROKEN = RetryPolicy(max_attempts=4, initial_interval=0.2, non_retryable=(RefusedError,))

# These stand for a warehouse, the place from which it loads, and where its summaries are published.
warehouse = Service("load", seconds=0.3)
staging = Service("stage")
reports = Service("summary")


@worker("load_file", retry=UNLESS_BROKEN)
def load_file(context: dict[str, Any]) -> dict[str, Any]:
    """Load the rows of one file: ``context["item"]`` is its entry in the list."""
    warehouse.do(current_step().idempotency_key, subject(context), context["item"]["rows"])
    return {"rows": context["item"]["rows"]}


@worker("unload_file")
def unload_file(context: dict[str, Any]) -> dict[str, Any]:
    """Take the rows of one file out again."""
    return {"unloaded": warehouse.undo(current_step().idempotency_key, subject(context))}


@worker("stage_file")
def stage_file(context: dict[str, Any]) -> dict[str, Any]:
    """Copy one file to where it can be loaded from."""
    return {"staged": staging.do(current_step().idempotency_key, subject(context))}


@worker("unstage_file")
def unstage_file(context: dict[str, Any]) -> dict[str, Any]:
    """Remove the copy."""
    return {"unstaged": staging.undo(current_step().idempotency_key, subject(context))}


@worker("summarize_batch")
def summarize_batch(context: dict[str, Any]) -> dict[str, Any]:
    """Add up what all files brought: ``context["load"]`` is the list of their results, in the order of the files."""
    loaded = [result for result in context["load"] if result is not None]
    rows, missing = sum(result["rows"] for result in loaded), len(context["load"]) - len(loaded)
    reports.do(current_step().idempotency_key, context["id"], rows)
    return {"summary": {"rows": rows, "missing": missing}}


def subject(context: dict[str, Any]) -> str:
    """The file, as those outside know it: the batch and the name."""
    return f"{context['id']}/{context['item']['name']}"
