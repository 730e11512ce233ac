"""Workers: functions that are Celery tasks, and how an attempt of a step is run."""
