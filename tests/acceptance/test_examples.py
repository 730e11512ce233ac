"""Every example as a reader runs it: a process of its own, which judges itself. They share a Valkey and a worker.

All of them are started at once, and each test waits for its own. Those that kill their worker start one of their own;
the order example is the demo, and has a test module of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples import EXAMPLES
from examples._support import model, stand_in
from multiagents.testing import EmbeddedServer, WorkerProcess
from multiagents.testing.lm_stub import LMStub

ROOT = Path(__file__).parents[2]
#: Seconds that an example may take, beside the others and on a busy machine.
TIMEOUT = 220.0
#: Words that the output of an example has, beside those that say that its own checks hold.
SHOWN = {
    "hello": ["Your sum is 5.", "The agents asked a stand-in."],
    "trip_booking": ["← cancel_hotel", "its undos go out at the same moment", "↶ undone"],
    "money_transfer": ["(rule S14)", "result supplied by ben", "tried again by ann", "no cent was made or lost"],
    "expense_approval": ["kill -9 of the worker", "ann: without the wine", "ben: no receipt"],
    "batch_processing": [
        "← unload_file",
        "line 17: expected 5 columns",
        "(run of one_file for each of files, 4 at once)",
    ],
    "subscription_billing": ["is refunded newest first", "ben: too many reminders", "unpaid"],
    "chatbot": ["Your name is Ann", "I do not know your name", "what is out of the window is not known"],
    "content_pipeline": ["P-2: it is rewritten twice", "ben: dull", "no notes about 'unicorns'"],
    "codebase_qa": [
        "the third round is skipped",
        "after 3 rounds it is handed out as not verified",
        "C-3: nothing is retrieved or validated; it shows as skipped",
    ],
    "document_verification": [
        "D-1: exactly one of the checks is made",
        "D-4: a high fraud score goes to a person",
        "← revert_archive",
        "{'verified': 2, 'refused': 2}",
    ],
    "research_assistant": [
        "NO REAL MODEL is asked",
        "kill -9 of the worker",
        "small talk takes one step behind the coordinator",
        "one came twice: the one that was under way",
        "12.5 per cent",
    ],
}


class Example:
    """An example in a process of its own, its output in a file."""

    def __init__(self, name: str, folder: Path, environ: dict[str, str]) -> None:
        self.output_file = folder / f"{name}.output"
        command = [sys.executable, "-m", f"examples.{name}.main", "--data", str(folder / "own")]
        command += ["--deadline", str(TIMEOUT - 20), "--report", str(folder / f"{name}.json")]
        with self.output_file.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output)

    @property
    def output(self) -> str:
        return self.output_file.read_text(errors="replace")


@dataclass
class Played:
    """All examples that were started, and how another one is."""

    examples: dict[str, Example]
    environ: dict[str, str]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("examples")
    with EmbeddedServer(folder / "valkey") as server, LMStub() as stub:
        stub.answer_with(stand_in.answer)
        environ = {
            **dict.fromkeys((*model.KEYS, model.OTHER)),
            model.ADDRESS: stub.gemini_base,
            "CELERY_BROKER_URL": server.url,
            "MULTIAGENTS_REDIS_URL": server.url,
            "MULTIAGENTS_SWEEP_INTERVAL": "0.1",
            "EXAMPLES_DATA": str(folder),
            "EXAMPLES_PACE": "0.5",
        }
        log = folder / "worker.log"
        with WorkerProcess("celery_app", log, pool="threads", concurrency=8, cwd=ROOT, env=environ) as worker:
            started = {name: Example(name, folder, worker.env) for name in SHOWN}
            yield Played(started, worker.env)
            for example in started.values():
                example.process.kill()
                example.process.wait()


@pytest.mark.timeout(TIMEOUT + 20)
@pytest.mark.parametrize("name", SHOWN)
def test_the_example_ends_as_it_should(played: Played, name: str) -> None:
    example = played.examples[name]

    assert example.process.wait(TIMEOUT) == 0, example.output
    assert [words for words in SHOWN[name] if words not in example.output] == []


def test_the_summary_says_what_ran_on_the_stand_in(played: Played) -> None:
    command = [sys.executable, "run_examples.py", "hello"]

    ran = subprocess.run(
        command, cwd=ROOT, env=played.environ, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 of 1: hello" in ran.stdout
    assert re.search(r"^hello +ok +6 +a stand-in +[\d.]+$", ran.stdout, re.MULTILINE)
    assert "A stand-in is no model" in ran.stdout


def test_every_example_has_a_page_and_is_listed_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "examples").glob("*/main.py")}

    assert folders == set(EXAMPLES) == {"ecommerce_order", *SHOWN}
    assert [name for name in EXAMPLES if f"(examples/{name}/README.md)" not in readme] == []
    assert [name for name in EXAMPLES if not (ROOT / "examples" / name / "README.md").exists()] == []


def test_running_an_example_that_is_not_there_names_those_that_are() -> None:
    command = [sys.executable, "run_examples.py", "trip_bookings"]

    ran = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60, check=False)

    assert ran.returncode == 2
    assert "there is no example 'trip_bookings'; expected any of hello, ecommerce_order, trip_booking" in ran.stderr
