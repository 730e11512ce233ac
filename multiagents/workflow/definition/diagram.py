"""Draw a workflow: as mermaid for documents, as lines for a terminal.

The mermaid picture shows every edge. The terminal picture shows the order that follows from them: the graph is cut at
its trunk steps, what lies between two cuts falls apart into branches that share no edge, and each branch is drawn the
same way. Only a branch that cannot be cut is listed step by step, with what each waits for. Equal definitions
have equal pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from multiagents.workflow.definition.graph import Graph
from multiagents.workflow.definition.step import BlockDefinition, StepDefinition, StepKind


def mermaid_diagram(title: str, steps: Mapping[str, StepDefinition], blocks: Mapping[str, BlockDefinition]) -> str:
    """Draw a mermaid flowchart: blocks as subgraphs, compensations on dotted edges, ``when`` as the label ``if``."""
    # Ids of our own: "end" and the like are words of mermaid's language.
    ids = {name: f"s{number}" for number, name in enumerate(steps)}
    lines = ["flowchart TD", f'    start(["{_escaped(title)}"])']
    inside: dict[str, list[str]] = {name: [] for name in blocks}
    outside: list[str] = []
    for name, step in steps.items():
        place = inside.get(step.block or "", outside)
        worker = "" if step.worker == name else f"<br/>{_escaped(step.worker or _without_worker(step))}"
        place.append(f'{ids[name]}["{_escaped(name)}{worker}"]')
        if (undo := _undo_of(step)) is not None:
            place.append(f'{ids[name]}_undo(["⤺ {_escaped(undo)}"])')
    lines += [f"    {line}" for line in outside]
    for number, (name, nodes) in enumerate(inside.items()):
        cancels = " · first failure cancels" if blocks[name].on_failure == "cancel" else ""
        lines.append(f'    subgraph b{number}["{_escaped(name)}{cancels}"]')
        lines += [f"        {node}" for node in nodes]
        lines.append("    end")
    for name, step in steps.items():
        condition = "|if|" if step.when is not None else ""
        for before in step.after:
            chosen = [label for label, names in steps[before].branches.items() if name in names]
            lines.append(f"    {ids[before]} -->{f'|{_escaped(chosen[0])}|' if chosen else condition} {ids[name]}")
        if not step.after:
            lines.append(f"    start -->{condition} {ids[name]}")
        if _undo_of(step) is not None:
            lines.append(f"    {ids[name]} -. undo .-> {ids[name]}_undo")
    return "\n".join(lines)


def ascii_diagram(
    title: str, steps: Mapping[str, StepDefinition], blocks: Mapping[str, BlockDefinition], graph: Graph
) -> str:
    """Draw the workflow top down for a terminal: a pipe, branches indented, ``⤺`` for what undoes a step."""
    lines = [_Line("│")]
    lines += _Drawing(steps, blocks).sequence(graph)
    # Labels of forks have no worker beside them and may run over.
    left = max((len(line.left) for line in lines if line.worker or line.rest), default=0)
    middle = max(len(line.worker) for line in lines)
    drawn = [f"{line.left:<{left}}   {line.worker:<{middle}}   {line.rest}".rstrip() for line in lines]
    return "\n".join([title, *drawn])


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the picture in its three columns."""

    left: str
    worker: str = ""
    rest: str = ""

    def indented(self, by: str) -> _Line:
        return _Line(by + self.left, self.worker, self.rest)


