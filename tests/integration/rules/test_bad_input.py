"""Bad input: each ends in a clear error or in a visible end state, never in a run that hangs (rule S27)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multiagents import ErrorEvent, ErrorInfo, RedisEventBus, ResultEvent, RetryPolicy, WorkflowBuilder
from multiagents.exceptions import ConfigurationError, StateStoreError, WorkflowError, WorkflowNotFoundError
from multiagents.testing import EmbeddedServer, server_kind, wait_until
from tests.support.apps import scripted
from tests.support.letters import about
from tests.support.scenario import Deployment, Scenario, start_worker

PAIR = WorkflowBuilder("pair").add_step("a", "play", compensation="undo").add_step("b", "play").build(register=False)

# --- what workers return and raise -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("key", "data[1] has a key that is int"),
        ("not_json", "object"),
        ("nan", "share"),
        ("11 MB", "multiagents_max_payload_bytes"),
    ],
)
def test_S27_a_result_that_cannot_be_recorded_is_an_unknown_outcome_and_is_undone(
    rules: Scenario, action: str, told: str
):
    seen = rules.play(PAIR, a=[action])

    assert (seen.status, seen.steps["a"].status, seen.steps["a"].attempts) == ("compensated", "compensated", 1)
    assert 'worker "play" ran, and returned' in seen.error.message
    assert told in seen.error.message
    assert len(seen.error.message) < 5000


def test_a_worker_that_returns_none_has_succeeded(rules: Scenario):
    seen = rules.play(PAIR, a=["none"])

    assert (seen.status, seen.steps["a"].result) == ("completed", None)


@pytest.mark.parametrize("action", ["stubborn", "exit"])
def test_S27_an_exception_that_cannot_be_pickled_or_would_end_the_process_is_a_failed_attempt(
    rules: Scenario, action: str
):
    once = WorkflowBuilder("once").add_step("a", "play", retry=RetryPolicy(max_attempts=1)).build(register=False)

    seen = rules.play(once, a=[action])

    told = {
        "stubborn": ("tests.support.apps.scripted.Stubborn", "it cannot be pickled"),
        "exit": ("multiagents.exceptions.WorkerError", "sys.exit(3)"),
    }
    assert (seen.status, seen.error.type) == ("failed", told[action][0])
    assert told[action][1] in seen.error.message


# --- what nobody knows -----------------------------------------------------------------------------------------------


def test_S27_a_worker_that_nobody_has_registered_fails_after_a_while_by_name(rules: Scenario):
    workflow = (
        WorkflowBuilder("typo").add_step("a", "play", compensation="undo").add_step("b", "plya").build(register=False)
    )
    code_nowhere = (
        WorkflowBuilder("code_nowhere")
        .add_step("a", "play", compensation="undo")
        .add_step("b", "play", when=lambda ctx: True)
        .build(register=False)
    )
    # Both wait for as long as a step may wait for a worker (4 s here), so they do it together.
    unknown, elsewhere = rules.start(workflow), rules.start(code_nowhere)

    seen, seen_elsewhere = rules.end(unknown), rules.end(elsewhere)

    assert (seen.status, seen.steps["b"].status) == ("compensated", "failed")
    assert seen.error.type == "multiagents.exceptions.WorkerNotFoundError"
    assert 'has registered worker "plya" within 4 s' in seen.error.message
    # The caller had the code, the workers have not.
    assert (seen_elsewhere.status, seen_elsewhere.steps["b"].status) == ("compensated", "failed")
    assert "when= of step 'b' is code of workflow 'code_nowhere' version '1', and no worker process that has it" in (
        seen_elsewhere.error.message
    )


LATE_APP = """
from tests.support.apps.scripted import app, worker, WorkflowBuilder

@worker("latecomer")
def latecomer(context):
    return {"late": True}

WorkflowBuilder("late_code").add_step("a", "play").add_step("b", "play", when=lambda ctx: ctx["wanted"]).build()
"""


@pytest.fixture
def patient(new_redis_url: Callable[[], str], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment of the test's own, where steps may wait long for a worker."""
    broker = request.getfixturevalue("rabbitmq").new_vhost() if server_kind() == "rabbitmq" else ""
    with Deployment(new_redis_url(), tmp_path, broker=broker, schedule_to_start=60.0) as made:
        yield made


