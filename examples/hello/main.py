"""Say hello to two people, and add two numbers for each.

``python -m examples.hello.main``, from the project's folder.
"""

from __future__ import annotations

import sys

from examples._support.scene import Scene, run
from examples.hello.workflow import hello

PEOPLE = {"H-1": ("Ann", 2, 3), "H-2": ("Björn", 40, 2)}


def story(scene: Scene) -> None:
    """Run it for both, side by side, and show what the model has made of it."""
    scene.print(hello.diagram("ascii"))
    runs = {each: scene.start(hello, each, name=name, a=a, b=b) for each, (name, a, b) in PEOPLE.items()}
    for each, (name, a, b) in PEOPLE.items():
        seen = scene.end(runs[each], f"greet {name}, add {a} and {b}", "completed")
        message = seen.context["message"]
        scene.print(f"  {message}")
        scene.check(
            f"{each}: greeting and sum are in the message",
            name in message and str(a + b) in message,
            message,
            free=True,
        )
        used = seen.steps["message"].usage
        figures = f"{used.calls} call, {used.input_tokens} tokens in, {used.output_tokens} out"
        scene.check(f"{each}: the model was asked once", used.calls == 1, figures, free=True)


if __name__ == "__main__":
    sys.exit(run("hello", story, pool="threads", concurrency=4, asks=True))
