"""Two ways to load the files of a night: all of them or none, and as many as can be read."""

from __future__ import annotations

from examples.batch_processing.workers import load_file, stage_file, summarize_batch, unload_file, unstage_file
from multiagents import Child, WorkflowBuilder

#: How many files are loaded at once.
AT_ONCE = 4

#: All or none: one file that cannot be read takes the whole batch back.
nightly_batch = (
    WorkflowBuilder("nightly_batch", version="1")
    .add_map("load", load_file, over="files", max_concurrency=AT_ONCE, compensation=unload_file)
    .add_step("summary", summarize_batch, no_compensation="it only counts")
    .build()
)

#: One file as a run of its own: when it fails, it undoes what it did.
one_file = (
    WorkflowBuilder("one_file", version="1")
    .add_step("stage", stage_file, compensation=unstage_file)
    .add_step("load", load_file, compensation=unload_file)
    .build()
)

#: As many as can be read: a file that fails is passed over, and the others go on.
lenient_batch = (
    WorkflowBuilder("lenient_batch", version="1")
    .add_map("load", Child("load", one_file, on_failure="continue"), over="files", max_concurrency=AT_ONCE)
    .add_step("summary", summarize_batch, no_compensation="it only counts")
    .build()
)
