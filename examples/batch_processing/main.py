"""Three nights: all files are good; one is broken, and the batch is taken back; one is broken, and is passed over.

``python -m examples.batch_processing.main``, from the project's folder.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from examples._support.pictures import bars_of
from examples._support.scene import Scene, run
from examples._support.world import RefusedError, UnavailableError
from examples.batch_processing.workflow import AT_ONCE, lenient_batch, nightly_batch

FILES: list[dict[str, Any]] = [{"name": f"orders-{number:02d}.csv", "rows": 100 + number} for number in range(1, 13)]
#: In every batch the third is still being written; in two of them the eighth cannot be read.
LATE, BROKEN = 2, 7


def story(scene: Scene) -> None:
    """Run the three batches one after the other, and show what became of each."""
    scene.print(nightly_batch.diagram("ascii"))
    scene.print(lenient_batch.diagram("ascii"))
    all_files_are_good(scene)
    all_or_none(scene)
    as_many_as_can_be_read(scene)
    scene.show_world(["stage", "load", "summary"], ["B-1", "B-2", "B-3"])


def all_files_are_good(scene: Scene) -> None:
    batch, seen = load(scene, "B-1", nightly_batch, broken=False)
    scene.end(batch, "all files are good, one of them late", "completed")
    attempts = seen.steps[f"load[{LATE}]"].attempts
    scene.check("B-1: the file that was late is tried again by itself", attempts == 3, f"{attempts} attempts")
    check_summary(scene, "B-1", seen, missing=0)
    check_few_at_once(scene, "B-1", batch)


def all_or_none(scene: Scene) -> None:
    batch, seen = load(scene, "B-2", nightly_batch, broken=True)
    # How many the others had loaded by then is chance.
    undone = {step: effect for step, effect in seen.effects.items() if effect == "undone"}
    scene.end(batch, "one file is broken: all or none", "compensated", **undone)
    status = seen.steps[f"load[{BROKEN}]"].status
    scene.check("B-2: the broken file failed for certain, and is not undone", status == "failed", seen.error.message)
    never = sum(step.status == "not_started" for name, step in seen.steps.items() if name.startswith("load["))
    figures = f"{never} not started, {len(undone)} undone"
    both = never > 0 and len(undone) > 0
    scene.check("B-2: no further file is begun, and those that were loaded are undone", both, figures)
    outside = [effect.status for effect in scene.effects("B-2")]
    scene.check("B-2: nothing of it is left", outside == ["undone"] * len(undone), f"{len(outside)} undone outside")
    check_few_at_once(scene, "B-2", batch)


def as_many_as_can_be_read(scene: Scene) -> None:
    batch, seen = load(scene, "B-3", lenient_batch, broken=True)
    scene.end(batch, "one file is broken: as many as can be read", "completed")
    one = seen.steps[f"load[{BROKEN}]"]
    scene.check("B-3: the broken file is passed over", one.status == "skipped", f"{one.child} undid what it did")
    outside = {effect.kind: effect.status for effect in scene.effects(f"B-3/{FILES[BROKEN]['name']}")}
    scene.check("B-3: what was done of it is undone", outside == {"stage": "undone"}, str(outside))
    check_summary(scene, "B-3", seen, missing=1)


def load(scene: Scene, name: str, workflow: Any, *, broken: bool) -> tuple[Any, Any]:
    """Load the files of a night, and follow it to its end; the run, and how it stands then."""
    late = UnavailableError(f"{FILES[LATE]['name']} is still being written")
    scene.fail("load", f"{name}/{FILES[LATE]['name']}", late, times=2)
    if broken:
        error = RefusedError(f"{FILES[BROKEN]['name']}, line 17: expected 5 columns, found 3")
        scene.fail("load", f"{name}/{FILES[BROKEN]['name']}", error)
    batch = scene.start(workflow, name, files=FILES)

    # A bar that grows with each file and shrinks with each that is undone.
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}")
    with Progress(*columns, console=scene.console) as progress:
        task = progress.add_task(name, total=len(FILES), status="")

        def has_ended(seen: Any) -> bool:
            loaded = sum(step.status == "succeeded" for item, step in seen.steps.items() if item.startswith("load["))
            progress.update(task, completed=loaded, status=str(seen.status))
            return bool(seen.status.is_end)

        return batch, scene.until(batch, has_ended, "its end")


def check_summary(scene: Scene, name: str, seen: Any, *, missing: int) -> None:
    """The rows of all files, or of all but the broken one, are in the summary."""
    rows = sum(file["rows"] for file in FILES) - missing * FILES[BROKEN]["rows"]
    summary = seen.context.get("summary")
    right = summary == {"rows": rows, "missing": missing}
    scene.check(f"{name}: its summary says what came in, and what is missing", right, str(summary))


def check_few_at_once(scene: Scene, name: str, batch: Any) -> None:
    """How many files were loaded at the same time, at most."""
    moments: list[tuple[datetime, int]] = []
    for bar in bars_of(batch.history()):
        if bar.direction == "do" and bar.step.startswith("load[") and bar.end is not None:
            moments += [(bar.start, 1), (bar.end, -1)]
    most = now = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    scene.check(f"{name}: at most {AT_ONCE} files are loaded at once", 1 < most <= AT_ONCE, str(most))


if __name__ == "__main__":
    sys.exit(run("batch_processing", story, concurrency=AT_ONCE))
