"""What people call: start, look, steer. Begin with `orchestrator.Orchestrator`, then `run.Run`.

Nothing is decided here; each verb loads, asks the engine, and says in words what came of it.
"""
