"""Runs are moved on here: load or claim, decide, commit, publish. Begin with `engine.Engine`.

The decisions are those of `multiagents.workflow.decider`; here is what it takes to make them last: the user's own
code is asked, the commit is tried again when another came first, what it says is sent.
"""
