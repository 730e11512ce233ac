"""What several suites share: apps for workers, what tests drive them with, and scenes of a whole deployment."""

from __future__ import annotations

from pathlib import Path

#: The repository: where processes that tests start find `tests` and `multiagents`.
ROOT = Path(__file__).parents[2]
