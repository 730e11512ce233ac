"""The pure core: what a workflow is, how a run of it stands, and what follows when something happens.

`definition` is a workflow as frozen data, and `builder` what people write it down with; `state` is a run at a moment,
and `decider` says what comes next. No clock, no ids, no I/O: time and ids come in with the event, and the caller stores
and sends what is answered. Begin with `builder.WorkflowBuilder`, or with `decider.decide`; docs/glossary.md has the
words.
"""
