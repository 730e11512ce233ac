"""Agents whose tools are those of a real MCP server, which is started for them, or serves HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from multiagents import (
    Orchestrator,
    RetryPolicy,
    Run,
    WorkflowBuilder,
    WorkflowFailedError,
    dspy_worker,
    mcp_tools,
    tool,
)
from multiagents.embedded import free_port
from multiagents.orchestrator.api.waiting import Waiting
from multiagents.testing import wait_until
from multiagents.testing.lm_stub import LMRequest, LMStub, Reply, fields, react_agent
from multiagents.worker_sdk.execution.timeouts import LimitReached
from tests.support.agents_kit import Agents
from tests.support.apps.agents import SHOP, SHOP_BY_HTTP
from tests.support.one_process import one_process

SERVER = str(Path(__file__).parents[2] / "support" / "mcp_server.py")
SOON = 40.0
AGAIN = RetryPolicy(max_attempts=2, initial_interval=0.01, jitter=False)


class Shop:
    """What a server was asked."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "seen"
        self.command = [sys.executable, SERVER]
        self.env = {"MCP_SEEN": str(self.file)}

    @property
    def seen(self) -> list[str]:
        return self.file.read_text().splitlines() if self.file.exists() else []

    def tools(self, **options: Any) -> Any:
        """Its tools, from a server that is started for each attempt."""
        return mcp_tools(command=self.command, env=self.env, **options)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    pytest.importorskip("mcp")
    return Shop(tmp_path)


class Served(Shop):
    """The same, of a server that serves HTTP."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/mcp"
        self.process = subprocess.Popen([*self.command, str(port)], env={**os.environ, **self.env})

    def tools(self, **options: Any) -> Any:
        return mcp_tools(url=self.url, **options)


@pytest.fixture(scope="module")
def served_anew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that has just been started, and does not answer yet; the first test that uses it sees to that."""
    pytest.importorskip("mcp")
    made = Served(tmp_path_factory.mktemp("mcp"))
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture
def served(served_anew: Served) -> Served:
    """One that answers, and was asked nothing yet."""

    def answers() -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", urlsplit(served_anew.url).port or 0)) == 0

    wait_until(answers, SOON, "the server")
    served_anew.file.unlink()
    return served_anew


@pytest.fixture
def orchestrator(lm_stub: LMStub) -> Iterator[Orchestrator]:
    lm = {"model": "openai/stub", "api_base": lm_stub.openai_base, "api_key": "x"}
    with one_process(multiagents_lm=lm) as made:
        yield made


def ask(orchestrator: Orchestrator, *tools: Any, mode: str = "react", fail_first: bool = False, **options: Any) -> Run:
    options = {"retry": AGAIN, **options}
    failed: list[str] = []

    @dspy_worker("asked", signature="question -> answer: str", reasoning=mode, tools=tools, **options)
    def asked(context: dict[str, Any]) -> None:
        if fail_first and not failed:
            failed.append("once")
            raise RuntimeError("after the answer")

    workflow = WorkflowBuilder("ask").add_step("it", asked).build(register=False)
    return orchestrator.start(workflow, {"question": "Why?"})


def key_of(run: Run) -> str:
    """The idempotency key of its call of ``look-up``."""
    return f"{run.transaction_id}/it.look_up[0]"


def test_an_agent_calls_the_tools_of_a_server_that_is_started_for_it(
    orchestrator: Orchestrator, shop: Shop, lm_stub: LMStub
) -> None:
    lm_stub.when("Why?").reply(
        react_agent(("add", {"a": 1, "b": 2}), ("look_up", {"word": "x"}), ("fails", {"word": "y"}), answer="So.")
    )

    run = ask(orchestrator, shop.tools())

    assert run.result()["answer"] == "So."
    calls = run.calls("it")
    assert [call.kind for call in calls] == ["listing", "lm", "tool", "lm", "tool", "lm", "tool", "lm", "lm"]
    wait_until(lambda: shop.seen[-1] == "ended", 20, "the end of the server")
    assert shop.seen == ["started", "listed", "add 1 2", f"look-up x {key_of(run)}", "fails y", "ended"]
    shown = lm_stub.requests[-1].text
    assert "about x\\nand more" in shown or "about x\nand more" in shown
    assert "ToolFailed: Error executing tool fails: no y" in shown


def test_a_server_may_serve_http_and_one_that_is_away_is_asked_again_by_the_next_attempt(
    orchestrator: Orchestrator, lm_stub: LMStub, served_anew: Served
) -> None:
    lm_stub.when("Why?").reply(react_agent(("add", {"a": 1, "b": 2}), answer="So."))

    away = ask(orchestrator, mcp_tools(url=f"http://127.0.0.1:{free_port()}/mcp"))
    # It is still starting, so the first of these runs need not meet it.
    wait_until(lambda: ask(orchestrator, served_anew.tools()).status == "completed", SOON, "a run that has met it")

    assert "add 1 2" in served_anew.seen
    with pytest.raises(WorkflowFailedError, match=r"MCP server http://127\.0\.0\.1:\d+/mcp does not answer"):
        away.result()
    assert away.describe().steps["it"].attempts == 2


