"""Three claims: one approved, one rejected, one forgotten; and the worker is killed while all of them wait.

``python -m examples.expense_approval.main``, from the project's folder. It kills its worker, so it always starts a
Valkey and a worker of its own.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.text import Text

from examples._support.pictures import table
from examples._support.scene import Scene, run
from examples._support.world import World
from examples.expense_approval.workflow import expense_claim, petty_cash
from multiagents.exceptions import WorkflowError

#: Cents.
AMOUNT = 23_400
GRANTED = 20_000


def story(scene: Scene) -> None:
    """Hand the claims in, kill the worker, decide, and start another worker."""
    assert scene.worker is not None, "run() was told that this example kills its worker"
    scene.print(expense_claim.diagram("ascii"))
    approved = scene.start(expense_claim, "X-1", amount=AMOUNT)
    rejected = scene.start(expense_claim, "X-2", amount=AMOUNT)
    forgotten = scene.start(petty_cash, "X-3", amount=AMOUNT)
    for claim in (approved, rejected, forgotten):
        scene.until(claim, lambda seen: seen.steps["decision"].status != "not_started", "its approval")

    first = scene.worker.pid
    scene.worker.kill()
    scene.say(f"all three wait for a decision; kill -9 of the worker, {first}, and of its children: no process is left")

    try:
        approved.signal("decision", {"granted": GRANTED}, actor="ann")
        refused = ""
    except WorkflowError as error:
        refused = str(error)
    scene.say(f"ann decides about X-1 without saying how; she is told at once: {refused}")
    answer = approved.signal("decision", {"approved": True, "granted": GRANTED}, actor="ann", reason="without the wine")
    kept = (answer, approved.describe().status) == ("received", "running")
    scene.say(f"ann approves X-1 while nothing runs; her decision is {answer}, and kept in the store")

    scene.worker.restart()
    scene.say(f"another worker runs, {scene.worker.pid}")
    rejected.signal("decision", {"approved": False}, actor="ben", reason="no receipt")
    scene.say("ben rejects X-2, and nobody decides about X-3, which had a second\n")

    scene.check("a decision that does not fit is refused, and the run waits on", "approved" in refused, "WorkflowError")
    scene.check("a decision that comes while nothing runs is kept", kept, answer)
    scene.end(approved, "approved", "completed", budget="live", payment="live")
    for claim, about in ((rejected, "rejected"), (forgotten, "forgotten")):
        seen = scene.end(claim, about, "compensated", budget="undone")
        why = seen.error.type if seen.error else ""
        scene.check(f"{claim.transaction_id} is turned back by a no", why == "ApprovalRejected", why)

    show_who_decided(scene, [approved, rejected, forgotten])
    scene.show_world(["budget", "payment"], ["X-1", "X-2", "X-3"])
    amounts = [effect.amount for effect in scene.effects("X-1")]
    scene.check("what was granted was paid", amounts == [AMOUNT, GRANTED], str(GRANTED))
    before, after = ([call["pid"] for call in World().journal("X-1", kind)] for kind in ("budget", "payment"))
    scene.check(
        "another process went on",
        len(before) == len(after) == 1 and before != after,
        ", then ".join(map(str, before + after)),
    )


def show_who_decided(scene: Scene, claims: list[Any]) -> None:
    """Who decided, and why, is in the history."""
    rows = []
    for claim in claims:
        decisions = [event for event in claim.history() if getattr(event, "status", "") == "signalled"]
        for event in decisions:
            mark = Text("yes", style="green") if event.payload["answer"] == "yes" else Text("no", style="red")
            rows.append((claim.transaction_id, mark, event.actor, event.reason, f"{event.at:%H:%M:%S}"))
        if not decisions:
            rows.append((claim.transaction_id, Text("no", style="red"), "nobody", "time ran out", ""))
    scene.print(table("Who decided", ["claim", "decision", "who", "why", "when"], rows))
    found = [f"{name}: {who}: {why}" for name, _, who, why, _ in rows]
    expected = ["X-1: ann: without the wine", "X-2: ben: no receipt", "X-3: nobody: time ran out"]
    figures = ", ".join(f"{name} by {who}" for name, _, who, _, _ in rows)
    scene.check("who decided, and why, is in the history", found == expected, figures)


if __name__ == "__main__":
    sys.exit(run("expense_approval", story, kills=True))
