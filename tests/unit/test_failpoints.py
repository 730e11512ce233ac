"""No write without a name: the sources are read for writes that "crash at every write" would not know of."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import multiagents
from multiagents import failpoints
from multiagents.exceptions import EventBusError, StateStoreError
from multiagents.failpoints import WriteSite, write
from multiagents.state_store.records import DueKind
from multiagents.testing.faults import Fault, FaultPlan, install

PACKAGE = Path(multiagents.__file__).parent
#: Where the engine talks to Redis, a broker or the bus.
SOURCES = [
    PACKAGE / "bootstrap.py",
    PACKAGE / "celery_signals.py",
    *(
        path
        for folder in ("state_store", "event_bus", "orchestrator", "worker_sdk")
        for path in (PACKAGE / folder).rglob("*.py")
    ),
]

#: What Redis is called where it is used.
CLIENTS = {"_redis", "_client", "_hasty_client", "client", "pipe"}
#: What is asked of Redis without changing anything, and what is no command at all.
READS = {
    "ask",  # what `ScriptServer.run` comes down to: it has the site
    "close",
    "connection_pool",
    "execute",
    "exists",
    "hget",
    "hscan",
    "hgetall",
    "hkeys",
    "hmget",
    "hvals",
    "info",
    "lrange",
    "pipeline",
    "pubsub",
    "time",
    "xinfo_consumers",
    "xinfo_groups",
    "xlen",
    "xpending",
    "xpending_range",
    "xrange",
    "xread",
    "xrevrange",
    "zcard",
    "zcount",
    "zmscore",
    "zrange",
    "zrevrangebyscore",
    "zscore",
}
#: What sends a message; the last is how Celery is asked to send one later.
SENDS = {"publish", "send_orchestration", "send_task", "apply_async", "signature"}
#: How the engine commits.
COMMITS = {"pipeline.commit", "pipeline.plan", "pipeline.record", "_decide"}
#: Functions that write without being a site of the engine, and why.
EXEMPT = {
    "event_bus/redis.py:remove_group": "an operator's",
    "state_store/redis/store.py:unbury": "an operator's",
    "event_bus/redis.py:_remove_consumers": "who asks again is there again",
    "event_bus/redis.py:discard": "an operator's",
    "state_store/payloads/offload/redis.py:put": "the way out of put_apart, whose callers have the site",
    "state_store/payloads/offload/redis.py:forget": "the way out of forget_apart, likewise",
    "orchestrator/dispatch/celery.py:_send": "the way out of all that is sent, whose callers have the sites",
    "orchestrator/schedules/celery.py:register": "tells beat what it is to send",
    "worker_sdk/tasks.py:_apply_async": "the user's own .delay(), outside of runs",
}


def _functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of a module that is not inside another one."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        for child in ast.iter_child_nodes(todo.pop()):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(PACKAGE).as_posix()}:{child.name}", child
            else:
                todo.append(child)


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _writes(function: ast.AST) -> set[str]:
    """The commands and messages that a function sends."""
    found = set()
    for node in ast.walk(function):
        if not isinstance(node, ast.Attribute):
            continue
        if (_name(node.value) in CLIENTS and node.attr not in READS) or (
            node.attr in SENDS and _name(node.value) in {"dispatcher", "app", "self", ""}
        ):
            found.add(node.attr)
    return found


def _sites(function: ast.AST) -> set[str]:
    return {
        node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute) and _name(node.value) == "WriteSite"
    }


FUNCTIONS = [each for path in SOURCES for each in _functions(path)]


def test_every_function_that_writes_names_the_site() -> None:
    nameless = {name for name, function in FUNCTIONS if _writes(function) and not _sites(function)}
    passed_on = {name for name in nameless if "self._site" in ast.unparse(dict(FUNCTIONS)[name])}

    assert nameless - passed_on - EXEMPT.keys() == set()
    assert EXEMPT.keys() <= nameless, "an exemption that is needed no more"


def test_every_script_that_writes_is_run_with_a_site() -> None:
    scripts = {path.stem: path.read_text() for path in (PACKAGE / "state_store" / "redis" / "scripts").glob("*.lua")}
    reading = {
        name
        for name, text in scripts.items()
        if not re.search(r"redis\.call\('(?!TIME|H?M?GET|HGETALL|ZCARD|ZCOUNT|ZREVRANGE)", text)
    }
    runs = [
        [ast.unparse(argument) for argument in node.args[:2]]
        for _, function in FUNCTIONS
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._server.run"
    ]

    assert runs
    assert [name for site, name in runs if site == "None" and name.strip("'") not in reading] == []


def test_every_commit_of_the_engine_says_where_it_is_made() -> None:
    commits = [
        {keyword.arg for keyword in node.keywords}
        for _, function in FUNCTIONS
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func).removeprefix("self.") in COMMITS
    ]

    assert len(commits) >= 4
    assert all("site" in keywords for keywords in commits)


def test_no_site_is_listed_that_nobody_writes_at() -> None:
    used = {site for path in SOURCES for site in _sites(ast.parse(path.read_text(encoding="utf-8")))}

    assert used == set(WriteSite.__members__)


def test_every_site_says_what_it_is() -> None:
    lines = Path(failpoints.__file__).read_text(encoding="utf-8").splitlines()
    members = [number for number, line in enumerate(lines) if re.match(r"    [A-Z_]+ = \"", line)]

    assert len(members) == len(WriteSite)
    assert [lines[number] for number in members if not lines[number - 1].startswith("    #: ")] == []


# --- the injector ----------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultPlan:
    monkeypatch.setattr(failpoints, "injector", None)
    plan = FaultPlan(tmp_path / "plan")
    assert install(plan.env)
    return plan


def test_without_a_plan_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "injector", None)

    assert not install({})
    assert failpoints.injector is None
    assert write(WriteSite.CLAIM, lambda: "claimed") == "claimed"


def test_a_write_that_is_reported_as_failed_was_made_and_the_next_one_passes(plan: FaultPlan) -> None:
    made: list[int] = []
    plan.arm(WriteSite.SETTLE, Fault.FAIL_AFTER)

    with pytest.raises(StateStoreError, match=r"store\.settle"):
        write(WriteSite.SETTLE, lambda: made.append(1))
    write(WriteSite.SETTLE, lambda: made.append(2))

    assert made == [1, 2]
    assert plan.fired


@pytest.mark.parametrize(("site", "error"), [(WriteSite.BUS_ACK, EventBusError), (WriteSite.PUBLISH, ConnectionError)])
def test_a_lost_answer_reads_as_its_caller_knows_it(plan: FaultPlan, site: WriteSite, error: type[Exception]) -> None:
    plan.arm(site, "fail_after")

    with pytest.raises(error):
        write(site, lambda: None)


def test_the_fault_waits_for_the_nth_write_at_its_site(plan: FaultPlan) -> None:
    made: list[str] = []
    plan.arm(WriteSite.CLAIM, Fault.TWICE, nth=2)

    for step in ("first", "second", "third"):
        write(WriteSite.CLAIM_UNDO, lambda step=step: made.append(f"undo {step}"))
        write(WriteSite.CLAIM, lambda step=step: made.append(step))

    assert made == ["undo first", "first", "undo second", "second", "second", "undo third", "third"]
    assert plan.seen() == {WriteSite.CLAIM, WriteSite.CLAIM_UNDO}


def test_a_look_for_work_that_found_none_does_not_count(plan: FaultPlan) -> None:
    answers = iter([[1, -1], [2, 0, DueKind.ATTEMPT.entry("run", "step", "d1")], [3, -1]])
    plan.arm(WriteSite.TAKE_DUE, Fault.FAIL_AFTER)

    assert write(WriteSite.TAKE_DUE, lambda: next(answers)) == [1, -1]
    assert not plan.fired
    with pytest.raises(StateStoreError):
        write(WriteSite.TAKE_DUE, lambda: next(answers))


def test_a_plan_can_be_armed_again(plan: FaultPlan) -> None:
    for _ in range(2):
        plan.arm(WriteSite.CLAIM, Fault.FAIL_AFTER)
        with pytest.raises(StateStoreError):
            write(WriteSite.CLAIM, lambda: None)
    plan.disarm()

    assert write(WriteSite.CLAIM, lambda: 1) == 1
    with pytest.raises(TimeoutError, match="no fault"):
        plan.wait_until_fired(0.01)
