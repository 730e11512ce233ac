"""What needs DSPy: the question is put, the model asked, the tools called. Loaded by the first step of an agent.

Begin with `answer.perform`. The LM is asked through an engine of ours (`engine`), its tools are called through a class
of ours (`tools`): both know the journal, which DSPy does not. `dspy.configure` is never called here: what an agent
needs is said by `dspy.context` around it.
"""

from __future__ import annotations

from multiagents.agents.dspy.answer import perform
from multiagents.agents.dspy.learned import check_fit

__all__ = ["check_fit", "perform"]
