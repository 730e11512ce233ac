"""How a function is run in each pool: time limits, one event loop a process, real threads. Begin with `timeouts`.

Nothing here knows of steps or runs.
"""
