"""The catalogue of keys and scripts, `redis/scripts/README.md`, is complete and names nothing that is not there."""

from __future__ import annotations

import inspect
import re
from importlib.resources import files

from multiagents.keys import Keys, PartitionKeys, RunKeys
from multiagents.state_store.records import Delivery, DueKind, InFlight
from multiagents.state_store.redis import scripts
from multiagents.workflow.state import RunState
from tests.support.catalogue import DUE, FIELDS, OF_A_PARTITION, OF_A_RUN, PAGE, SCRIPTS, names, rows

LUA = {
    entry.name.removesuffix(".lua"): entry.read_text(encoding="utf-8")
    for entry in files(scripts).iterdir()
    if entry.name.endswith(".lua")
}

#: What the methods of keys.py are given to make each pattern of the page.
GIVEN: dict[str, tuple[tuple[str, ...], ...]] = {
    "sent": (("<list>",),),
    "index": (("<status>",), ("<status>", "<workflow>")),
    "by_attribute": (("<name>", "s", "<text>"), ("<name>", "n"), ("<name>", "t")),
    **dict.fromkeys(("lock", "lock_line", "lock_asking", "slots", "next_start", "limited"), (("<key>",),)),
    **dict.fromkeys(("programs", "examples", "example"), (("<worker>",),)),
    "budget": (("<key>", "<name>"),),
}


def first_names(heading: str) -> list[str]:
    return [name for row in rows(heading) for name in names(row[0])]


def test_every_key_is_in_the_catalogue_and_no_other() -> None:
    run = Keys().of_run("<run>")
    plain = {getattr(run, slot) for slot in (*PartitionKeys.__slots__, *RunKeys.__slots__) if slot != "tag"}
    methods = {name for name, _ in inspect.getmembers(RunKeys, inspect.isfunction) if not name.startswith("_")}
    made = {getattr(run, name)(*args) for name, calls in GIVEN.items() for args in calls}

    listed = first_names(OF_A_RUN) + first_names(OF_A_PARTITION)

    assert methods == set(GIVEN)
    assert sorted(listed) == sorted(key.replace(run.tag, "{tag}") for key in plain | made)


def test_every_script_is_in_the_catalogue_and_no_other() -> None:
    parts = {name for name, text in LUA.items() if "not a script of its own" in text.partition("\n")[0]}
    listed = {name: row for row in rows(SCRIPTS) for name in names(row[0])}

    assert set(listed) == set(LUA)
    assert {name for name, row in listed.items() if len(row) == 3} == parts


def test_the_catalogue_says_which_keys_a_script_takes_as_its_head_does() -> None:
    listed = {names(row[0])[0]: row[2] for row in rows(SCRIPTS) if len(row) == 5}
    heads = {}
    for name in listed:
        [head] = re.findall(r"^-- KEYS: (.*?)\n-- ARGV", LUA[name], re.MULTILINE | re.DOTALL)
        heads[name] = re.sub(r"\n--\s+", " ", head)

    assert listed == heads


def test_the_catalogue_says_which_scripts_include_a_part() -> None:
    listed = {names(row[0])[0]: set(names(row[1])) for row in rows(SCRIPTS) if len(row) == 3}

    assert listed == {part: {name for name, text in LUA.items() if f"--#include {part}\n" in text} for part in listed}


def test_scripts_that_the_catalogue_names_as_readers_and_writers_are_scripts() -> None:
    named = {
        name
        for heading in (OF_A_RUN, OF_A_PARTITION)
        for row in rows(heading)
        for cell in row[3:5]
        for name in names(cell)
    }

    assert named <= set(LUA)


def test_the_formats_of_the_catalogue_are_those_of_the_records() -> None:
    about = ("<run>", "<step>", "<attempt key>")
    sizes = {DueKind.ATTEMPT: 3, DueKind.UNCLAIMED: 3}
    entries = [kind.entry(*about[: sizes.get(kind, 1)]) for kind in DueKind if kind is not DueKind.LOCK]
    unclaimed, claimed = (name for name in first_names(FIELDS) if name.startswith("<"))

    assert sorted(first_names(DUE)) == sorted([*entries, DueKind.LOCK.entry("<key>")])
    assert unclaimed.count("|") == InFlight("s", "d1", Delivery.PUSH, "", 1).encode().count("|")
    assert claimed.count("|") == InFlight("s", "d1", Delivery.CLAIMED, "", 1).encode().count("|")
    assert all(f"`{delivery.value}` {delivery.name.lower()}" in PAGE.replace("\n", " ") for delivery in Delivery)


def test_every_field_of_a_header_is_in_the_catalogue() -> None:
    source = inspect.getsource(RunState.encode_header)

    assert set(re.findall(r'^ +"(\w+)": ', source, re.MULTILINE)) <= set(first_names(FIELDS))
