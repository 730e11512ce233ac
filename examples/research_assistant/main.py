"""Three questions: small talk, one that a person has to clarify, and one whose worker is killed in its research.

``python -m examples.research_assistant.main``, from the project's folder. It kills its worker, so it always starts a
Valkey and a worker of its own.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from typing import Any

from examples._support.scene import Scene, run
from examples.research_assistant import library
from examples.research_assistant.calculator import in_digits
from examples.research_assistant.workflow import research_assistant
from multiagents.exceptions import WorkflowError

HI = "Hi!"
UNCLEAR = "What did the shop earn in 2025?"
FIGURES = "By how much did the revenue of the shop in Graz grow from 2024 to 2025, and what is its margin in 2025?"
#: So many calls of its model are answered when the researcher's worker is killed.
KILL_AFTER = 2
#: Seconds without a sign of life after which an attempt counts as lost: short, so that recovery can be watched.
LEASE = "3"


def story(scene: Scene) -> None:
    """Ask the three questions, and kill the worker while one run waits for a person and another for its model."""
    assert scene.worker is not None, "run() was told that this example kills its worker"
    scene.print(research_assistant.diagram("ascii"))
    hi, unclear = ask(scene, "Q-1", HI), ask(scene, "Q-2", UNCLEAR)
    seen = scene.until(unclear, lambda seen: seen.status.is_end or has_begun(seen, "clarification"), "its wait")
    scene.until(hi, lambda seen: is_over(hi, seen), "its end")
    wait = next(
        (each for each in scene.orchestrator.waiting() if each.run.transaction_id == unclear.transaction_id), None
    )
    if wait is not None:
        scene.say(f"Q-2 waits for a person, who is asked: {seen.context['coordination_plan'][0]}")
    figures = research_until_it_is_killed(scene)

    scene.say(
        f"kill -9 of the worker, {scene.worker.pid}: Q-2 waits for a person, Q-3 for its model; no process is left"
    )
    answer = clarify(scene, unclear) if wait is not None else ""
    scene.worker.restart()
    scene.say(f"another worker runs, {scene.worker.pid}\n")

    small_talk(scene, hi)
    a_person_was_asked(scene, unclear, answer, waited=wait is not None)
    nothing_was_paid_twice(scene, figures)


def ask(scene: Scene, name: str, question: str) -> Any:
    """Start a run; the library's titles are all that the coordinator is told of it."""
    context = f"The library has these pages: {', '.join(library.titles())}"
    return scene.start(research_assistant, name, user_question=question, context=context)


def is_over(question: Any, seen: Any) -> bool:
    """Whether a question is answered. A real model may find anything unclear, and is told something then."""
    if seen.steps["clarification"].waiting_for:
        question.signal("clarification", {"meant": "what the library has of it"}, actor="ann")
    return bool(seen.status.is_end)


def has_begun(seen: Any, step: str) -> bool:
    return bool(seen.steps[step].status not in ("not_started", "skipped"))


def research_until_it_is_killed(scene: Scene) -> Any:
    """Ask Q-3, and kill the worker once its researcher's model has answered twice."""
    assert scene.worker is not None
    if scene.stand_in is not None:
        # The coordinator's call and those of the researcher are answered, and the next one is left waiting.
        scene.stand_in.hold(after=1 + KILL_AFTER)
    figures = ask(scene, "Q-3", FIGURES)
    scene.until(figures, lambda seen: may_be_killed(scene, figures, seen), "its research")
    scene.worker.kill()
    if scene.stand_in is not None:
        scene.stand_in.release()
    return figures


def may_be_killed(scene: Scene, figures: Any, seen: Any) -> bool:
    """Whether the researcher's model has answered so often, and is being asked again."""
    answered = [call for call in figures.calls("research") if call.kind == "lm" and call.state.name == "ANSWERED"]
    is_asked = len(answered) >= KILL_AFTER and (scene.stand_in is None or scene.stand_in.under_way > 0)
    return is_over(figures, seen) or is_asked


def clarify(scene: Scene, unclear: Any) -> str:
    """Say what is meant, at a time when no worker runs: first in a way that is refused."""
    try:
        unclear.signal("clarification", {"shop": "Linz"}, actor="ann")
    except WorkflowError as error:
        scene.say(f"ann says it in words that are refused, and is told so at once: {error}")
    answer = unclear.signal("clarification", {"meant": "the shop in Linz"}, actor="ann")
    scene.say(f"ann says that the shop in Linz is meant, while nothing runs: {answer}, and kept in the store")
    return str(answer)


def small_talk(scene: Scene, hi: Any) -> None:
    seen = scene.end(hi, HI, "completed")
    scene.print(f"  {seen.context['formatted_answer']}")
    ran = [name for name, step in seen.steps.items() if step.status == "succeeded" and name != "route"]
    one = ran == ["coordinate", "chat"]
    scene.check("Q-1: small talk takes one step behind the coordinator", one, ", ".join(ran), free=True)
    skipped = [name for name, step in seen.steps.items() if step.status == "skipped"]
    scene.check("Q-1: the other branch shows as skipped", len(skipped) == 5, ", ".join(skipped), free=True)


def a_person_was_asked(scene: Scene, unclear: Any, answer: str, *, waited: bool) -> None:
    seen = scene.end(unclear, UNCLEAR, "completed")
    scene.print(seen.context["formatted_answer"])
    right = waited and answer == "received"
    scene.check("Q-2: it waits for a person, without a process", right, answer, free=True)
    skipped = str(seen.steps["analyse"].status)
    scene.check("Q-2: the analyst is not needed, and skipped", skipped == "skipped", skipped, free=True)
    linz = "Linz" in seen.context["formatted_answer"]
    scene.check("Q-2: the answer is about what the person meant", linz, ", ".join(seen.context["sources"]), free=True)


def nothing_was_paid_twice(scene: Scene, figures: Any) -> None:
    seen = scene.end(figures, FIGURES, "completed")
    scene.print(seen.context["formatted_answer"])
    used = seen.steps["research"].usage
    told = f"{used.calls} calls, {used.replayed} replayed, {used.possibly_paid_twice} possibly paid twice"
    goes_on = used.replayed >= KILL_AFTER and used.possibly_paid_twice <= 1
    scene.check("Q-3: the researcher goes on at the call in which it was killed", goes_on, told, free=True)
    if scene.stand_in is not None:
        bodies = [str(request.body) for request in scene.stand_in.requests if FIGURES in request.text]
        again = len(bodies) - len(set(bodies))
        told = f"{len(bodies)} requests, {len(set(bodies))} questions"
        scene.check("Q-3: of all its questions, one came twice: the one that was under way", again == 1, told)


def check_the_figures(scene: Scene, seen: Any) -> None:
    """What the tool has computed is exact; it is in the journal, with what was asked for."""
    results = [call for call in scene.orchestrator.get(seen.transaction_id).calls("analyse") if call.kind == "tool"]
    before, after = Fraction("412350.40"), Fraction("463894.20")
    growth = in_digits((after - before) / before * 100)
    exact = any(growth in str(call.answer) for call in results)
    scene.check("Q-3: the figures come from the calculator", exact, f"{growth} per cent", free=True)


if __name__ == "__main__":
    sys.exit(
        run(
            "research_assistant",
            story,
            kills=True,
            pool="threads",
            concurrency=4,
            asks=True,
            settings={"MULTIAGENTS_LEASE": LEASE},
        )
    )
