"""What `main.py` of an example plays on: servers and workers, runs to start and to show, and checks for the end.

An example is a function that plays on a `Scene`; `run` is its command line.
"""

from __future__ import annotations

import argparse
import faulthandler
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, Literal
from uuid import uuid4

from rich.console import Console, RenderableType
from rich.text import Text

from examples import EXAMPLES
from examples._support import model, stand_in
from examples._support.pictures import bars_of, checks_table, effects_table, short_type, timeline
from examples._support.world import FOLDER, Check, Effect, World
from multiagents.exceptions import MultiAgentsError
from multiagents.orchestrator import Orchestrator
from multiagents.testing import EmbeddedServer, WorkerProcess
from multiagents.testing.lm_stub import LMStub

#: Where `celery_app` finds its broker; an example that finds one there starts no server.
BROKER = "CELERY_BROKER_URL"
#: The setting that says where the state of runs is kept, when that is not the broker.
STORE = "MULTIAGENTS_REDIS_URL"
#: Time is short in an example, so its timers are looked at more often than once a second.
SETTINGS = {"MULTIAGENTS_SWEEP_INTERVAL": "0.1"}
#: Seconds on top of the deadline after which an example that hangs is ended by force.
GRACE = 60.0


class SceneError(Exception):
    """The example cannot go on."""


class Scene:
    """What an example works with.

    Attributes:
        console: where it shows what happens.
        worker: the Celery worker, or None where somebody else's is used.
        options: the command line.
        stand_in: what its agents ask in place of a model; None where they ask a real one, or where the worker is
            somebody else's.
        checks: what was checked so far.
        models: the models that were asked, as the runs tell it.
    """

    def __init__(
        self,
        console: Console,
        options: argparse.Namespace,
        worker: WorkerProcess | None,
        stand_in: LMStub | None = None,
    ) -> None:
        self.console = console
        self.options = options
        self.worker = worker
        self.stand_in = stand_in
        self.checks: list[Check] = []
        self.models: set[str] = set()
        # On a Valkey of its own nobody else has any ids.
        self._suffix = "" if worker else f"-{uuid4().hex[:6]}"
        self._began = time.monotonic()

    # -- what happens --------------------------------------------------------------------------------------------------

    @cached_property
    def orchestrator(self) -> Orchestrator:
        """The orchestrator of ``celery_app``, which takes its broker from the environment when it is imported."""
        from celery_app import orchestrator

        return orchestrator

    def id(self, name: str) -> str:
        """An id that nobody else has on this broker: to the world, a repeated one would be what it knows already."""
        head, slash, rest = name.partition("/")
        return f"{head}{self._suffix}{slash}{rest}"

    def start(self, workflow: Any, name: str, /, **facts: Any) -> Any:
        """Start a run called after ``name``; its input has that as ``id``, and the facts."""
        return self.orchestrator.start(workflow, {**facts, "id": self.id(name)}, transaction_id=self.id(name))

    def until(self, run: Any, holds: Callable[[Any], object], what: str) -> Any:
        """Wait until something holds of a run; how it stands then."""
        while not holds(seen := run.describe()):
            self.tick(f"{what} did not come: {run.transaction_id} is {seen.status}")
        return seen

    def end(self, run: Any, title: str, status: str, /, *, free: bool = False, **effects: str) -> Any:
        """Wait until a run has ended, draw it, and check how it ended; how it stands then.

        Args:
            run: the run.
            title: what is special about it.
            status: the status it is to end with.
            free: whether that hangs on what a model says.
            effects: the steps whose effects are to be live or undone; no other one may be undone or unknown.
        """
        seen = self.until(run, lambda seen: seen.status.is_end, "its end")
        self.see(seen)
        if seen.status != status and seen.error is not None and short_type(seen.error.type).startswith("LM"):
            raise SceneError(f"{run.transaction_id} got no answer of its model: {seen.error.message}")
        self.show(run, title)
        found = {step: effect for step, effect in seen.effects.items() if step in effects or effect != "live"}
        figures = ": ".join(filter(None, [str(seen.status), in_words(found)]))
        as_expected = (seen.status, found) == (status, effects)
        self.check(f"{run.transaction_id} ends as {status}", as_expected, figures, free=free)
        return seen

    def see(self, seen: Any) -> None:
        """Note which models a run has asked."""
        self.models |= {name for step in seen.steps.values() if step.usage for name in step.usage.models}

    @property
    def is_real(self) -> bool:
        """Whether a real model was asked. What it says is its own affair, so less can be checked."""
        return bool(self.models - {model.STAND_IN})

    def tick(self, missing: str, seconds: float = 0.05) -> None:
        """Let a moment pass.

        Raises:
            SceneError: when what is waited for cannot come any more; with what is missing.
        """
        if self.seconds < self.options.deadline and (self.worker is None or self.worker.is_running):
            time.sleep(seconds)
            return
        why = "time is up" if self.worker is None or self.worker.is_running else "the worker has ended"
        log = ""
        if self.worker is not None:
            lines = "\n".join(f"  {line}" for line in self.worker.log.splitlines()[-15:])
            log = f"; the end of {self.worker.log_file}:\n{lines}"
        raise SceneError(f"{why}, and {missing}{log}")

    @property
    def seconds(self) -> float:
        """How long this scene has lasted."""
        return time.monotonic() - self._began

    # -- the world outside ---------------------------------------------------------------------------------------------

    def fail(self, kind: str, name: str, error: Exception, *, after: int = 0, times: int | None = None) -> None:
        """Make the outside world fail, as `World.fail` does, in what it is asked for by the run called ``name``."""
        World().fail(kind, self.id(name), error, after=after, times=times)

    def mend(self, kind: str, name: str) -> None:
        """Let the outside world do again what it is asked for by the run called ``name``."""
        World().mend(kind, self.id(name))

    def effects(self, name: str) -> list[Effect]:
        """What the outside world has of the run called ``name``."""
        return World().effects(self.id(name))

    # -- what is shown and checked -------------------------------------------------------------------------------------

    def say(self, words: str) -> None:
        """Tell the reader what is being done, and when."""
        self.console.print(f"{self.seconds:5.1f} s  {words}", highlight=False, soft_wrap=True)

    def print(self, *what: RenderableType) -> None:
        """Show tables or texts, with an empty line after them."""
        # A text as it is: brackets in it are no markup.
        self.console.print(*(Text(each) if isinstance(each, str) else each for each in what))
        if what:
            self.console.print()

    def show(self, run: Any, title: str) -> None:
        """Draw a run as a mirror timeline."""
        seen, bars = run.describe(), bars_of(run.history())
        begun = {bar.step for bar in bars}
        # Of items and rounds there are many: without those that were not needed.
        many = any({"[", "#"} & set(name) for name in seen.steps)
        steps = [name for name in seen.steps if name in begun or not many]
        picture = timeline(f"{run.transaction_id}: {title}", str(seen.status), steps, bars, self.console.width)
        self.console.print(picture, no_wrap=True, overflow="ellipsis")

    def show_world(self, kinds: Sequence[str], names: Sequence[str]) -> None:
        """Show what the outside world has of runs, and check that no key took effect twice."""
        self.print(effects_table({self.id(name): self.effects(name) for name in names}, kinds))
        self.checks.append(World().check_keys())

    def check(
        self,
        rule: str,
        holds: bool,  # noqa: FBT001 - a check is a truth value
        figures: str = "",
        *,
        free: bool = False,
    ) -> None:
        """Note whether something is as it has to be; ``free`` says that a real model may have it otherwise."""
        self.checks.append(Check(rule, holds, figures, free))


