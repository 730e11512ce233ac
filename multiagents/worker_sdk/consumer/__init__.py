"""What is changed in a Celery worker's own machinery, and only there. Begin with `kombu`, the lean acknowledgement.

`celery` has the request class of steps, and what looks for hard limits. Nothing is imported from here: Celery and kombu
load what they are told by its path, in worker processes alone.
"""
