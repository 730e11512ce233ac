"""Runs that start by the clock. Begin with `schedule.Schedules`; `celery` is what beat is told."""
