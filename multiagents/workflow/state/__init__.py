"""What a run is at a moment, as frozen values and two tables of transitions. Begin with `run_state.RunState`.

`run_state` has the run as a whole, `activity` one step in one direction (its work or its undo). Both tables are drawn
in docs/states.md. Only `multiagents.workflow.decider` makes new states.
"""
