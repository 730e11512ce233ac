"""Pictures of definitions: the same for equal definitions, and true."""

from __future__ import annotations

from textwrap import dedent

import pytest

from multiagents.exceptions import DefinitionError
from multiagents.workflow.builder import Step, WorkflowBuilder
from multiagents.workflow.definition import Definition


def order() -> Definition:
    return (
        WorkflowBuilder("order")
        .add_step("reserve", "reserve_stock", compensation="release_stock")
        .add_parallel(
            "risk", [Step("fraud", "check_fraud"), [Step("credit", "check_credit"), "limit"]], on_failure="cancel"
        )
        .add_step("charge", 'charge "card" <now> & #1', compensation="refund_card", when=lambda ctx: ctx["total"])
        .add_step("ship", "ship_order", external=True)
        .build(register=False)
    )


def drawn(definition: Definition) -> str:
    return "\n" + definition.diagram("ascii") + "\n"


def test_the_terminal_picture_shows_branches_and_what_undoes_a_step() -> None:
    expected = """
    order · version 1
    │
    ● reserve      reserve_stock              ⤺ release_stock
    │
    ├─┬─ risk · first failure cancels
    │ ├─● fraud    check_fraud
    │ │
    │ ╰─● credit   check_credit
    │   │
    │   ● limit    limit
    │
    ● charge       charge "card" <now> & #1   ⤺ refund_card  (if)
    │
    ● ship         ship_order                 (external)
    """

    assert drawn(order()) == dedent(expected)


def test_a_block_at_the_end_closes_the_pipe() -> None:
    made = WorkflowBuilder("notify").add_step("a").add_parallel("tell", ["mail", "text"]).build(register=False)
    expected = """
    notify · version 1
    │
    ● a          a
    │
    ╰─┬─ tell
      ├─● mail   mail
      ╰─● text   text
    """

    assert drawn(made) == dedent(expected)


def test_forks_in_branches_and_branches_that_cannot_be_parted_are_drawn_too() -> None:
    made = (
        WorkflowBuilder("mesh")
        .add_step("a")
        .add_step("b", after=[])
        .add_step("c", after=["a"])
        .add_step("d", after=["a", "b"])
        .add_step("e", after=[])
        .add_step("f", after=[])
        .add_step("g", after=["e", "f"])
        .add_parallel("tell", ["h", "i"])
        .add_step("z", after=["c", "d", "tell"])
        .build(register=False)
    )
    expected = """
    mesh · version 1
    │
    ├─┬─ side by side
    │ ├───┬─ interwoven
    │ │   ├─● a   a
    │ │   ├─● b   b
    │ │   ├─● c   c   after a
    │ │   ╰─● d   d   after a, b
    │ │
    │ ╰─┬─┬─ side by side
    │   │ ├─● e   e
    │   │ ╰─● f   f
    │   │
    │   ● g       g
    │   │
    │   ╰─┬─ tell
    │     ├─● h   h
    │     ╰─● i   i
    │
    ● z           z
    """

    assert drawn(made) == dedent(expected)


def test_the_mermaid_picture_shows_every_edge() -> None:
    expected = """
    flowchart TD
        start(["order · version 1"])
        s0["reserve<br/>reserve_stock"]
        s0_undo(["⤺ release_stock"])
        s4["charge<br/>charge #quot;card#quot; #lt;now#gt; #amp; #35;1"]
        s4_undo(["⤺ refund_card"])
        s5["ship<br/>ship_order"]
        subgraph b0["risk · first failure cancels"]
            s1["fraud<br/>check_fraud"]
            s2["credit<br/>check_credit"]
            s3["limit"]
        end
        start --> s0
        s0 -. undo .-> s0_undo
        s0 --> s1
        s0 --> s2
        s2 --> s3
        s1 -->|if| s4
        s3 -->|if| s4
        s4 -. undo .-> s4_undo
        s4 --> s5
    """

    assert "\n" + order().diagram("mermaid") + "\n" == dedent(expected)
    assert order().diagram() == order().diagram("mermaid")


@pytest.mark.parametrize("kind", ["mermaid", "ascii"])
def test_a_definition_from_the_store_has_the_same_picture(kind: str) -> None:
    read = Definition.from_json(order().to_json())

    assert read.diagram(kind) == order().diagram(kind)  # type: ignore[arg-type]


def test_an_unknown_kind_suggests_the_nearest() -> None:
    with pytest.raises(DefinitionError, match=r"no diagram of kind 'mermade'; .*; did you mean \"mermaid\"\?"):
        order().diagram("mermade")  # type: ignore[arg-type]


def test_every_step_of_a_wide_and_long_workflow_is_drawn_once() -> None:
    made = WorkflowBuilder("big")
    for number in range(300):
        made.add_step(f"s{number}", "work").add_parallel(f"p{number}", [f"a{number}", [f"b{number}", f"c{number}"]])
    built = made.build(register=False)

    lines = built.diagram("ascii").splitlines()

    assert sorted(line.split("● ")[1].split()[0] for line in lines if "● " in line) == sorted(built.steps)
