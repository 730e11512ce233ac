"""One attempt of a step, from its claim to its report. Begin with `invocation.Invocation`.

The lease that is renewed meanwhile, the slots that limits grant, what the user's function can ask (`step_context`),
and what becomes of what it raises (`failure`).
"""
