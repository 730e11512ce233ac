"""Three nights: all files are good; one is broken, and the batch is taken back; one is broken, and is passed over.

``python -m examples.batch_processing.main``, from the project's folder.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

from rich.progress import ActivityStatus, BarColumn, MofNCompleteColumn, TextColumn

from examples.batch_processing.warehouse import Warehouse, rows_in
from examples.batch_processing.workflow import AT_ONCE, lenient_batch, nightly_batch
from examples.books import Line, effects_table, keys_twice
from examples.scene import Scene, run
from examples.timeline import bars_of

GOOD = [f"orders-{number:02d}.csv" for number in range(1, 13)]
#: The third file is still being written when the batch comes to it.
FILES = [*GOOD[:2], "orders-03-locked.csv", *GOOD[3:]]
#: And the eighth cannot be read at all.
BROKEN = [*FILES[:7], "orders-08-broken.csv", *FILES[8:]]
POISON = "load[7]"


def play(scene: Scene) -> list[Line]:
    """Run the three batches one after the other, and show what became of each."""
    scene.print(nightly_batch.diagram("ascii"))
    scene.print(lenient_batch.diagram("ascii"))
    lines = []
    for name, workflow, files, about, check in (
        ("B-1", nightly_batch, FILES, "all files are good, one of them late", _all_loaded),
        ("B-2", nightly_batch, BROKEN, "one file is broken: all or none", _taken_back),
        ("B-3", lenient_batch, BROKEN, "one file is broken: as many as can be read", _passed_over),
    ):
        batch = scene.start(workflow, name, files=files)
        seen = _watch(scene, batch, name, len(files))
        scene.show(batch, about, only_begun=True)
        lines += check(name, batch, seen)
    ids = [scene.id(name) for name in ("B-1", "B-2", "B-3")]
    effects = [effect for name in ids for effect in warehouse().effects(name)]
    scene.print(effects_table("What the warehouse has", effects, ["stage", "load", "summary"], ids))
    return [*lines, keys_twice(warehouse())]


def warehouse() -> Warehouse:
    """The world, as the workers see it."""
    return Warehouse.from_environment()


def _watch(scene: Scene, batch: Any, name: str, count: int) -> Any:
    """Follow a batch to its end, with a bar that grows with each file and shrinks with each that is undone."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}")
    with ActivityStatus(*columns, console=scene.console) as progress:
        task = progress.add_task(name, total=count, status="")

        def drawn(seen: Any) -> bool:
            loaded = sum(step.status == "succeeded" for item, step in seen.steps.items() if item.startswith("load["))
            progress.update(task, completed=loaded, status=str(seen.status))
            return bool(seen.status.is_end)

        return scene.until(batch, drawn, "its end")


def _all_loaded(name: str, batch: Any, seen: Any) -> list[Line]:
    expected = {"rows": sum(map(rows_in, FILES)), "missing": 0}
    summary = seen.context.get("summary")
    attempts = seen.steps["load[2]"].attempts
    return [
        Line(f"{name} ends as completed", seen.status == "completed", str(seen.status)),
        Line(f"{name}: the file that was late is tried again by itself", attempts == 3, f"{attempts} attempts"),
        Line(f"{name}: its summary has the rows of all files", summary == expected, f"{summary}"),
        _few_at_once(name, batch),
    ]


def _taken_back(name: str, batch: Any, seen: Any) -> list[Line]:
    items = {item: step for item, step in seen.steps.items() if item.startswith("load[")}
    undone = sorted(item for item, step in items.items() if step.status == "compensated")
    never = sum(step.status == "not_started" for step in items.values())
    world = [effect.status for effect in warehouse().effects(seen.transaction_id)]
    error = seen.error.message if seen.error else ""
    ended = seen.status == "compensated" and items[POISON].status == "failed"
    left = f"{never} not started, {len(undone)} undone"
    return [
        Line(f"{name} ends as compensated", ended, error),
        Line(f"{name}: no further file is begun, and those that were loaded are undone", never > 0 < len(undone), left),
        Line(f"{name}: nothing of it is left", set(world) == {"undone"} and len(world) == len(undone), left),
        _few_at_once(name, batch),
    ]


def _passed_over(name: str, batch: Any, seen: Any) -> list[Line]:
    one = seen.steps[POISON]
    summary, broken = seen.context.get("summary"), rows_in(BROKEN[7])
    expected = {"rows": sum(map(rows_in, BROKEN)) - broken, "missing": 1}
    world = {
        effect.kind: effect.status for effect in warehouse().effects(batch.transaction_id) if "load:7/" in effect.key
    }
    return [
        Line(f"{name} ends as completed", seen.status == "completed", str(seen.status)),
        Line(f"{name}: the broken file is passed over", one.status == "skipped", f"{one.child} undid what it did"),
        Line(f"{name}: what was done of it is undone", world == {"stage": "undone"}, f"{world}"),
        Line(f"{name}: its summary says that one is missing", summary == expected, f"{summary}"),
    ]


def _few_at_once(name: str, batch: Any) -> Line:
    """How many files were loaded at the same time, at most."""
    bars = [bar for bar in bars_of(batch.history()) if bar.direction == "do" and bar.step.startswith("load[")]
    moments: list[tuple[datetime, int]] = []
    for bar in bars:
        if bar.end is not None:
            moments += [(bar.start, 1), (bar.end, -1)]
    most = now = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return Line(f"{name}: at most {AT_ONCE} files are loaded at once", 1 < most <= AT_ONCE, f"{most}")


if __name__ == "__main__":
    sys.exit(run("batch_processing", play, concurrency=AT_ONCE))
