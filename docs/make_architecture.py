"""Fill in docs/architecture.md: the picture is drawn from the imports, the table has the first line of every door.

Run it as ``.venv/bin/python docs/make_architecture.py``, from anywhere. What stands between ``<!-- name -->`` and
``<!-- end of name -->`` is made here; the rest of the page is written by hand.

A *house* is a folder that has rooms in it, a *room* any other folder, or a file that stands beside them. The floors are
those that import-linter checks.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "multiagents"
PAGE = ROOT / "docs" / "architecture.md"
#: So many floors from below are what everything stands on: no arrow leads there.
GROUND = 2

Arrows = set[tuple[str, str]]


# --- what there is ---------------------------------------------------------------------------------------------------


def floors() -> list[list[str]]:
    """The houses and the rooms beside them, floor by floor from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [each["layers"] for each in contracts if each.get("containers") == [PACKAGE.name]]
    return [[name for name in re.findall(r"\w+", layer) if _source(name)] for layer in layers]


def rooms(house: str) -> list[str]:
    """The rooms of a house: folders first. None, if it is a room itself."""
    inside = sorted((PACKAGE / house).glob("*"), key=lambda path: (path.is_file(), path.name))
    if not any((path / "__init__.py").exists() for path in inside):
        return []
    return [f"{house}.{path.stem}" for path in inside if path.stem[0] != "_" and _source(f"{house}.{path.stem}")]


def room_of(module: str) -> str:
    """The room that a module stands in; of a house's own door, the house."""
    names = module.split(".")[1:]
    return ".".join(names[: 2 if rooms(names[0]) else 1]) if names else ""


def imports() -> Arrows:
    """From room to room, but for what leads to the ground, and what a house's door takes from inside."""
    graph = grimp.build_graph(PACKAGE.name, exclude_type_checking_imports=True, cache_dir=None)
    ground = {"", *(name for floor in floors()[-GROUND:] for name in floor)}
    found = {
        (room_of(module), room_of(imported))
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
    }
    return {(a, b) for a, b in found if a != b and not {a, b} & ground and not rooms(a)}


# --- the picture -----------------------------------------------------------------------------------------------------


def picture() -> str:
    """The rooms as boxes on their floors, with an arrow for every import that no other arrows imply."""
    lines = ["flowchart TB"]
    for floor in floors()[:-GROUND]:
        for name in floor:
            if inside := rooms(name):
                lines += [f"    subgraph {name}", *(f"        {_box(room)}" for room in inside), "    end"]
            else:
                lines.append(f"    {_box(name)}")
    lines += [f"    {_id(a)} --> {_id(b)}" for a, b in sorted(_needed(imports()))]
    return "\n".join(["```mermaid", *lines, "```"])


def _needed(arrows: Arrows) -> Arrows:
    """Those between whose ends no other way leads. In a circle all are needed."""
    doors = {(house, room) for house in {b for _, b in arrows} for room in rooms(house)}
    ways = {room: _reached(room, arrows | doors) for arrow in arrows | doors for room in arrow}
    return {
        (a, b)
        for a, b in arrows
        if not any(b in ways[c] and a not in ways[c] for start, c in arrows if start == a and c != b)
    }


def _reached(room: str, arrows: Arrows) -> set[str]:
    found: set[str] = set()
    to_do = [room]
    while to_do:
        here = to_do.pop()
        new = {b for a, b in arrows if a == here} - found
        found |= new
        to_do += new
    return found


def _box(room: str) -> str:
    name = room.rpartition(".")[2]
    return f"{_id(room)}[{name}]" if (PACKAGE / room.replace(".", "/")).is_dir() else f"{_id(room)}({name})"


def _id(room: str) -> str:
    return room.replace(".", "_")


# --- the table -------------------------------------------------------------------------------------------------------


def table() -> str:
    """Every house and room with the first line of its docstring, floor by floor from the top."""
    lines = ["| room | what is in it |", "|---|---|"]
    for floor in floors():
        for name in floor:
            inside = rooms(name)
            lines.append(f"| **{name}** | {_first_line(name)} |")
            lines += [f"| {room.replace('.', '/')} | {_first_line(room)} |" for room in inside]
    return "\n".join(lines)


def _first_line(room: str) -> str:
    source = _source(room)
    assert source is not None
    return (ast.get_docstring(ast.parse(source.read_text())) or "").partition("\n")[0].replace("``", "`")


def _source(room: str) -> Path | None:
    """The file whose docstring is the room's; None, if there is no such room."""
    place = PACKAGE / room.replace(".", "/")
    return next((path for path in (place / "__init__.py", place.with_suffix(".py")) if path.exists()), None)


# --- the page --------------------------------------------------------------------------------------------------------


def page() -> str:
    """The page as it should be."""
    text = PAGE.read_text()
    for name, made in {"picture": picture(), "rooms": table()}.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        assert text.count(begin) == text.count(end) == 1, f"expected {begin}...{end} in {PAGE}, once"
        before, rest = text.split(begin)
        text = before + begin + made + "\n" + end + rest.split(end)[1]
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
