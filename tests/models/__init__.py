"""Random workflows and runs, each compared with a model of what should happen."""
