"""A Celery task that was there already, run as a step. Begin with `celery.run`."""