def reason(seen: Any) -> str:
    """Why a run has failed; empty where it has not."""
    return seen.error.message if seen.error else ""


def in_words(effects: Mapping[str, str]) -> str:
    """Name the effects, or count them if there are many.

    >>> in_words({"flight": "undone", "hotel": "undone"})
    'flight undone, hotel undone'
    """
    if len(effects) <= 4:
        return ", ".join(f"{step} {effect}" for step, effect in effects.items())
    return ", ".join(f"{number} {effect}" for effect, number in Counter(effects.values()).items())


def run(
    name: str,
    story: Callable[[Scene], None],
    *,
    concurrency: int = 2,
    pool: Literal["prefork", "threads"] = "prefork",
    kills: bool = False,
    asks: bool = False,
    settings: Mapping[str, str] = {},
    options: Mapping[str, str] = {},
    arguments: Sequence[str] | None = None,
) -> int:
    """Play an example from the command line; returns the exit code, 0 only when all that it checked holds.

    Args:
        name: the example's folder, and that of its data.
        story: the example.
        concurrency: how many steps its worker runs at a time.
        pool: in what; agents mostly wait, so threads do for them, which load DSPy once.
        kills: it kills its worker, so it needs one of its own, whatever the environment names.
        asks: it has agents, which ask a model: a real one where there is a key, else a stand-in.
        settings: what its worker has in its environment.
        options: more options of the command line, and what they are for.
        arguments: the command line; None is that of this process.
    """
    parser = argparse.ArgumentParser(prog=f"python -m examples.{name}.main")
    parser.add_argument("--data", type=Path, default=Path(".multiagents"), help="where data and logs go")
    parser.add_argument("--deadline", type=float, help="seconds after which it gives up: 90, or 600 with a real model")
    parser.add_argument("--report", type=Path, help="a file that is told how it ended, as JSON")
    parser.add_argument("--offline", action="store_true", help="agents ask the stand-in, though there is a key")
    for option, purpose in options.items():
        parser.add_argument(option, help=purpose)
    chosen = parser.parse_args(arguments)
    if chosen.offline:
        os.environ[model.OFFLINE] = "1"
    needs_stand_in = asks and not model.is_real()
    if chosen.deadline is None:
        chosen.deadline = 600.0 if asks and not needs_stand_in else 90.0
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # wide enough for the pictures
    signal.signal(signal.SIGTERM, _leave)
    # An example may fail, but never hang.
    faulthandler.dump_traceback_later(chosen.deadline + GRACE, exit=True, file=2)
    try:
        with ExitStack() as stack:
            stub = None
            if kills or not os.environ.get(BROKER):
                stub = stack.enter_context(_model(console, name, needs_stand_in)) if asks else None
                worker = stack.enter_context(_worker(name, chosen.data, pool, concurrency, settings, console))
            else:
                worker = None
            scene = Scene(console, chosen, worker, stub)
            story(scene)
    except KeyboardInterrupt:
        console.print("\nStopped, with all that it started.")
        return 130
    except (SceneError, TimeoutError, MultiAgentsError) as error:
        console.print(Text(f"\nThe example failed: {error}", style="bold red"))
        return 1
    finally:
        faulthandler.cancel_dump_traceback_later()
    return _judge(scene, name)


