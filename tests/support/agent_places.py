"""Where something may strike an agent: in a call of its model or a tool, or in code, in each mode; runs that go there.

A run's question and the argument of its tools are its id, so that many runs go side by side, each with a model and
tools of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from multiagents import Run
from multiagents.agents.reasoning import Reasoning
from multiagents.orchestrator.api.waiting import Waiting
from multiagents.state_store.records import CallRecord, CallState
from multiagents.testing import wait_until
from multiagents.testing.lm_stub import LMRequest, Reply, fields, react, react_finish
from tests.support.agents_kit import Agents
from tests.support.apps.agent_modes import FLOWS, called, shut

#: Tools of both kinds, which every agent that takes tools calls.
BOTH = ("look", "look_later")
#: Nothing takes that long, but for workers that start on a busy machine.
SOON = 40.0
_numbers = count(1)


@dataclass(frozen=True)
class Place:
    """Somewhere in an agent.

    Attributes:
        mode: how the agent reasons.
        where: ``model``, ``code``, or the name of a tool.
        call: which call of the model; 0 is the first.
    """

    mode: Reasoning
    where: str = "model"
    call: int = 0

    @property
    def is_tool(self) -> bool:
        return self.where not in ("model", "code")

    @property
    def tools(self) -> list[str]:
        """The calls that the agent makes of tools; two of them may be equal."""
        if not self.mode.takes_tools:
            return []
        return ["look", "look_later", self.where if self.is_tool and self.where not in BOTH else "look"]

    @property
    def requests_until(self) -> int:
        """How many requests come to the agent's model until it is there."""
        if self.mode is Reasoning.REACT and self.is_tool:
            return self.calls_until
        return self.call + 1

    @property
    def calls_until(self) -> int:
        """How many calls of tools are begun until it is there."""
        if self.is_tool:
            return self.tools.index(self.where) + 1
        return min(self.call, len(self.tools)) if self.mode is Reasoning.REACT else self.call * len(self.tools)

    def replies(self, word: str) -> list[Reply]:
        """All that the agent's model says."""
        match self.mode:
            case Reasoning.PREDICT:
                return [fields(answer="So.")]
            case Reasoning.CHAIN_OF_THOUGHT:
                return [fields(reasoning="Think.", answer="So.")]
            case Reasoning.REACT:
                turns = [react("Look.", tool, {"word": word}) for tool in self.tools]
                return [*turns, react_finish(), fields(reasoning="Done.", answer="So.")]
            case Reasoning.CODEACT:
                tries = [
                    f"try:\n    {tool}(word={word!r})\nexcept Exception as error:\n    print(error)"
                    for tool in self.tools
                ]
                first = "\n".join(tries)
            case Reasoning.PROGRAM_OF_THOUGHT:
                first = "print(1 + 1)"
        if self.where == "code":
            first = "while True:\n    pass"
        return [
            fields(reasoning="Begin.", code=f"```python\n{first}\n```"),
            fields(reasoning="End.", code="```python\nSUBMIT(answer='So.')\n```"),
        ]

    def __str__(self) -> str:
        return f"{self.mode}-{self.where}{self.call or ''}"


def models(*, every: bool = False) -> list[Place]:
    """In the first call of the model of agents of all modes, or in every one."""
    return [
        Place(mode, call=call) for mode in Reasoning for call in range(len(Place(mode).replies("")) if every else 1)
    ]


def tools(sync: str, later: str) -> list[Place]:
    """In a tool, be it a coroutine or none, of all modes that take any."""
    return [Place(mode, tool) for mode in Reasoning if mode.takes_tools for tool in (sync, later)]


CODE = [Place(mode, "code") for mode in Reasoning if mode.writes_code]


class Scene:
    """A run of an agent that comes to a place, and is held there; with its model.

    What the model says goes by what is asked, so a request that comes again is answered as before.
    """

    def __init__(self, agents: Agents, place: Place, flows: Any = FLOWS) -> None:
        self.place = place
        self.word = f"w{next(_numbers)}-{place.mode}"
        self._agents = agents
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._asked: list[str] = []
        self._replies: Sequence[Reply] = place.replies(self.word)
        agents.stub.when(f"{self.word}.").reply(self._reply)
        if place.is_tool:
            agents.redis.set(shut(place.where, self.word), 1)
        self.run: Run = agents.orchestrator.start(flows[place.mode], {"question": f"{self.word}."})

    def _reply(self, request: LMRequest) -> Reply:
        with self._lock:
            self._asked.append(request.text)
            which = list(dict.fromkeys(self._asked)).index(request.text)
        if self.place.where == "model" and which == self.place.call:
            self._open.wait(SOON)
        return self._replies[which]

    def is_there(self) -> bool:
        """Whether it is held at its place, or, in code, on its way there."""
        if self.place.is_tool:
            return len(self.calls()) == self.place.calls_until
        return self.requests == self.place.requests_until

    def go_on(self) -> None:
        """Hold it no longer."""
        self._open.set()
        self._agents.redis.delete(shut(self.place.where, self.word))

    @property
    def requests(self) -> int:
        """How many came to its model."""
        with self._lock:
            return len(self._asked)

    @property
    def needed(self) -> int:
        """How many it takes when nothing happens."""
        return len(self._replies)

    @property
    def prompts(self) -> str:
        """What its model was asked, all of it."""
        with self._lock:
            return "\n".join(self._asked)

    def calls(self) -> list[str]:
        """The calls of its tools that were begun, as tool and idempotency key."""
        return list(self._agents.redis.lrange(called(self.word), 0, -1))

    def approval(self) -> Waiting:
        """What it waits for, once a person is to decide."""

        def found() -> Waiting | None:
            return next((one for one in self.run.describe().steps["it"].waiting_for if one.kind == "tool"), None)

        return wait_until(found, SOON, f"the wait of {self} for a person")

    def evidence(self) -> list[CallRecord]:
        """The calls that were answered when their worker had lost the attempt."""
        return [call for call in self.run.calls() if call.state is CallState.EVIDENCE]

    def __str__(self) -> str:
        return str(self.place)


class Scenes(list[Scene]):
    """Runs side by side."""

    def are_there(self) -> None:
        """Wait until each is at its place, or over."""
        for scene in self:
            wait_until(lambda one=scene: one.is_there() or one.run.status.is_end, SOON, f"{scene} at its place")

    def go_on(self) -> None:
        """Hold none any longer."""
        for scene in self:
            scene.go_on()

    def end(self) -> dict[str, str]:
        """Wait for their ends; the status of each."""
        for scene in self:
            wait_until(lambda run=scene.run: run.status.is_end, SOON, f"the end of {scene}")
        return {str(scene): str(scene.run.status) for scene in self}
