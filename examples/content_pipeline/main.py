"""Four articles: approved at once, rewritten until it is, never approved, and one about which nothing is known.

``python -m examples.content_pipeline.main``, from the project's folder.
"""

from __future__ import annotations

import sys
from typing import Any

from examples._support.scene import Scene, reason, run
from examples.content_pipeline.workflow import REVIEWS, content_pipeline

#: name -> topic, audience
ARTICLES = {
    "P-1": ("bicycles", "experts"),
    "P-2": ("tea", "beginners"),
    "P-3": ("kettles", "beginners"),
    "P-4": ("unicorns", "beginners"),
}


def story(scene: Scene) -> None:
    """Write all of them, side by side; an editor decides about those that the reviewer does not approve of."""
    scene.print(content_pipeline.diagram("ascii"))
    runs = {
        name: scene.start(content_pipeline, name, topic=topic, audience=audience)
        for name, (topic, audience) in ARTICLES.items()
    }
    for name, article in runs.items():
        seen = scene.until(article, lambda seen: seen.status.is_end or seen.steps["editor"].waiting_for, "its editor")
        if not seen.status.is_end:
            scene.say(f"{name} waits for an editor: {'; '.join(seen.context['improvements'])}")
            scene.say(f"ben says no: {article.reject('editor', actor='ben', reason='dull')}")
    scene.print()

    approved_at_once(scene, runs["P-1"])
    rewritten(scene, runs["P-2"])
    never_approved(scene, runs["P-3"])
    nothing_known(scene, runs["P-4"])
    scene.show_world(["article"], list(ARTICLES))
    published = [name for name, article in runs.items() if scene.effects(name)]
    completed = [name for name, article in runs.items() if article.status == "completed"]
    approved = [name for name, article in runs.items() if article.describe().context.get("approved")]
    right = published == completed == approved
    scene.check("what was approved is published, and nothing else", right, ", ".join(published))


def rounds(seen: Any) -> tuple[int, int]:
    """How often it was reviewed, and rewritten."""
    reviews, rewrites = (
        sum(seen.steps[f"{step}#{number}"].status == "succeeded" for number in range(1, REVIEWS + 1))
        for step in ("review", "rewrite")
    )
    return reviews, rewrites


def approved_at_once(scene: Scene, article: Any) -> None:
    seen = scene.end(article, "approved at once", "completed", free=True)
    skipped = [name for name, step in seen.steps.items() if step.status == "skipped"]
    right = {"rewrite#1", "rewrite#2", "review#2", "rewrite#3", "review#3", "editor"} <= set(skipped)
    scene.check("P-1: nothing is rewritten, and that shows as skipped", right, ", ".join(skipped), free=True)


def rewritten(scene: Scene, article: Any) -> None:
    seen = scene.end(article, "rewritten until it is approved", "completed", free=True)
    text = seen.context.get("article", "")
    scene.print(f"  {text}")
    right = rounds(seen) == (3, 2) and all(fact in text for fact in seen.context.get("key_facts", ["?"]))
    scene.check("P-2: it is rewritten twice, with what the reviewer has asked for", right, "3 reviews", free=True)


def never_approved(scene: Scene, article: Any) -> None:
    seen = scene.end(article, "never approved, and an editor says no", "failed", free=True)
    right = rounds(seen) == (REVIEWS, REVIEWS - 1) and "ben" in reason(seen)
    scene.check(f"P-3: after {REVIEWS} reviews a person is asked, who says no", right, reason(seen), free=True)


def nothing_known(scene: Scene, article: Any) -> None:
    seen = scene.end(article, "nobody knows anything about it", "failed", free=True)
    right = seen.steps["research"].status == "failed" and seen.steps["write"].status == "not_started"
    scene.check("P-4: its research fails, and nothing is written", right, reason(seen), free=True)


if __name__ == "__main__":
    sys.exit(run("content_pipeline", story, pool="threads", concurrency=4, asks=True))
