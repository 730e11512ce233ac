"""The app of the tests of schedules: a workflow that is started every second, by however many beats."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from multiagents import WorkflowBuilder, init_app, worker

app = Celery("schedules", broker=os.environ.get("CELERY_BROKER_URL"))
app.conf.update(broker_connection_retry_on_startup=True, beat_max_loop_interval=0.2)
orchestrator = init_app(app)


@worker("schedules.write")
def write(context: dict[str, Any]) -> dict[str, Any]:
    return {"written": context["of"]}


REPORT = WorkflowBuilder("schedules-report").add_step("write", write).build()
often = orchestrator.schedule("often", REPORT, 1, lambda tick: {"of": f"{tick:%H:%M:%S}"}, catch_up=True)