def test_code_is_given_what_a_tool_of_a_server_returns_as_data(
    orchestrator: Orchestrator, served: Served, lm_stub: LMStub
) -> None:
    code = "```python\nSUBMIT(answer=str(add(a=1, b=2) + len(look_up(word='x'))))\n```"
    lm_stub.when("Why?").reply(fields(reasoning="Add.", code=code))

    assert ask(orchestrator, served.tools(), mode="codeact").result()["answer"] == "5"


def test_S35_a_later_attempt_has_the_tools_and_answers_that_the_first_one_was_given_and_starts_no_server(
    orchestrator: Orchestrator, shop: Shop, lm_stub: LMStub
) -> None:
    lm_stub.when("Why?").reply(react_agent(("add", {"a": 1, "b": 2}), answer="So."))

    run = ask(orchestrator, shop.tools(), fail_first=True)

    assert run.result()["answer"] == "So."
    assert (lm_stub.count, run.describe().steps["it"].attempts) == (3, 2)
    wait_until(lambda: shop.seen[-1] == "ended", 20, "the end of the server")
    assert shop.seen == ["started", "listed", "add 1 2", "ended"]


@pytest.mark.parametrize(("idempotent", "status"), [(None, "succeeded"), (False, "unknown")])
def test_a_server_that_dies_under_a_call_fails_the_attempt_and_not_the_tool(
    orchestrator: Orchestrator, shop: Shop, lm_stub: LMStub, idempotent: bool | None, status: str
) -> None:
    lm_stub.when("Why?").reply(react_agent(("dies", {}), answer="So."))

    run = ask(orchestrator, shop.tools(idempotent=idempotent))

    step = run.describe().steps["it"]
    assert step.status == status
    if status == "succeeded":
        assert step.usage.possibly_paid_twice == 1
        assert [line for line in shop.seen if line == "dies"] == ["dies"] * 2
    else:
        assert "is not idempotent, and nobody knows what became of it" in step.error.message
    assert "is gone" not in "".join(request.text for request in lm_stub.requests)


def test_a_tool_of_a_server_that_does_not_start_was_not_called_and_is_by_the_next_attempt(
    orchestrator: Orchestrator, shop: Shop, lm_stub: LMStub
) -> None:
    agent = react_agent(("add", {"a": 1, "b": 2}), answer="So.")

    def says(request: LMRequest) -> str | Reply:
        if request.number == 1:  # The attempt fails after the listing, and the next one has to start the server.
            shop.file.with_suffix(".ill").touch()
            return "no answer"
        return agent(request)

    lm_stub.answer_with(says)

    run = ask(orchestrator, shop.tools(idempotent=False), retry=RetryPolicy(max_attempts=3, initial_interval=0.01))

    assert run.result()["answer"] == "So."
    assert run.describe().steps["it"].attempts == 3
    assert [line for line in shop.seen if line.startswith("add")] == ["add 1 2"]
    assert run.describe().steps["it"].usage.possibly_paid_twice == 0


def test_a_time_limit_ends_the_session_with_the_attempt(
    orchestrator: Orchestrator, shop: Shop, lm_stub: LMStub
) -> None:
    @tool("think")
    def think() -> str:
        "Think for too long."
        raise LimitReached

    lm_stub.when("Why?").reply(react_agent(("add", {"a": 1, "b": 2}), ("think", {}), answer="So."))

    with pytest.raises(LimitReached):
        ask(orchestrator, think, shop.tools())

    wait_until(lambda: shop.seen == ["started", "listed", "add 1 2", "ended"], SOON, "the end of the server")


def test_a_server_that_does_not_start_is_an_error_in_words_and_the_attempt_is_tried_again(
    orchestrator: Orchestrator, lm_stub: LMStub
) -> None:
    run = ask(orchestrator, mcp_tools(command=["/nowhere/a-server"]))

    with pytest.raises(WorkflowFailedError, match="MCP server /nowhere/a-server does not answer: FileNotFoundError"):
        run.result()
    assert (run.describe().steps["it"].attempts, lm_stub.count) == (2, 0)


def test_a_server_that_says_nothing_is_waited_for_so_long_and_no_longer(
    orchestrator: Orchestrator, lm_stub: LMStub
) -> None:
    silent = [sys.executable, "-c", "import time; time.sleep(600)"]

    run = ask(orchestrator, mcp_tools(command=silent, start_timeout=0.2))

    with pytest.raises(WorkflowFailedError, match=r"it did not start within 0\.2 s"):
        run.result()


def test_what_a_server_has_is_chosen_and_renamed_and_what_two_have_is_refused(
    orchestrator: Orchestrator, served: Served, lm_stub: LMStub
) -> None:
    @tool("add")
    def own(a: int) -> int:
        "Add."
        return a

    lm_stub.when("Why?").reply(react_agent(("shop_add", {"a": 1, "b": 2}), answer="So."))

    chosen = ask(orchestrator, own, served.tools(only=["add"], prefix="shop_"))
    twice = ask(orchestrator, own, served.tools(only=["add"]))
    unknown = ask(orchestrator, served.tools(only=["ad"]))

    assert chosen.result()["answer"] == "So."
    assert "look_up" not in lm_stub.requests[0].text
    with pytest.raises(WorkflowFailedError, match='two tools are called "add", one of them by an MCP server'):
        twice.result()
    with pytest.raises(WorkflowFailedError, match="has no tool 'ad'; did you mean \"add\""):
        unknown.result()
    assert twice.describe().steps["it"].attempts == 1


