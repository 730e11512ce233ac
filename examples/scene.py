"""What the smaller examples share: a stage to play on, runs to show, and a check at the end.

An example is a function that plays on a `Scene` and returns what it checked; `run` is its command line.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from rich.console import Console
from rich.text import Text

from examples.books import Line, books
from examples.stage import BROKER, StageError, WorkerProcess, end_on_sigterm, new_console, own_folder, own_stage
from examples.timeline import bars_of, timeline
from examples.world import FOLDER, World
from multiagents.exceptions import MultiAgentsError
from multiagents.orchestrator import Orchestrator

#: Seconds that anything an example waits for may take.
TIMEOUT = 60.0
#: Seconds between two looks at a run.
_LOOK = 0.05
#: Time is short in an example, so its timers are looked at more often than once a second.
_SETTINGS = {"MULTIAGENTS_SWEEP_INTERVAL": "0.1"}

AnyWorld = TypeVar("AnyWorld", bound=World)


class Scene:
    """What an example works with.

    Attributes:
        console: where it shows what happens.
        worker: the Celery worker, or None where somebody else's is used.
        suffix: what ids end with; empty on a Valkey of its own, where nobody else has any.
    """

    def __init__(self, console: Console, worker: WorkerProcess | None, suffix: str = "") -> None:
        self.console = console
        self.worker = worker
        self.suffix = suffix
        self._began = time.monotonic()

    @cached_property
    def orchestrator(self) -> Orchestrator:
        """The orchestrator of ``celery_app``, which takes its broker from the environment when it is imported."""
        from celery_app import orchestrator

        return orchestrator

    def id(self, name: str) -> str:
        """An id that nobody else has on this broker: to the world, a repeated one would be what it knows already."""
        return f"{name}{self.suffix}"

    def start(self, workflow: Any, name: str, **facts: Any) -> Any:
        """Start a run called after ``name``; its input has that as ``id``, and the facts."""
        return self.orchestrator.start(workflow, {"id": self.id(name), **facts}, transaction_id=self.id(name))

    def end(self, run: Any) -> Any:
        """Wait until a run has ended, however it did; how it stands then."""
        return self.until(run, lambda seen: seen.status.is_end, "its end")

    def until(self, run: Any, holds: Callable[[Any], object], what: str) -> Any:
        """Wait until something holds of a run; how it stands then.

        Raises:
            StageError: when it takes too long; with the end of the worker's log.
        """
        deadline = time.monotonic() + TIMEOUT
        while True:
            seen = run.describe()
            if holds(seen):
                return seen
            if time.monotonic() > deadline:
                log = f"; the end of {self.worker.log_file}:\n{self.worker.log_tail()}" if self.worker else ""
                raise StageError(
                    f"{run.transaction_id} is {seen.status}, and {what} did not come in {TIMEOUT:g} s{log}"
                )
            time.sleep(_LOOK)

    def say(self, words: str) -> None:
        """Tell the reader what is being done, and when."""
        self.console.print(f"{time.monotonic() - self._began:5.1f} s  {words}", highlight=False, soft_wrap=True)

    def show(self, run: Any, title: str, *, only_begun: bool = False) -> None:
        """Draw a run as a mirror timeline.

        Args:
            run: the run.
            title: what is special about it.
            only_begun: leave out the steps that took no time: rounds of a loop that were not needed, for instance.
        """
        seen, bars = run.describe(), bars_of(run.history())
        begun = {bar.step for bar in bars}
        steps = [name for name in seen.steps if name in begun or not only_begun]
        picture = timeline(f"{run.transaction_id}: {title}", str(seen.status), steps, bars, self.console.width)
        self.console.print(picture, no_wrap=True, overflow="ellipsis")

    def print(self, *what: Any) -> None:
        """Show tables or texts, with an empty line after them."""
        # A text as it is: brackets in it are no markup.
        self.console.print(*(Text(each) if isinstance(each, str) else each for each in what))
        if what:
            self.console.print()


def run(
    name: str,
    play: Callable[[Scene], list[Line]],
    *,
    arguments: Sequence[str] | None = None,
    concurrency: int = 2,
    kills: bool = False,
) -> int:
    """Play an example from the command line; returns the exit code, 0 only when all that it checked holds.

    Args:
        name: the example's folder, and that of its data.
        play: the example.
        arguments: the command line; None is that of this process.
        concurrency: how many children its worker has.
        kills: it kills its worker, so it needs one of its own, whatever the environment names.
    """
    parser = argparse.ArgumentParser(prog=f"python -m examples.{name}.main")
    parser.add_argument("--data", type=Path, default=Path(".multiagents"), help="where data and logs go")
    options = parser.parse_args(arguments)
    end_on_sigterm()
    console = new_console()
    try:
        with _scene(name, console, options.data, concurrency, own=kills or not os.environ.get(BROKER)) as scene:
            lines = play(scene)
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    except (StageError, MultiAgentsError) as error:
        console.print(Text(f"\nThe example failed: {error}", style="bold red"))
        return 1
    console.print(books(lines, "Checked"))
    console.print()
    wrong = [line.rule for line in lines if not line.holds]
    if wrong:
        console.print(Text(f"This did not add up: {'; '.join(wrong)}", style="bold red"))
        return 1
    console.print(Text("All of it added up.", style="bold green"))
    return 0


@contextmanager
def _scene(name: str, console: Console, data: Path, concurrency: int, *, own: bool) -> Iterator[Scene]:
    if not own:
        yield Scene(console, None, f"-{uuid4().hex[:6]}")
        return
    console.print(f"Starting a Valkey and a Celery worker with {concurrency} processes ...", style="dim")
    with own_folder(data, name) as folder, own_stage(folder, _settings(folder), concurrency) as worker:
        yield Scene(console, worker)


def _settings(folder: Path) -> dict[str, str]:
    return {**_SETTINGS, FOLDER: str(folder)}
