"""Four questions: one answered at the second try, one never approved, one of nothing, and one that is not about code.

``python -m examples.codebase_qa.main``, from the project's folder; ``--ask "..."`` asks a question of your own.
"""

from __future__ import annotations

import sys
from typing import Any

from examples._support.scene import Scene, reason, run
from examples.codebase_qa.workers import CITATION, ROOT
from examples.codebase_qa.workflow import ROUNDS, codebase_qa

CODE = "Where is the idempotency key of a step made?"
HARD = "Who may give a refund of a payment?"
HELLO = "Who are you?"
NOWHERE = "Qwyx zzyzx frobnicate?"


def story(scene: Scene) -> None:
    """Ask all of them, side by side."""
    scene.print(codebase_qa.diagram("ascii"))
    if scene.options.ask:
        show_answer(scene, scene.start(codebase_qa, "C-0", question=scene.options.ask), scene.options.ask)
        return
    questions = {"C-1": CODE, "C-2": HARD, "C-3": HELLO, "C-4": NOWHERE}
    runs = {name: scene.start(codebase_qa, name, question=question) for name, question in questions.items()}
    it_is_regenerated(scene, runs["C-1"])
    it_is_never_approved(scene, runs["C-2"])
    it_is_not_about_code(scene, runs["C-3"])
    nothing_is_found(scene, runs["C-4"])


def show_answer(scene: Scene, question: Any, about: str) -> Any:
    seen = scene.end(question, about, "completed")
    scene.print(seen.context["answer"])
    return seen


def statuses(seen: Any, step: str) -> list[str]:
    """How the rounds of a step stand."""
    return [str(seen.steps[f"{step}#{number}"].status) for number in range(1, ROUNDS + 1)]


def it_is_regenerated(scene: Scene, question: Any) -> None:
    seen = show_answer(scene, question, CODE)
    rounds = statuses(seen, "answer")
    loop = rounds == ["succeeded", "succeeded", "skipped"]
    scene.check("C-1: the answer is written again, and the third round is skipped", loop, ", ".join(rounds), free=True)
    cited = CITATION.findall(seen.context["answer"])
    there = bool(cited) and all(is_there(place) for place in cited)
    right = seen.context["verified"] and there
    scene.check("C-1: it is approved, and what it cites is there", right, ", ".join(cited), free=True)


def is_there(place: str) -> bool:
    """Whether a file has such a line."""
    name, _, line = place.rpartition(":")
    file = ROOT / name
    return file.is_file() and int(line) <= len(file.read_text(encoding="utf-8").splitlines())


def it_is_never_approved(scene: Scene, question: Any) -> None:
    seen = show_answer(scene, question, HARD)
    rounds = statuses(seen, "validate")
    bounded = rounds == ["succeeded"] * ROUNDS and not seen.context["verified"]
    words = f"C-2: after {ROUNDS} rounds it is handed out as not verified"
    scene.check(words, bounded, ", ".join(rounds), free=True)


def it_is_not_about_code(scene: Scene, question: Any) -> None:
    seen = show_answer(scene, question, HELLO)
    skipped = [name for name in ("retrieve", "answer#1", "validate#1") if seen.steps[name].status == "skipped"]
    all_of_it = len(skipped) == 3
    scene.check("C-3: nothing is retrieved or validated; it shows as skipped", all_of_it, ", ".join(skipped), free=True)


def nothing_is_found(scene: Scene, question: Any) -> None:
    seen = scene.end(question, NOWHERE, "failed", free=True)
    failed = seen.steps["retrieve"].status == "failed"
    scene.check("C-4: a step that finds nothing fails, and nothing is made up", failed, reason(seen), free=True)


if __name__ == "__main__":
    sys.exit(
        run("codebase_qa", story, pool="threads", concurrency=4, asks=True, options={"--ask": "a question of your own"})
    )