def test_a_tool_of_a_server_is_called_as_often_as_it_may_be(
    orchestrator: Orchestrator, served: Served, lm_stub: LMStub
) -> None:
    lm_stub.when("Why?").reply(react_agent(("add", {"a": 1, "b": 1}), ("add", {"a": 2, "b": 2}), answer="So."))

    ask(orchestrator, served.tools(max_calls=1)).result()

    assert [line for line in served.seen if line.startswith("add")] == ["add 1 1"]
    assert "it was called 1 times, and may not be again" in lm_stub.requests[-1].text


def test_an_image_that_a_tool_of_a_server_returns_is_one_for_the_model_and_named_in_code(
    orchestrator: Orchestrator, served: Served, lm_stub: LMStub
) -> None:
    lm_stub.when("Why?", lambda request: "observation_" in request.text or "next_tool" in request.text).reply(
        react_agent(("picture", {}), answer="So.")
    )
    code = "```python\nSUBMIT(answer=picture())\n```"
    lm_stub.when("Why?").reply(fields(reasoning="Draw.", code=code))

    ask(orchestrator, served.tools(only=["picture"])).result()
    in_code = ask(orchestrator, served.tools(only=["picture"]), mode="codeact").result()["answer"]

    parts = lm_stub.requests[1].body["messages"][-1]["content"]
    assert [part["image_url"]["url"] for part in parts if part["type"] == "image_url"] == [
        "data:image/png;base64,iVBORw=="
    ]
    assert in_code == "a dot\n[image, which cannot be shown here]"


# --- with workers -----------------------------------------------------------------------------------------------------


def test_S35_an_agent_that_was_killed_in_a_call_of_a_server_calls_it_again_under_its_key_and_repeats_no_other(
    own_agents: Agents,
) -> None:
    pytest.importorskip("mcp")
    seen = Shop(own_agents.seen.parent)
    hold = seen.file.with_suffix(".hold")
    hold.touch()
    calls = react_agent(("add", {"a": 1, "b": 2}), ("look_up", {"word": "x"}), answer="So.")
    own_agents.stub.when("Buy?").reply(calls)
    victim = own_agents.worker()
    run = own_agents.orchestrator.start(SHOP, {"question": "Buy?"})
    wait_until(lambda: any(line.startswith("look-up") for line in seen.seen), SOON, "the call")

    victim.kill()
    seen.file.with_suffix(".more").touch()  # It has another tool by now, of which this run knows nothing.
    hold.unlink()
    own_agents.worker()

    assert run.result(timeout=SOON)["answer"] == "So."
    looked_up = [line for line in seen.seen if line.startswith("look-up")]
    assert (len(looked_up), len(set(looked_up))) == (2, 1)
    assert seen.seen.count("add 1 2") == 1
    assert own_agents.stub.count == 4
    (listing,) = [call for call in run.calls("it") if call.kind == "listing"]
    assert listing.replayed == 1
    assert "newcomer" not in own_agents.stub.requests[-2].text
    wait_until(lambda: seen.seen.count("ended") == 2, SOON, "the end of both servers")


def test_a_call_of_a_server_may_wait_for_a_person_and_nothing_is_open_meanwhile(agents: Agents) -> None:
    pytest.importorskip("mcp")
    seen = Shop(agents.seen.parent)
    agents.stub.when("Buy?").reply(react_agent(("look_up", {"word": "dear"}), answer="So."))
    run = agents.orchestrator.start(SHOP, {"question": "Buy?"})

    def waits() -> list[Waiting]:
        return [one for one in run.describe().steps["it"].waiting_for if one.kind == "tool"]

    (wait,) = wait_until(waits, SOON, "the wait for a person")
    wait_until(lambda: seen.seen == ["started", "listed", "ended"], SOON, "the end of the server")

    run.approve(wait.id or "", actor="ann")

    assert run.result(timeout=SOON)["answer"] == "So."
    assert [line for line in seen.seen if line.startswith("look-up dear")] == [f"look-up dear {key_of(run)}"]


def test_on_gevent_servers_are_asked_by_http_and_none_is_started(
    own_agents: Agents, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_URL", served.url)
    own_agents.stub.when("Buy?").reply(react_agent(("add", {"a": 1, "b": 2}), answer="So."))
    own_agents.worker("gevent")

    by_http = own_agents.orchestrator.start(SHOP_BY_HTTP, {"question": "Buy?"})
    started = own_agents.orchestrator.start(SHOP, {"question": "Buy?"})

    assert by_http.result(timeout=SOON)["answer"] == "So."
    with pytest.raises(WorkflowFailedError, match="cannot be done on gevent"):
        started.result(timeout=SOON)
