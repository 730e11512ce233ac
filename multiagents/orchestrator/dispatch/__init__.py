"""How a message reaches a worker: the port, and Celery behind it. Begin with `base.Dispatcher`.

`celery` renders messages as Celery would and sends those that no commit pushes; `kombu` knows the broker's lists.
"""
