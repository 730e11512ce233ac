"""An expense claim: a person decides, whatever happens to the worker meanwhile."""
