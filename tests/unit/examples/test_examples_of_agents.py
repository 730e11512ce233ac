"""What the examples of agents are made of: the stand-in, the choice of a model, a calculator, an index, a chat."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from examples import EXAMPLES
from examples._support import model, stand_in
from examples._support.stand_in import Asked
from examples.chatbot.conversation import WINDOW, Conversation, Turn
from examples.codebase_qa.index import Index
from examples.research_assistant.calculator import MOST_CHARACTERS, CalculationError, compute, in_digits
from multiagents.testing.lm_stub import LMRequest
from tests.support import ROOT

KEY, OTHER = model.KEYS[0], model.OTHER

# -- which model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({}, model.MODEL),  # whose error says which key is missing
        ({KEY: "k"}, model.MODEL),
        ({KEY: "k", OTHER: "openai/gpt"}, None),  # left to the setting
        ({model.ADDRESS: "http://stub"}, model.STAND_IN),
        ({model.ADDRESS: "http://stub", KEY: "k"}, model.MODEL),
        ({model.ADDRESS: "http://stub", KEY: "", OTHER: ""}, model.STAND_IN),
        ({model.ADDRESS: "http://stub", KEY: "k", model.OFFLINE: "1"}, model.STAND_IN),
    ],
)
def test_a_real_model_is_asked_where_there_is_a_key_and_else_the_stand_in(
    environ: dict[str, str], asked: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*model.KEYS, OTHER, model.ADDRESS, model.OFFLINE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # taken back with the others
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    chosen = model.chosen()

    assert (chosen["model"] if isinstance(chosen, dict) else chosen) == asked


def test_the_stand_in_is_called_by_its_name() -> None:
    assert model.in_words(["gemini/x", model.STAND_IN]) == "a stand-in, gemini/x"


def test_keys_are_passed_on_to_the_worker_and_are_in_no_image() -> None:
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")

    assert [line for line in compose.splitlines() if "API_KEY" in line] == [f"      {name}:" for name in model.KEYS]
    assert re.findall(r"^(?:ARG|ENV|COPY .*\.env)", image, re.MULTILINE) == []
    assert ".env" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


# -- the stand-in ------------------------------------------------------------------------------------------------------


def request(*messages: tuple[str, str]) -> LMRequest:
    said = tuple({"role": role, "content": content} for role, content in messages)
    return LMRequest(number=1, at=0.0, wire="gemini", model="stand-in", messages=said)


def wanted(*outputs: str) -> str:
    fields = ", then ".join(f"`[[ ## {name} ## ]]`" for name in outputs)
    return f"\n\nRespond with the corresponding output fields, starting with the field {fields}."


def test_the_stand_in_reads_what_it_is_asked_and_what_was_said_before() -> None:
    before = "[[ ## message ## ]]\nI am Ann.", "[[ ## reply ## ]]\nArr!\n\n[[ ## completed ## ]]"
    now = "[[ ## personality ## ]]\na pirate\n\n[[ ## message ## ]]\nBye,\nthen." + wanted("reply", "completed")

    asked = stand_in.read(request(("system", "..."), ("user", before[0]), ("assistant", before[1]), ("user", now)))

    assert asked.fields == {"personality": "a pirate", "message": "Bye,\nthen."}
    assert asked.outputs == ("reply",)
    assert asked.earlier == (("user", {"message": "I am Ann."}), ("assistant", {"reply": "Arr!", "completed": ""}))


def test_the_stand_in_knows_the_calls_that_an_agent_has_made() -> None:
    system = "Your goal is to use the tools to collect any necessary information for producing `analysis`, `sure`."
    trajectory = (
        "[[ ## q ## ]]\nWhy?\n\n[[ ## trajectory ## ]]\n[[ ## thought_0 ## ]]\nHm.\n\n[[ ## tool_name_0 ## ]]\nadd\n\n"
        '[[ ## tool_args_0 ## ]]\n{"a": 1}\n\n[[ ## observation_0 ## ]]\n3'
    )
    turn = wanted("next_thought", "next_tool_name", "next_tool_args", "completed")

    asked = stand_in.read(request(("system", system), ("user", trajectory + turn)))

    assert (asked.is_turn, asked.outputs) == (True, ("analysis", "sure"))
    assert asked.calls == [("add", {"a": 1}, "3")]


def test_every_example_with_agents_has_a_stand_in_and_none_answers_for_another() -> None:
    stand_in._load()  # a question that two of them answer is an error

    with_agents = {
        name
        for name in EXAMPLES
        if "@dspy_worker" in (ROOT / "examples" / name / "workers.py").read_text(encoding="utf-8")
    }

    assert len(with_agents) == 7
    assert with_agents == {answer.__module__.split(".")[1] for answer in stand_in._answers.values()}


def test_the_stand_in_has_nothing_to_say_to_what_no_example_asks() -> None:
    assert stand_in.answer(request(("user", "[[ ## q ## ]]\nWhy?" + wanted("no_such_field", "completed")))) is None


def test_two_answers_to_one_question_are_an_error() -> None:
    def answer(asked: Asked) -> dict[str, Any]:
        return {}

    stand_in._load()
    with pytest.raises(ValueError, match=r"examples\.hello\.stand_in already answers for message"):
        stand_in.says("message")(answer)


# -- the calculator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "digits"),
    [
        ("0.1 + 0.2", "0.3"),
        ("(463894.20 - 412350.40) / 412350.40 * 100", "12.5"),
        ("-7 / 2", "-3.5"),
        ("2 / 3", "0.666666666667 (rounded)"),
        ("-1 / 3000000000000000", "0 (rounded)"),
        ("2 ** 10 - 2 ** -1", "1023.5"),
        ("round(2 / 3, 2)", "0.67"),
        ("round(7 / 2)", "4"),
        ("max(1, 2.5, 2) + min(3, 1)", "3.5"),
        (" 1e3 ", "1000"),
        ("1/1024", "0.0009765625"),
    ],
)
def test_the_calculator_is_exact(expression: str, digits: str) -> None:
    assert in_digits(compute(expression)) == digits


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("__import__('os').system('true')", "means nothing here"),
        ("(1).__class__", "means nothing here"),
        ("[n for n in (1, 2)]", "means nothing here"),
        ("True + 1", "means nothing here"),
        ("'a' * 9", "means nothing here"),
        ("9 ** 9 ** 9", "an exponent is a whole number of at most 64"),
        ("2 ** 0.5", "an exponent"),
        ("((10 ** 64) ** 64) ** 64", "too large"),
        ("1 / 0", "divides by zero"),
        ("0 ** -1", "divides by zero"),
        ("1,000.50 +", "is no expression"),
        ("(" * 150, "is no expression"),
        ("1+" * MOST_CHARACTERS, "at most 200 characters"),
        ("round(1, 2, 3)", "round takes"),
        ("min()", "min takes"),
        ("", "is no expression"),
    ],
)
def test_the_calculator_runs_no_code_and_says_what_it_cannot_compute(expression: str, why: str) -> None:
    with pytest.raises(CalculationError, match=why):
        compute(expression)


def test_the_longest_expression_is_computed() -> None:
    assert compute("-" * (MOST_CHARACTERS - 1) + "1") == Fraction(-1)


# -- the index ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "old.py").write_text("def reserve_stock(): ...")
    (tmp_path / "shop" / "stock.py").write_text(
        'import os\n\n\nclass Stock:\n    """What there is."""\n\n'
        "    @property\n    def left(self):\n        return 3\n\n\n"
        'async def reserve_stock(order):\n    """Set pieces aside."""\n'
    )
    (tmp_path / "broken.py").write_text("def (:")
    (tmp_path / "README.md").write_text("# Shop\nWe sell tea.\n\n```\n# no heading\n```\n## Refunds\nMoney back.\n")
    return tmp_path


def test_functions_methods_and_sections_are_found_by_their_lines(code: Path) -> None:
    found = {passage.source: passage.name for passage in Index(code).passages}

    assert found == {
        "README.md:1": "Shop",
        "README.md:7": "Refunds",
        "shop/stock.py:4": "Stock",
        "shop/stock.py:8": "Stock.left",
        "shop/stock.py:12": "reserve_stock",
    }


@pytest.mark.parametrize(
    ("query", "first"), [("reserve the stock", "shop/stock.py:12"), ("money", "README.md:7"), ("qwyx", None)]
)
def test_what_fits_best_comes_first(code: Path, query: str, first: str | None) -> None:
    assert next((passage.source for passage in Index(code).find(query)), None) == first


# -- the conversation --------------------------------------------------------------------------------------------------


def test_a_run_is_shown_the_last_turns_and_all_of_them_are_saved(tmp_path: Path) -> None:
    turns = [Turn(message=f"message {number}", reply=f"reply {number}") for number in range(WINDOW + 3)]
    conversation = Conversation(personality="coach", turns=turns)

    conversation.save(tmp_path / "conversation.json")
    loaded = Conversation.load(tmp_path / "conversation.json")

    shown = loaded.asked("And now?")["conversation"]["messages"]
    assert loaded == conversation
    assert shown == [{"message": f"message {number}", "reply": f"reply {number}"} for number in range(3, WINDOW + 3)]
