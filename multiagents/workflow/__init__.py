"""The pure core: definitions, state, and what follows from an event.

`builder` writes definitions down, `definition` is what they are, `state` is where a run stands, `decider` says what
comes next. The words are explained in docs/glossary.md, beside those of Temporal, Step Functions, BPMN and Celery.
"""
