"""Six documents one by one, two of which a person has to look at; and all of them as a batch.

``python -m examples.document_verification.main``, from the project's folder.
"""

from __future__ import annotations

import sys
from typing import Any

from examples._support.pictures import bars_of
from examples._support.scene import Scene, reason, run
from examples._support.world import RefusedError
from examples.document_verification.workflow import document_batch, document_verification

#: What day it is: in the run's input, so that a step that is tried again next week decides alike.
TODAY = "2026-12-01"
DOCUMENTS = {
    "D-1": "passport",
    "D-2": "invoice",
    "D-3": "expired",
    "D-4": "wrong-sum",
    "D-5": "smudged",
    "D-6": "recipe",
    "D-7": "bounced",
}
BATCH = ["passport", "invoice", "expired", "recipe"]
#: The two that look at a document side by side.
RISK = ("compliance", "fraud")


def story(scene: Scene) -> None:
    """Verify all of them, side by side, and the batch beside them."""
    scene.print(document_verification.diagram("ascii"))
    scene.fail("mail", "D-7/bounced", RefusedError("nobody reads mail at nobody@mail.example"))
    runs = {
        name: scene.start(document_verification, name, document=document, today=TODAY)
        for name, document in DOCUMENTS.items()
    }
    batch = scene.start(document_batch, "B-1", documents=BATCH, today=TODAY)
    decide_what_is_in_doubt(scene, [*runs.values(), batch])

    one_check_each(scene, runs["D-1"], runs["D-2"])
    refused(scene, runs["D-3"])
    a_person_decided(scene, runs["D-4"], runs["D-5"])
    no_document(scene, runs["D-6"])
    undone(scene, runs["D-7"])
    a_batch(scene, batch)
    scene.show_world(["archive", "mail"], [f"{name}/{document}" for name, document in DOCUMENTS.items()])


def decide_what_is_in_doubt(scene: Scene, runs: list[Any]) -> None:
    """A person looks at what the agents are not sure of: a no for what may be forged, else a yes."""
    ids = tuple(run.transaction_id for run in runs)
    while not all(run.status.is_end for run in runs):
        for wait in scene.orchestrator.waiting("document_verification"):
            if not wait.run.transaction_id.startswith(ids):
                continue  # somebody else's, on a broker that is shared
            doubts = "; ".join(wait.run.describe().context["doubts"])
            scene.say(f"{wait.run.transaction_id} waits for a person: {doubts}")
            forged = "forged" in doubts
            decide, why = (wait.run.reject, "it was changed") if forged else (wait.run.approve, "I can read it")
            scene.say(f"ann says {'no' if forged else 'yes'}, {why}: {decide('person', actor='ann', reason=why)}")
        scene.tick("not all documents have come to their ends", 0.2)
    scene.print()


def one_check_each(scene: Scene, passport: Any, invoice: Any) -> None:
    for name, document, made, other in (
        ("D-1", passport, "identity", "financial"),
        ("D-2", invoice, "financial", "identity"),
    ):
        seen = scene.end(document, f"{made} check", "completed", free=True, archive="live", notify="live")
        statuses = str(seen.steps[made].status), str(seen.steps[other].status)
        exactly_one = statuses == ("succeeded", "skipped")
        scene.check(f"{name}: exactly one of the checks is made", exactly_one, f"{made} alone", free=True)
        sent = {event.step: event.at for event in document.history() if event.type == "command" and event.step in RISK}
        bars = [bar for bar in bars_of(document.history()) if bar.step in RISK]
        both = len(sent) == 2 and len(set(sent.values())) == 1
        seconds = (min(bar.end for bar in bars) - max(bar.start for bar in bars)).total_seconds() if both else 0.0
        figures = f"{seconds:.2f} s at once"
        scene.check(f"{name}: compliance and fraud are sent out at the same moment", both, figures, free=True)


def refused(scene: Scene, expired: Any) -> None:
    seen = scene.end(expired, "it has expired", "failed", free=True)
    failed = seen.steps["decide"].status == "failed"
    scene.check("D-3: a flaw that is not in doubt fails the decision", failed, reason(seen), free=True)
    scene.check("D-3: nothing is archived", not scene.effects("D-3"), "nothing to undo", free=True)


def a_person_decided(scene: Scene, wrong: Any, smudged: Any) -> None:
    seen = scene.end(wrong, "the sum is wrong: a person says no", "failed", free=True)
    asked = "ann" in reason(seen)
    scene.check("D-4: a high fraud score goes to a person", asked, reason(seen), free=True)
    about = "hard to read: a person says yes"
    seen = scene.end(smudged, about, "completed", free=True, archive="live", notify="live")
    person = str(seen.steps["person"].status)
    scene.check("D-5: low confidence goes to a person", person == "succeeded", person, free=True)


def no_document(scene: Scene, recipe: Any) -> None:
    seen = scene.end(recipe, "a recipe", "failed", free=True)
    failed = seen.steps["classify"].status == "failed"
    scene.check("D-6: what is no document fails its classification", failed, reason(seen), free=True)


def undone(scene: Scene, bounced: Any) -> None:
    seen = scene.end(bounced, "the holder cannot be told", "compensated", free=True, archive="undone")
    outside = [(effect.kind, effect.status) for effect in scene.effects("D-7/bounced")]
    agree = ("archive", "undone") in outside and seen.steps["notify"].status == "failed"
    scene.check("D-7: it is taken out of the archive again", agree, reason(seen), free=True)


def a_batch(scene: Scene, batch: Any) -> None:
    seen = scene.end(batch, f"a batch of {len(BATCH)}", "completed")
    children = [str(step.child) for name, step in seen.steps.items() if name.startswith("verify[")]
    ended = {child: scene.orchestrator.get(child).describe() for child in children}
    for each in ended.values():
        scene.see(each)
    scene.print("  " + ", ".join(f"{child.partition(':')[2]} {each.status}" for child, each in ended.items()))
    summary = seen.context["summary"]
    own = len(set(children)) == len(BATCH)
    scene.check("B-1: each document of a batch is a run of its own", own, f"{len(BATCH)} runs")
    passed = sum(each.status == "completed" for each in ended.values())
    right = summary == {"verified": passed, "refused": len(BATCH) - passed}
    scene.check("B-1: what does not pass is passed over, and counted", right, str(summary))
    scene.check("B-1: two of four pass", passed == 2, f"{passed} of {len(BATCH)}", free=True)


if __name__ == "__main__":
    sys.exit(run("document_verification", story, pool="threads", concurrency=4, asks=True))