@contextmanager
def _model(console: Console, name: str, needs_stand_in: bool) -> Iterator[LMStub | None]:  # noqa: FBT001 - told by name
    """Say which model will be asked; where there is no key, run a stand-in until the block ends."""
    if not needs_stand_in:
        real = os.environ.get(model.OTHER) or model.MODEL
        console.print(f"The agents ask {real}, with the key from your environment; --offline spares it.", style="bold")
        yield None
        return
    with LMStub() as stub:
        stub.answer_with(stand_in.answer)
        os.environ[model.ADDRESS] = stub.gemini_base
        why = model.why_not()
        console.print(
            f"NO REAL MODEL is asked, {why}. What the agents say is computed by a stand-in, a program without any "
            f"understanding: examples/{name}/stand_in.py",
            style="bold yellow",
        )
        yield stub


@contextmanager
def _worker(
    name: str,
    data: Path,
    pool: Literal["prefork", "threads"],
    concurrency: int,
    settings: Mapping[str, str],
    console: Console,
) -> Iterator[WorkerProcess]:
    """Run a Valkey and a worker; both are gone when the block ends, however it does."""
    kind = "processes" if pool == "prefork" else pool
    console.print(f"Starting a Valkey and a Celery worker with {concurrency} {kind} ...", style="dim")
    with _own_folder(data, name) as folder, EmbeddedServer(folder / "valkey") as server:
        # For this process too: `celery_app`, imported after this, then talks to the same Valkey. The store is named as
        # well: a setting from outside must not send these runs elsewhere.
        os.environ.update({**SETTINGS, **settings, FOLDER: str(folder), BROKER: server.url, STORE: server.url})
        with WorkerProcess(
            "celery_app", folder / "worker.log", pool=pool, concurrency=concurrency, name=name
        ) as worker:
            yield worker


@contextmanager
def _own_folder(data: Path, name: str) -> Iterator[Path]:
    """Give an example an empty folder that nobody else uses; its files stay there until the next time.

    Raises:
        SceneError: when the same example runs there already.
    """
    data.mkdir(parents=True, exist_ok=True)
    with (data / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SceneError(
                f"another {name} runs in {data}; wait for its end, or choose another folder with --data"
            ) from None
        folder = (data / name).resolve()
        # Runs of an example that was broken off would go on here, in a world that never heard of them.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder


def _leave(signum: int, _frame: FrameType | None) -> None:
    """Unwind this process as Ctrl-C does, so that what it started is stopped."""
    raise SystemExit(128 + signum)


def _judge(scene: Scene, name: str) -> int:
    """Show what was checked, and what to do next; the exit code."""
    # What the stand-in says is known, so nothing that hangs on it is free.
    checks = [replace(check, free=check.free and scene.is_real) for check in scene.checks]
    scene.print(checks_table(checks))
    wrong = [f"{check.rule} ({check.figures})" for check in checks if not check.holds and not check.free]
    if any(not check.holds and check.free for check in checks):
        scene.print("-  is otherwise than with the stand-in: a real model is free to see it in its own way.")
    asked = model.in_words(scene.models)
    if scene.options.report:
        report = {"checks": len(scene.checks), "wrong": wrong, "model": asked}
        scene.options.report.write_text(json.dumps(report), encoding="utf-8")
    if asked:
        scene.print(Text(f"The agents asked {asked}.", style="bold" if scene.is_real else "bold yellow"))
    if wrong:
        scene.print(Text(f"This did not add up: {'; '.join(wrong)}", style="bold red"))
        return 1
    scene.print(Text(f"All of it added up: {len(scene.checks)} checks, {scene.seconds:.1f} s.", style="bold green"))
    _say_what_next(scene, name)
    return 0


def _say_what_next(scene: Scene, name: str) -> None:
    """Where a reader may go from here."""
    python = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable
    following = EXAMPLES[(EXAMPLES.index(name) + 1) % len(EXAMPLES)]
    commands = {"the saga itself": f"less examples/{name}/workflow.py"}
    if scene.worker is not None:
        commands["what the worker saw"] = f"less {os.path.relpath(scene.worker.log_file)}"
    commands["another example"] = f"{python} -m examples.{following}.main"
    commands["a worker of your own, with Flower"] = "docker compose up"
    scene.console.print("Next", style="bold")
    for what, command in commands.items():
        scene.console.print(f"{what:<33}  [bold]{command}[/]", highlight=False, soft_wrap=True)
    scene.print()
