"""The code bases of workers that tests start as processes: each module has a Celery app, named ``app``."""
