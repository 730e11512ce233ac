"""What happens next: pure functions of a definition, a state and an event. Begin with `decider.decide`.

`evolve` says what is, `react` what is due; each other file holds the rules of one matter (retries, compensation,
timers, save-points, joins, operators). No clock, no I/O, no user code: what must be asked outside is asked by whoever
calls.
"""
