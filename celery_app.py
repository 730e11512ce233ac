"""The Celery app of this project: ``celery -A celery_app worker``.

The broker, which is also where the state of the runs is kept, is a Redis or Valkey on this machine, unless
``CELERY_BROKER_URL`` in the environment names another one: Celery itself prefers that. Agents ask Gemini, with the key
in ``GOOGLE_API_KEY`` or ``GEMINI_API_KEY``, or the model that ``MULTIAGENTS_LM`` names.
"""

from __future__ import annotations

from celery import Celery

from examples import EXAMPLES
from examples._support import model
from multiagents import init_app

app = Celery("multiagents", broker="redis://localhost:6379/0")
app.conf.broker_connection_retry_on_startup = True
app.conf.multiagents_lm = model.chosen()
orchestrator = init_app(app)
app.autodiscover_tasks(["workers"])
app.autodiscover_tasks([f"examples.{name}" for name in EXAMPLES], related_name="workflow")
