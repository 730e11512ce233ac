"""Any workflow that can be written, at random, and what is to be seen of a run of it.

`elements` makes one up and is its model, `case` is one with what people do meanwhile, `stage` runs it in this process,
`comparison` holds what was seen against the model.
"""
