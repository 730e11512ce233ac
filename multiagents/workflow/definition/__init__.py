"""What a workflow is, as frozen data: its steps, their order, its hash. Begin with `definition.Definition`.

Written by the builder, kept by the stores under its content hash, read by everything else; nothing here changes once
it is made. What a run adds to it (the items of a map, the passes of a save-point) is a definition of its own:
`expansion`.
"""