class _Drawing:
    """Turn the pieces of one workflow into lines."""

    def __init__(self, steps: Mapping[str, StepDefinition], blocks: Mapping[str, BlockDefinition]) -> None:
        self._steps = steps
        self._labels = {
            frozenset(block.steps): name + (" · first failure cancels" if block.on_failure == "cancel" else "")
            for name, block in blocks.items()
        }
        for step in steps.values():
            if step.branches:
                self._labels[frozenset(name for names in step.branches.values() for name in names)] = "one of these"

    def sequence(self, graph: Graph) -> list[_Line]:
        """Draw a graph from top to bottom, cut at its trunk steps."""
        lines: list[_Line] = []
        pieces = list(_pieces(graph))
        for number, piece in enumerate(pieces):
            if number:
                lines.append(_Line("│"))
            last = number == len(pieces) - 1
            lines += [self._step(piece, "● ")] if isinstance(piece, str) else self._fork(piece, last=last)
        return lines

    def _fork(self, branches: list[Graph], *, last: bool) -> list[_Line]:
        if len(branches) == 1:
            # One branch without a cut in it: no smaller picture tells the truth.
            graph = branches[0]
            drawn = [[self._step(step, "● ", graph.after[step])] for step in graph.order]
            label = "interwoven"
        else:
            drawn = [self.sequence(branch) for branch in branches]
            label = self._labels.get(frozenset(step for branch in branches for step in branch.after), "side by side")
        lines = [_Line(f"{'╰' if last else '├'}─┬─ {label}")]
        pipe = "  " if last else "│ "
        roomy = any(len(branch) > 1 for branch in drawn)
        for number, branch in enumerate(drawn):
            final = number == len(drawn) - 1
            if number and roomy:
                lines.append(_Line(f"{pipe}│"))
            first = branch[0]
            if first.left[0] in "├╰":
                # A fork that opens a branch hangs on the branch's own line; its pipe goes on only if something follows.
                first = _Line(("┬" if first.left[0] == "├" else "─") + first.left[1:])
            lines.append(first.indented(f"{pipe}{'╰' if final else '├'}─"))
            lines += [line.indented(pipe + ("  " if final else "│ ")) for line in branch[1:]]
        return lines

    def _step(self, name: str, attempt_key: str, waits_for: tuple[str, ...] = ()) -> _Line:
        step = self._steps[name]
        notes = [f"⤺ {undo}"] if (undo := _undo_of(step)) is not None else []
        notes += ["(pivot)"] if step.pivot else []
        notes += ["(if)"] if step.when is not None else []
        notes += [f"({what})"] if (what := _without_worker(step)) else []
        notes += [f"after {', '.join(waits_for)}"] if waits_for else []
        return _Line(attempt_key + name, step.worker, "  ".join(notes))


def _undo_of(step: StepDefinition) -> str | None:
    """What undoes a step, or each item of a map."""
    if step.compensation is None and step.item is not None and step.item.compensation is not None:
        return f"{step.item.compensation} for each"
    return step.compensation


def _without_worker(step: StepDefinition) -> str:
    """What happens in a step that no worker does, in words."""
    match step.kind:
        case StepKind.WAIT | StepKind.APPROVAL:
            return f"{step.kind.value} for {step.signal}" if step.signal != step.name else step.kind.value
        case StepKind.SLEEP:
            return "sleep" if callable(step.seconds) else f"sleep {step.seconds:g} s"
        case StepKind.LOCK:
            return "lock" if callable(step.key) else f"lock {step.key}"
        case StepKind.CHOICE:
            return f"one of {', '.join(step.branches)}"
        case StepKind.CHILD:
            return f"run of {step.workflow.name}{', left alone' if step.detached else ''}"
        case StepKind.MAP if step.item is not None:
            what = step.item.worker or _without_worker(step.item)
            over = f"each of {step.over}" if isinstance(step.over, str) else "each item"
            most = "" if step.max_concurrency is None else f", {step.max_concurrency} at once"
            return f"{what} for {over}{most}"
    return "external" if step.external else ""


def _pieces(graph: Graph) -> Iterator[str | list[Graph]]:
    """A graph from top to bottom: its trunk steps, and between them the branches that share no edge."""
    trunks = set(graph.trunks)
    between: list[str] = []
    for step in graph.order:
        if step not in trunks:
            between.append(step)
            continue
        if between:
            yield _branches(graph, between)
            between = []
        yield step
    if between:
        yield _branches(graph, between)


def _branches(graph: Graph, steps: list[str]) -> list[Graph]:
    """Part steps into groups that no edge joins, each as a graph, in definition order."""
    inside = set(steps)
    seen: set[str] = set()
    groups = []
    for step in graph.in_definition_order(inside):
        if step in seen:
            continue
        group = {step}
        ahead = [step]
        while ahead:
            current = ahead.pop()
            for near in (*graph.after[current], *graph.successors[current]):
                if near in inside and near not in group:
                    group.add(near)
                    ahead.append(near)
        seen |= group
        groups.append(graph.induced(group))
    return groups


def _escaped(text: str) -> str:
    for character, entity in (("#", "#35;"), ("&", "#amp;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
        text = text.replace(character, entity)
    return text
