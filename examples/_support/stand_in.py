"""The stand-in for a language model: it reads what is asked, and answers what a function of the example computes.

Each example that has agents has a ``stand_in.py`` with such functions. They are found by the output fields that are
asked for::

    @says("message")
    def message(asked: Asked) -> dict[str, Any]:
        return {"message": f"{asked['greeting']} The sum is {asked['sum']}."}

An answer depends on its question alone, so runs may ask side by side, and be killed and ask again. As a server for
workers that somebody else has started::

    python -m multiagents.testing.lm_stub --port 8123 --answer-with examples._support.stand_in:answer
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from examples import EXAMPLES
from examples._support.world import PACE
from multiagents.testing.lm_stub import LMRequest, Reply, fields, react, react_finish, slow

#: Seconds that it takes for an answer at pace 1: a real model takes longer.
SECONDS = 0.1

_FIELD = re.compile(r"^\[\[ ## (\w+) ## \]\]$", re.MULTILINE)
_ASKED_FOR = "Respond with the corresponding output fields"
#: What ReAct's turns are for.
_GOAL = re.compile(r"necessary information for producing (.+)\.$", re.MULTILINE)

Answer = Callable[["Asked"], Mapping[str, Any]]
#: The next call of a tool, or None when there is enough.
NextCall = Callable[["Asked"], "tuple[str, Mapping[str, Any]] | None"]

_answers: dict[tuple[str, ...], Answer] = {}
_calls: dict[tuple[str, ...], NextCall] = {}


@dataclass(frozen=True)
class Asked:
    """A question as DSPy's ``ChatAdapter`` and ``ReAct`` write it.

    Attributes:
        fields: the input fields, as text.
        outputs: the names of the output fields that are to be answered in the end.
        is_turn: whether the next call of a tool is asked for, and not yet the answer.
        earlier: the messages before this one, of a ``dspy.History``: role and fields.
    """

    fields: Mapping[str, str]
    outputs: tuple[str, ...]
    is_turn: bool = False
    earlier: tuple[tuple[str, Mapping[str, str]], ...] = ()

    def __getitem__(self, name: str) -> str:
        return self.fields[name]

    def get(self, name: str, default: str = "") -> str:
        """An input field, or ``default`` where it is not given."""
        return self.fields.get(name, default)

    def list(self, name: str) -> list[Any]:
        """An input field that is a list."""
        found: list[Any] = json.loads(self.fields.get(name, "[]"))
        return found

    @property
    def calls(self) -> list[tuple[str, dict[str, Any], str]]:
        """The calls of tools so far: name, arguments, what came of it."""
        turns = sorted(int(name.removeprefix("tool_name_")) for name in self.fields if name.startswith("tool_name_"))
        return [
            (
                self.fields[f"tool_name_{turn}"],
                json.loads(self.fields[f"tool_args_{turn}"]),
                self.fields.get(f"observation_{turn}", ""),
            )
            for turn in turns
            if self.fields[f"tool_name_{turn}"] != "finish"
        ]


def says(*outputs: str) -> Callable[[Answer], Answer]:
    """Answer questions for these output fields with a function."""
    return lambda function: _registered(_answers, outputs, function)


def calls_for(*outputs: str) -> Callable[[NextCall], NextCall]:
    """Choose the tools on the way to these output fields with a function."""
    return lambda function: _registered(_calls, outputs, function)


def _registered(known: dict[tuple[str, ...], Any], outputs: tuple[str, ...], function: Any) -> Any:
    key = tuple(sorted(outputs))
    if key in known:
        raise ValueError(f"{known[key].__module__} already answers for {', '.join(key)}")
    known[key] = function
    return function


def read(request: LMRequest) -> Asked:
    """Read a question."""
    given, _, wanted = request.prompt.partition(_ASKED_FOR)
    outputs = [name for name in re.findall(r"\[\[ ## (\w+) ## \]\]", wanted) if name not in ("completed", "reasoning")]
    is_turn = outputs == ["next_thought", "next_tool_name", "next_tool_args"]
    if is_turn and (goal := _GOAL.search(request.text)) is not None:
        outputs = re.findall(r"`(\w+)`", goal[1])
    said = tuple(
        (str(message["role"]), _fields_of(str(message["content"]).partition(_ASKED_FOR)[0]))
        for message in request.messages[:-1]
        if message["role"] in ("user", "assistant")
    )
    return Asked(_fields_of(given), tuple(outputs), is_turn, said)


def _fields_of(text: str) -> dict[str, str]:
    _, *parts = _FIELD.split(text)
    return {name: value.strip() for name, value in zip(parts[::2], parts[1::2], strict=True)}


def answer(request: LMRequest) -> Reply | None:
    """Answer a request; None where no example has anything to say to it."""
    _load()
    asked = read(request)
    key = tuple(sorted(asked.outputs))
    if asked.is_turn:
        call = _calls[key](asked) if key in _calls else None
        made = react_finish() if call is None else react(f"This is call {len(asked.calls) + 1}.", *call)
    elif key in _answers:
        said = _answers[key](asked)
        # After tools, or a chain of thought, the answer is to come with its reasons.
        reasons = {"reasoning": "A stand-in has none."} if "[[ ## reasoning ## ]]" in request.prompt else {}
        made = fields(**reasons, **said)
    else:
        return None
    return slow(made, SECONDS * float(os.environ.get(PACE, "1")))


@cache
def _load() -> None:
    """Load what the examples have to say."""
    for name in EXAMPLES:
        if (Path(__file__).parents[1] / name / "stand_in.py").exists():
            importlib.import_module(f"examples.{name}.stand_in")
