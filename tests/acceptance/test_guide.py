"""The guide's own example of workers and tools runs word for word, with the LM that its set-up makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from multiagents.testing.lm_stub import LMStub, fields, react_agent
from tests.support import ROOT

#: As the guide has it; what stands for a function's body there is one in Python, too.
GUIDE = """
import os
import dspy
from multiagents import dspy_worker, worker, tool

def configure_dspy():
    api_key = os.getenv("GOOGLE_API_KEY")
    if not api_key:
        raise ValueError("GOOGLE_API_KEY environment variable required")
    lm = dspy.LM(model="gemini/gemini-1.5-pro", api_key=api_key)
    dspy.configure(lm=lm)

configure_dspy()

@worker("process_data")
async def process_data(context: dict) -> dict: ...

@dspy_worker("text_classifier", signature="text -> sentiment: str, confidence: float")
async def classify_text(context: dict) -> dict:          # the LM's outputs are in the context by now
    return {"needs_review": context.get("confidence", 0) < 0.7}

@dspy_worker("summarizer", signature="document -> summary: str, key_points: list[str]", reasoning="chain_of_thought")
async def summarize_document(context: dict) -> dict: ...

@tool("web_search")
async def search_web(query: str) -> list[str]: ...       # async tools
@tool("database_query")
def query_database(table: str, filters: dict) -> dict: ...   # and sync tools

@dspy_worker("research_assistant", signature="question -> comprehensive_answer: str, sources: list[str]",
             tools=[search_web, query_database], reasoning="react", max_iters=5, model="gemini/gemini-1.5-pro")
async def research_assistant(context: dict) -> dict: ...
"""

#: What a user does with it.
RUN = """
import json
from celery import Celery
from multiagents import WorkflowBuilder, init_app

app = Celery("guide")
app.conf.task_always_eager = True
orchestrator = init_app(app)
flow = WorkflowBuilder("guide")
for one in (process_data, classify_text, summarize_document, research_assistant):
    flow.add_step(one.name, one)
run = orchestrator.start(flow.build(), {"text": "Fine.", "document": "Long.", "question": "Why?"})
print(json.dumps(run.result()))
"""


def test_the_example_of_the_guide_runs_word_for_word(tmp_path: Path, lm_stub: LMStub) -> None:
    pytest.importorskip("dspy")
    lm_stub.when("Fine.").reply(fields(sentiment="good", confidence=0.6))
    lm_stub.when("Long.").reply(fields(reasoning="Read it.", summary="Short.", key_points=["a", "b"]))
    lm_stub.when("Why?").reply(
        react_agent(
            ("web_search", {"query": "why"}),
            ("database_query", {"table": "t", "filters": {}}),
            comprehensive_answer="So.",
            sources=["a"],
        )
    )
    # The only word that is not the guide's: nobody answers for Google here.
    base = f"api_key=api_key, api_base={lm_stub.gemini_base!r})"
    script = tmp_path / "guide.py"
    script.write_text(GUIDE.replace("api_key=api_key)", base) + RUN, encoding="utf-8")

    ran = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "GOOGLE_API_KEY": "no-secret"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == {
        "text": "Fine.",
        "document": "Long.",
        "question": "Why?",
        "sentiment": "good",
        "confidence": 0.6,
        "needs_review": True,
        "summary": "Short.",
        "key_points": ["a", "b"],
        "comprehensive_answer": "So.",
        "sources": ["a"],
    }
    assert {(request.wire, request.model) for request in lm_stub.requests} == {("gemini", "gemini-1.5-pro")}
    assert lm_stub.count == 6


def test_the_set_up_of_the_guide_says_which_key_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("dspy")
    script = tmp_path / "guide.py"
    script.write_text(GUIDE, encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if name not in ("GOOGLE_API_KEY", "GEMINI_API_KEY")}

    ran = subprocess.run(
        [sys.executable, script],
        env={**environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "GOOGLE_API_KEY environment variable required" in ran.stderr
