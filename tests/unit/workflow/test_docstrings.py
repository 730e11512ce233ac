"""The examples in the docstrings of the core: they are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from multiagents import workflow
from multiagents.workflow.builder import builder
from multiagents.workflow.definition import DefinitionRegistry

MODULES = [found.name for found in pkgutil.walk_packages(workflow.__path__, "multiagents.workflow.")]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_the_docstrings_are_true(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "definitions", DefinitionRegistry())

    assert doctest.testmod(importlib.import_module(module)).failed == 0
