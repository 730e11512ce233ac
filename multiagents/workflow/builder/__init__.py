"""How a workflow is written down, checked and compiled to a definition. Begin with `builder.WorkflowBuilder`.

`elements` is what people write; `layout` and the compiler turn it into the steps of a `Definition`; the checks say
what is wrong with the words of whoever wrote it. Nothing here is needed to run a workflow.
"""
