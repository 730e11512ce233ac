"""Three steps: two that compute, and one that asks a model."""

from __future__ import annotations

from examples.hello.workers import compose_message
from multiagents import WorkflowBuilder
from workers import add, greet

hello = (
    WorkflowBuilder("hello", version="1")
    .add_step("greet", greet)
    .add_step("add", add)
    .add_step("message", compose_message)
    .build()
)