def test_what_a_worker_lacks_is_left_to_one_that_comes_later_and_nobody_spins_meanwhile(
    patient: Deployment, tmp_path: Path
):
    scenario = Scenario(patient, "late")
    unknown = WorkflowBuilder("late_worker").add_step("a", "latecomer").build(register=False)
    code = (
        WorkflowBuilder("late_code")
        .add_step("a", "play")
        .add_step("b", "play", when=lambda ctx: ctx["wanted"])
        .build(register=False)
    )
    first = patient.workers[0]

    # Given: a worker that knows neither the worker of one run nor the code of the other has met both.
    runs = [scenario.start(unknown), scenario.start(code, {"wanted": False}), scenario.start(code, {"wanted": True})]
    first.wait_for_log('which has no worker "latecomer"')
    wait_until(lambda: first.log.count("waits for a process that has the code of its step b") >= 2, 20, "both runs")
    assert [run.status for run in runs] == ["running"] * 3
    assert scenario.store.visibility.unattended() == []

    # When: a worker comes that knows them.
    (tmp_path / "app_late.py").write_text(LATE_APP)
    patient.start_worker(app="app_late", cwd=tmp_path).ready()

    # Then: all three complete.
    seen = [scenario.end(run) for run in runs]
    assert [each.status for each in seen] == ["completed"] * 3
    assert [each.steps["b"].status for each in seen[1:]] == ["skipped", "succeeded"]
    assert seen[0].context["late"] is True
    scenario.close()

    # And: what was in vain was tried a few times a second at most.
    tries = first.log.count("waits for a process that has the code")
    assert tries < 60, tries
    assert first.log.count('which has no worker "latecomer"') == 1


def test_a_definition_that_the_worker_has_never_imported_runs_from_its_snapshot(rules: Scenario):
    unheard_of = WorkflowBuilder("unheard_of").add_step("a", "play").add_step("b", "echo").build(register=False)

    assert rules.play(unheard_of).status == "completed"


def test_a_workflow_that_is_not_registered_here_cannot_be_started_by_its_name(rules: Scenario):
    with pytest.raises(WorkflowNotFoundError, match=r'"condtional".*did you mean "conditional"'):
        rules.orchestrator.start("condtional", {})


# --- what callers give -----------------------------------------------------------------------------------------------


def test_a_transaction_id_may_have_odd_characters_that_need_no_quoting(rules: Scenario):
    for identity in ("A.b_c:d@e-f", "x" * 128, "0", "do", "_@:."):
        assert rules.end(rules.start(PAIR, b=["terminal"], tid=identity)).status == "compensated"
        assert rules.orchestrator.get(identity).status == "compensated"


@pytest.mark.parametrize("identity", ["", "a b", "a/b", "a|b", "x" * 129, "ä", "a\n", "{a}", "*", 7])
def test_any_other_transaction_id_is_refused_with_what_is_allowed(rules: Scenario, identity: Any):
    with pytest.raises(WorkflowError, match="expected 1 to 128 characters of A-Z a-z 0-9"):
        rules.orchestrator.start(PAIR, {}, transaction_id=identity)


@pytest.mark.parametrize(
    ("given", "told"),
    [([1], "expected a dict"), ({"when": object()}, "cannot be written as JSON"), ({"n": float("nan")}, "JSON")],
)
def test_an_input_that_is_no_dict_of_json_is_refused(rules: Scenario, given: Any, told: str):
    with pytest.raises(WorkflowError, match=told):
        rules.orchestrator.start(PAIR, given)


def test_a_run_that_does_not_exist_is_named(rules: Scenario):
    with pytest.raises(WorkflowNotFoundError, match="there is no run 'nowhere'"):
        rules.orchestrator.get("nowhere")


# --- what foreign processes publish ----------------------------------------------------------------------------------


