"""Celery beat as the clock of schedules."""
