"""Every rule of the semantics is named by a test that proves it, in its name or its docstring."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.support import ROOT

TESTS = ROOT / "tests"
RULES = {*(f"S{n}" for n in range(1, 38)), "S1a", "S1b", *(f"G{n}" for n in range(1, 6))}
#: Rules of what is not there yet. Whoever builds it takes its rule out.
NOT_YET: set[str] = set()


def rules_named() -> Iterator[tuple[str, str]]:
    """Rules, and the tests that name them."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                said = f"{node.name} {ast.get_docstring(node) or ''}"
                for rule in re.findall(r"(?<![A-Za-z0-9])[SG][0-9]+[a-z]?(?![A-Za-z0-9])", said):
                    yield rule, f"{path.relative_to(TESTS)}::{node.name}"


def test_every_rule_is_named_by_a_test() -> None:
    named = dict(rules_named())

    without = RULES - named.keys()

    assert without - NOT_YET == set(), "no test names these rules"
    assert NOT_YET - without == set(), "these rules have a test now: take them out of NOT_YET"


def test_no_test_names_a_rule_that_is_none() -> None:
    unknown = {rule: test for rule, test in rules_named() if rule not in RULES}

    assert unknown == {}
