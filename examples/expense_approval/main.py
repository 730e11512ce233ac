"""Three claims: one approved, one rejected, one forgotten; and the worker is killed while all of them wait.

``python -m examples.expense_approval.main``, from the project's folder. It kills its worker, so it always starts a
Valkey and a worker of its own.
"""

from __future__ import annotations

import sys
from typing import Any

from rich.table import Table
from rich.text import Text

from examples.books import Line, effects_table, keys_twice
from examples.expense_approval.office import Office
from examples.scene import Scene, run
from multiagents.exceptions import WorkflowError

#: Cents.
AMOUNT = 23_400
GRANTED = 20_000


def play(scene: Scene) -> list[Line]:
    """Hand the claims in, kill the worker, decide, and start another worker."""
    from examples.expense_approval.workflow import expense_claim, petty_cash

    assert scene.worker is not None, "run() was told that this example kills its worker"
    office = Office.from_environment()
    scene.print(expense_claim.diagram("ascii"))
    approved = scene.start(expense_claim, "X-1", amount=AMOUNT)
    rejected = scene.start(expense_claim, "X-2", amount=AMOUNT)
    forgotten = scene.start(petty_cash, "X-3", amount=AMOUNT)
    for claim in (approved, rejected, forgotten):
        scene.until(claim, lambda seen: seen.steps["decision"].status != "not_started", "its approval")
    first = scene.worker.pid
    scene.worker.kill()
    scene.say(f"all three wait for a decision; kill -9 of the worker, {first}, and of its children: no process is left")

    refused = _refused(approved)
    scene.say(f"ann decides about X-1 without saying how; she is told at once: {refused}")
    answer = approved.signal("decision", {"approved": True, "granted": GRANTED}, actor="ann", reason="without the wine")
    scene.say(f"ann approves X-1 while nothing runs; her decision is {answer}, and kept in the store")
    durable = approved.describe().status

    scene.worker.start()
    scene.worker.wait_until_ready()
    scene.say(f"another worker runs, {scene.worker.pid}")
    rejected.signal("decision", {"approved": False}, actor="ben", reason="no receipt")
    scene.say("ben rejects X-2, and nobody decides about X-3, which had a second")
    ends = {claim.transaction_id: scene.end(claim) for claim in (approved, rejected, forgotten)}

    scene.print()
    for claim, about in ((approved, "approved"), (rejected, "rejected"), (forgotten, "forgotten")):
        scene.show(claim, about)
    scene.print(_decisions([approved, rejected, forgotten]))
    scene.print(effects_table("What the world has", office.effects(), ["budget", "payment"], list(ends)))
    before, after = office.pids("X-1", "budget"), office.pids("X-1", "payment")
    return [
        Line("a decision that does not fit is refused, and the run waits on", "approved" in refused, "WorkflowError"),
        Line("a decision that comes while nothing runs is kept", (answer, durable) == ("received", "running"), answer),
        _ends("X-1", ends, "completed", "", {"budget": "live", "payment": "live"}),
        _ends("X-2", ends, "compensated", "ApprovalRejected", {"budget": "undone"}),
        _ends("X-3", ends, "compensated", "ApprovalRejected", {"budget": "undone"}),
        Line("who decided, and why, is in the history", _deciders(approved) == ["ann: without the wine"], "X-1"),
        Line("who refused, and why, is in the history", _deciders(rejected) == ["ben: no receipt"], "X-2"),
        Line("nobody decided about X-3", _deciders(forgotten) == [], "nobody"),
        Line("what was granted was paid", [e.amount for e in office.effects("X-1")] == [AMOUNT, GRANTED], f"{GRANTED}"),
        Line("another process went on", len(before) == len(after) == 1 and before != after, f"{before[0]}, {after[0]}"),
        keys_twice(office),
    ]


def _refused(claim: Any) -> str:
    try:
        claim.signal("decision", {"granted": GRANTED}, actor="ann")
    except WorkflowError as error:
        return str(error)
    return ""


def _deciders(claim: Any) -> list[str]:
    return [f"{each.actor}: {each.reason}" for each in claim.history() if getattr(each, "status", "") == "signalled"]


def _ends(name: str, ends: dict[str, Any], status: str, reason: str, effects: dict[str, str]) -> Line:
    seen = ends[name]
    why = seen.error.type if seen.error else ""
    figures = f"{seen.status} {why}".rstrip()
    return Line(
        f"{name} ends as {status}", (seen.status, why, dict(seen.effects)) == (status, reason, effects), figures
    )


def _decisions(claims: list[Any]) -> Table:
    table = Table(
        title="Who decided", title_justify="left", title_style="bold", box=None, padding=(0, 1), pad_edge=False
    )
    for heading in ("claim", "decision", "who", "why", "when"):
        table.add_column(heading, no_wrap=True)
    for claim in claims:
        decided = [event for event in claim.history() if getattr(event, "status", "") == "signalled"]
        for event in decided:
            no = event.payload["refuses"]
            mark = Text("no", style="red") if no else Text("yes", style="green")
            table.add_row(claim.transaction_id, mark, event.actor, event.reason, f"{event.at:%H:%M:%S}")
        if not decided:
            table.add_row(claim.transaction_id, Text("no", style="red"), "-", "nobody decided in time", "")
    return table


if __name__ == "__main__":
    sys.exit(run("expense_approval", play, kills=True))
