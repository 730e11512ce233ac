"""What is done with each file, and with all of them together, as workers."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from examples.batch_processing.warehouse import Warehouse
from examples.world import RefusedError
from multiagents import RetryPolicy, current_step, worker

#: A file that is still being written is there soon; a broken one never is.
UNLESS_BROKEN = RetryPolicy(max_attempts=4, initial_interval=0.2, non_retryable=(RefusedError,))


@cache
def warehouse() -> Warehouse:
    """The warehouse of this process, opened at first use: importing this module opens nothing."""
    return Warehouse.from_environment()


@worker("load_file", retry=UNLESS_BROKEN)
def load_file(context: dict[str, Any]) -> dict[str, Any]:
    """Load the rows of one file: ``context["item"]`` is its name."""
    time.sleep(warehouse().delay(0.3))
    return warehouse().load(current_step().idempotency_key, context["id"], context["item"])


@worker("unload_file")
def unload_file(context: dict[str, Any]) -> dict[str, Any]:
    """Take the rows of one file out again."""
    time.sleep(warehouse().delay(0.2))
    return {"unloaded": warehouse().undo("unload", current_step().idempotency_key, context["id"], "load")}


@worker("stage_file")
def stage_file(context: dict[str, Any]) -> dict[str, Any]:
    """Copy one file to where it can be loaded from."""
    return warehouse().stage(current_step().idempotency_key, context["id"], context["item"])


@worker("unstage_file")
def unstage_file(context: dict[str, Any]) -> dict[str, Any]:
    """Remove the copy."""
    return {"unstaged": warehouse().undo("unstage", current_step().idempotency_key, context["id"], "stage")}


@worker("summarize_batch")
def summarize_batch(context: dict[str, Any]) -> dict[str, Any]:
    """Add up what all files brought: ``context["load"]`` is the list of their results, in the order of the files."""
    loaded = [result for result in context["load"] if result is not None]
    rows, missing = sum(result["rows"] for result in loaded), len(context["load"]) - len(loaded)
    return {"summary": warehouse().summarize(current_step().idempotency_key, context["id"], rows, missing)}
