"""Workers that learn: `optimize` is a saga that makes a better program of what an agent has done, and has it asked.

What a user calls is `start.optimize`; its steps are in `steps`. What needs DSPy is in `agents.dspy.optimizing`.
"""

from __future__ import annotations

from multiagents.agents.optimizing.start import optimize

__all__ = ["optimize"]