def test_S27_foreign_results_that_fit_nothing_are_kept_in_the_dead_letters(rules: Scenario):
    """And they hold up nobody: a good one that comes after them advances its run at once."""
    external = WorkflowBuilder("external").add_step("ship", external=True, timeout=30).build(register=False)
    run = rules.start(external)
    me = run.transaction_id

    def result(correlation_id: str, transaction_id: str = me, **more: Any) -> ResultEvent:
        return ResultEvent(transaction_id=transaction_id, correlation_id=correlation_id, payload={"n": 1}, **more)

    bus = RedisEventBus(rules.deployment.url)
    known_letters = len(bus.dead_letters())
    stream = rules.orchestrator.keys.of_partition(0).bus
    for undecodable in ({"event": "not json"}, {"event": '{"type": "telegram"}'}, {"other": "field"}):
        rules.redis.xadd(stream, undecodable)
    rules.publish(
        result("no-such-run/ship/do/1", "no-such-run"),
        result(f"{me}/ship/do/7"),
        result(f"{me}/no_such_step/do/1"),
        result("gibberish"),
        result("another-run/ship/do/1"),
        result("", id=f"{me}-anonymous"),
        ErrorEvent(
            transaction_id="no-such-run",
            correlation_id="no-such-run/ship/do/2",
            error=ErrorInfo(type="carrier.NoVan", message="no van"),
        ),
        result(f"{me}/ship/do/1"),
    )

    assert rules.end(run, 10).status == "completed"
    letters = {about(key): letter for key, letter in rules.orchestrator.dead_letters().items()}
    expected = {
        "no-such-run/ship/do/1": "no run",
        f"{me}/ship/do/7": "has not made this attempt",
        f"{me}/no_such_step/do/1": "no_such_step",
        "gibberish": "was not understood",
        "another-run/ship/do/1": "of another run",
        f"{me}-anonymous": "was not understood",
        "no-such-run/ship/do/2": "no run",
    }
    assert dict.fromkeys(expected, True) == {key: why in letters[key]["why"] for key, why in expected.items()}
    assert letters[f"{me}/ship/do/7"]["event"]["payload"] == {"n": 1}
    assert len(bus.dead_letters()) == known_letters + 3
    bus.close()


# --- settings and servers --------------------------------------------------------------------------------------------


def test_a_wrong_settings_name_is_an_error_that_suggests_the_right_one():
    app = scripted.make_app("redis://127.0.0.1:1/0")
    app.conf.multiagents_leese = 3

    with pytest.raises(ConfigurationError, match=r'"multiagents_leese" is not known; did you mean "multiagents_lease"'):
        app.multiagents.start(PAIR)


def test_a_worker_with_a_wrong_setting_ends_at_once_and_says_why(redis_url: str, tmp_path: Path):
    (tmp_path / "app_wrong.py").write_text(
        "from tests.support.apps.scripted import app\napp.conf.multiagents_orchestration = 'inlined'\n"
    )

    worker = start_worker(redis_url, tmp_path / "worker.log", app="app_wrong", cwd=tmp_path, concurrency=1)
    try:
        wait_until(lambda: not worker.is_running, 20, "the end of the worker")
    finally:
        worker.kill()

    assert 'multiagents_orchestration must be "inline" or "queued", got \'inlined\'' in worker.log
    assert worker.returncode not in (0, None)


def test_start_says_that_redis_is_down_and_how_to_go_on():
    app = scripted.make_app("redis://:secret@127.0.0.1:1/0")

    with pytest.raises(
        StateStoreError, match=r"the state store at redis://127.0.0.1:1/0 .*check that the server runs"
    ) as told:
        app.multiagents.start(PAIR)
    assert "secret" not in str(told.value)


def test_a_worker_that_starts_before_redis_waits_for_it_and_warns_of_its_settings(
    crash_server: EmbeddedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    if server_kind() == "rabbitmq":
        pytest.skip("it is about a worker whose broker is the Redis that is down, and here the broker is RabbitMQ")
    # Given: Redis is down when the worker starts, and will drop keys under memory pressure when it is back.
    url = crash_server.url
    crash_server.kill()
    worker = start_worker(url, tmp_path / "worker.log", concurrency=1)
    try:
        worker.wait_for_log("(?i)cannot connect to")

        # When: it comes up.
        crash_server.restart()
        redis = scripted.client(url)
        redis.config_set("maxmemory-policy", "allkeys-lru")
        worker.ready()
        orchestrator = scripted.make_app(url, **scripted.SETTINGS).multiagents
        with caplog.at_level(logging.WARNING, "multiagents"):
            run = orchestrator.start(PAIR, {})

        # Then: the worker does its work, and both have warned.
        assert run.result(timeout=20) == {}
        worker.wait_for_log("maxmemory-policy is 'allkeys-lru'")
        assert "maxmemory-policy is 'allkeys-lru'" in caplog.text
    finally:
        worker.kill()


def test_without_any_redis_the_error_says_what_to_set():
    app = scripted.make_app("amqp://guest@127.0.0.1:1//")

    with pytest.raises(ConfigurationError, match="multiagents_redis_url"):
        app.multiagents.start(PAIR)
