"""Six documents one by one, two of which a person has to look at; and all of them as a batch.

``python -m examples.document_verification.main``, from the project's folder.
"""

from __future__ import annotations

import sys
from typing import Any

from examples._support.pictures import bars_of
from examples._support.scene import Scene, run
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


def story(scene: Scene) -> None:
    """Verify all of them, side by side, and the batch beside them."""
    scene.print(document_verification.diagram("ascii"))
    scene.fail("mail", "D-7/bounced", RefusedError("nobody reads mail at nobody@mail.example"))
    runs = {
        name: scene.start(document_verification, name, document=document, today=TODAY)
        for name, document in DOCUMENTS.items()
    }
    batch = scene.start(document_batch, "B-1", documents=BATCH, today=TODAY)
    decide_what_is_in_doubt(scene, runs)

    one_check_each(scene, runs["D-1"], runs["D-2"])
    refused(scene, runs["D-3"])
    a_person_decided(scene, runs["D-4"], runs["D-5"])
    no_document(scene, runs["D-6"])
    undone(scene, runs["D-7"])
    a_batch(scene, batch)
    scene.show_world(["archive", "mail"], [f"{name}/{document}" for name, document in DOCUMENTS.items()])


def decide_what_is_in_doubt(scene: Scene, runs: dict[str, Any]) -> None:
    """A person looks at what the agents are not sure of: a no for the wrong sum, a yes for the smudged passport."""
    for name, approved, why in (("D-4", False, "the sum was changed"), ("D-5", True, "I can read it")):
        seen = scene.until(runs[name], lambda seen: seen.status.is_end or seen.steps["person"].waiting_for, "a person")
        if seen.status.is_end:
            continue
        scene.say(f"{name} waits for a person: {'; '.join(seen.context['doubts'])}")
        decide = runs[name].approve if approved else runs[name].reject
        scene.say(f"ann says {'yes' if approved else 'no'}, {why}: {decide('person', actor='ann', reason=why)}")
    scene.print()


def one_check_each(scene: Scene, passport: Any, invoice: Any) -> None:
    for name, document, made, other in (
        ("D-1", passport, "identity", "financial"),
        ("D-2", invoice, "financial", "identity"),
    ):
        seen = scene.end(document, f"{made} check", "completed", archive="live", notify="live")
        statuses = str(seen.steps[made].status), str(seen.steps[other].status)
        scene.check(f"{name}: exactly one of the checks is made", statuses == ("succeeded", "skipped"), f"{made} alone")
        compliance, fraud = (next(bar for bar in bars_of(document.history()) if bar.step == step) for step in RISK)
        sent = {event.step: event.at for event in document.history() if event.type == "command" and event.step in RISK}
        both = len(set(sent.values())) == 1
        figures = (
            f"{(min(compliance.end, fraud.end) - max(compliance.start, fraud.start)).total_seconds():.2f} s at once"
        )
        scene.check(f"{name}: compliance and fraud are sent out at the same moment", both, figures)


RISK = ("compliance", "fraud")


def refused(scene: Scene, expired: Any) -> None:
    seen = scene.end(expired, "it has expired", "failed")
    nothing = not scene.effects("D-3")
    scene.check(
        "D-3: a flaw that is not in doubt fails the decision",
        seen.steps["decide"].status == "failed",
        seen.error.message,
    )
    scene.check("D-3: nothing is archived", nothing, "nothing to undo")


def a_person_decided(scene: Scene, wrong: Any, smudged: Any) -> None:
    seen = scene.end(wrong, "the sum is wrong: a person says no", "failed")
    scene.check("D-4: a high fraud score goes to a person", bool(seen.context.get("doubts")), seen.error.message)
    seen = scene.end(smudged, "hard to read: a person says yes", "completed", archive="live", notify="live")
    person = str(seen.steps["person"].status)
    scene.check("D-5: low confidence goes to a person", person == "succeeded" or scene.is_real, person)


def no_document(scene: Scene, recipe: Any) -> None:
    seen = scene.end(recipe, "a recipe", "failed")
    failed = seen.steps["classify"].status == "failed"
    scene.check("D-6: what is no document fails its classification", failed, seen.error.message)


def undone(scene: Scene, bounced: Any) -> None:
    seen = scene.end(bounced, "the holder cannot be told", "compensated", archive="undone")
    outside = [(effect.kind, effect.status) for effect in scene.effects("D-7/bounced")]
    agree = ("archive", "undone") in outside and seen.steps["notify"].status == "failed"
    scene.check("D-7: it is taken out of the archive again", agree, seen.error.message)


def a_batch(scene: Scene, batch: Any) -> None:
    seen = scene.end(batch, f"a batch of {len(BATCH)}", "completed")
    children = [str(step.child) for name, step in seen.steps.items() if name.startswith("verify[")]
    ended = {child: scene.orchestrator.get(child).describe() for child in children}
    for each in ended.values():
        scene.see(each)
    scene.print("  " + ", ".join(f"{child.partition(':')[2]} {each.status}" for child, each in ended.items()))
    summary = seen.context["summary"]
    scene.check(
        "B-1: each document of a batch is a run of its own", len(set(children)) == len(BATCH), f"{len(BATCH)} runs"
    )
    scene.check("B-1: what does not pass is passed over", summary == {"verified": 2, "refused": 2}, str(summary))


if __name__ == "__main__":
    sys.exit(run("document_verification", story, pool="threads", concurrency=4, asks=True))
