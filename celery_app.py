"""The Celery app of this project: ``celery -A celery_app worker``.

The broker, which is also where the state of the runs is kept, comes from ``CELERY_BROKER_URL`` or
``MULTIAGENTS_BROKER_URL``; the default is a Redis or Valkey on this machine.
"""

from __future__ import annotations

import os

from celery import Celery

from multiagents import init_app

BROKER = os.environ.get("CELERY_BROKER_URL") or os.environ.get("MULTIAGENTS_BROKER_URL") or "redis://localhost:6379/0"

app = Celery("multiagents", broker=BROKER)
app.conf.broker_connection_retry_on_startup = True
orchestrator = init_app(app)
app.autodiscover_tasks(["workers"])
app.autodiscover_tasks(["examples.ecommerce_order"], related_name="workflow")
