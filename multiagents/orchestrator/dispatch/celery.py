"""Attempts as Celery messages.

A message pushed by a commit is written by Celery's and kombu's own API, once for each kind of message; each further one
fills in the ids. What a user can set for a task with Celery holds here: routes, priority, queues, ``argsrepr``, and
``before_task_publish`` (whose receivers may add headers, so with them every message is rendered anew).
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from math import ceil
from typing import Any, TypeVar
from uuid import uuid4

from celery import Celery, signals
from celery.canvas import Signature
from celery.result import assert_will_not_block  # type: ignore[attr-defined]  # its stubs lack it
from kombu import Connection

from multiagents.address import Address
from multiagents.exceptions import MultiAgentsError
from multiagents.failpoints import WriteSite, write
from multiagents.keys import Keys
from multiagents.names import CALL_TASK, CALLED, HEADER, ORCHESTRATOR_TASK, QUARANTINE_SUFFIX, Correlation, Direction
from multiagents.orchestrator.addresses import broker_address
from multiagents.orchestrator.dispatch import kombu as wire
from multiagents.orchestrator.dispatch.active_queues import ConsumedQueues
from multiagents.orchestrator.dispatch.base import Dispatcher, outbox_grace_ms, task_of
from multiagents.orchestrator.dispatch.message_template import MessageTemplate, Tags, shown
from multiagents.orchestrator.dispatch.starts import Starts
from multiagents.orchestrator.dispatch.worker_directory import Directory, WorkerFacts
from multiagents.retry import RetryPolicy
from multiagents.settings import Settings
from multiagents.state_store.records import Announced, Delivery, Dispatch, attempt_key_of
from multiagents.workflow.definition import Definition, StepDefinition

logger = logging.getLogger(__name__)

#: Celery's hard limit comes this much after the step's own, which is enforced in the process that runs it.
HARD_LIMIT_GRACE = 10
#: How many queues, routes and templates of messages a process keeps at hand.
MAX_CACHED = 10_000

_K = TypeVar("_K")
_V = TypeVar("_V")

#: Stands for the attempt in a template: the one value that is no text.
_ATTEMPT = 987_654_321
_BLANKS: dict[str, Any] = {
    "transaction_id": "@root@",
    "step": "@step@",
    "direction": "@direction@",
    "attempt": _ATTEMPT,
    "definition": "@definition@",
    "nonce": "@nonce@",
}


class CeleryDispatcher(Dispatcher):
    """Render, push and publish messages for the workers of a Celery app.

    Args:
        app: the user's app.
        settings: the deployment's settings.
        store: where runs live; when the broker is that very database, commits push messages themselves.
        keys: the key names.
        announced: reads what worker processes have announced of their workers.
    """

    def __init__(
        self,
        app: Celery,
        settings: Settings,
        store: Address,
        keys: Keys,
        announced: Callable[[], Announced] = Announced,
    ) -> None:
        self.app = app
        self.settings = settings
        self._store = store
        self._keys = keys
        self._templates: dict[tuple[Any, ...], MessageTemplate] = {}
        self._lists: dict[tuple[str, int | None], str] = {}
        self._routes: dict[tuple[str, str | None, int | None, str | None], tuple[str, int | None]] = {}
        self._directory = Directory(app, announced)
        self._consumed = ConsumedQueues(app, settings.lease)
        self._producers = wire.Producers(self._connect)
        self._starts = Starts()
        self._tags = Tags()

    @cached_property
    def atomic(self) -> bool:  # type: ignore[override]  # it is looked up once
        broker = broker_address(self.app.conf)
        return broker is not None and self._store.is_same_database(broker)

    @cached_property
    def _start_priority(self) -> int | None:
        return wire.start_priority(self.settings.start_priority, self.app.conf.broker_write_url)

    @cached_property
    def start_suffix(self) -> str:
        options = {**(self.app.conf.broker_transport_options or {}), "global_keyprefix": ""}
        return wire.list_of("", self._start_priority, options) if self.atomic else ""

    def raise_starts(self, has_waited: Callable[[Correlation], bool]) -> None:
        if self.atomic or self._start_priority is None:
            return

        def waited(headers: Mapping[str, Any]) -> bool:
            # Somebody else's is to wait, for all that we know.
            return HEADER in headers and has_waited(Correlation.parse(headers["id"]))

        try:
            with self._producers.acquire() as producer:
                connection: Any = producer.connection
                if connection.transport.driver_type != "redis":
                    return
                queues = self.app.amqp.queues.consume_from
                lists = [(self._list_of(queue, self._start_priority), self._list_of(queue, None)) for queue in queues]
                with connection.default_channel.conn_or_acquire() as client:
                    self._starts.rise(client, lists, waited)
        except MultiAgentsError:
            raise
        except Exception:
            logger.debug("starts that have waited could not be looked at", exc_info=True)

    # --- where to ----------------------------------------------------------------------------------------------------

    @cached_property
    def home(self) -> str:  # type: ignore[override]
        return self.settings.queue or self.app.conf.task_default_queue

    def _route(self, task: str, queue: str | None, home: str | None = None) -> tuple[str, int | None]:
        """The queue of a task and its priority: what was asked for, else what ``task_routes`` says, else its home."""
        facts = self._directory.find(task) or _UNKNOWN
        wanted = queue or facts.queue
        home = home or self.home
        if home != (facts.home or self.home) and not wanted and self._is_at(task, home):
            return home, facts.priority  # several apps have the worker: it is that of the run's own
        known = self._routes.get((task, wanted, facts.priority, facts.home))
        if known is None:
            known = self._routed(task, wanted, facts)
            _with_room(self._routes)[task, wanted, facts.priority, facts.home] = known
        return known

    def _is_at(self, task: str, home: str) -> bool:
        return self._directory.is_at(task, home) and not self.app.amqp.router.lookup_route(task)

    def _routed(self, task: str, wanted: str | None, facts: WorkerFacts) -> tuple[str, int | None]:
        router = self.app.amqp.router
        if not wanted and facts.home and not router.lookup_route(task):
            return facts.home, facts.priority  # of another app, whose default queue is not ours
        wanted = wanted or self.settings.queue
        routed = router.route({"queue": wanted} if wanted else {}, task)
        found = routed.get("queue")
        name = getattr(found, "name", found) or self.app.conf.task_default_queue
        return name, routed.get("priority", facts.priority)

    def _priority_of(self, step: StepDefinition, routed: int | None, *, first: bool) -> int | None:
        """What the step says, else what its worker or its route does, else what is for the start of a run."""
        if step.priority is not None:
            return step.priority
        return self._start_priority if routed is None and first else routed

    def _list_of(self, queue: str, priority: int | None) -> str:
        """The Redis list that holds a queue's messages of a priority, as kombu's Redis transport names it."""
        known = self._lists.get((queue, priority))
        if known is None:
            options = self.app.conf.broker_transport_options or {}
            known = _with_room(self._lists)[queue, priority] = wire.list_of(queue, priority, options)
        return known

    # --- the port ----------------------------------------------------------------------------------------------------

    def address(
        self,
        definition: Definition,
        correlation: Correlation,
        *,
        losses: int = 0,
        probe: bool = False,
        first: bool = False,
        home: str | None = None,
    ) -> Dispatch:
        step, task = task_of(definition, correlation, probe=probe)
        queue, priority = self._route(task, step.queue, home)
        if losses >= 2 and self._consumed.has(queue + QUARANTINE_SUFFIX):
            queue += QUARANTINE_SUFFIX
        priority = self._priority_of(step, priority, first=first)
        attempt_key = attempt_key_of(correlation.direction, correlation.attempt)
        if not self.atomic:
            grace = outbox_grace_ms(self.settings.lease)
            return Dispatch(correlation.step, attempt_key, Delivery.OUTBOX, target=queue, delay_ms=grace)
        hard = self._hard_limit(step, task, correlation.direction, probe=probe)
        prefix, suffix = self._render(task, queue, priority, _kwargs(definition, correlation), correlation, hard)
        return Dispatch(correlation.step, attempt_key, Delivery.PUSH, self._list_of(queue, priority), prefix, suffix)

    def retry_policy(
        self, definition: Definition, correlation: Correlation, *, probe: bool = False
    ) -> RetryPolicy | None:
        _, task = task_of(definition, correlation, probe=probe)
        facts = self._directory.find(task)
        return None if facts is None else facts.retry

    def has_worker(self, worker: str) -> bool:
        return self._directory.is_here(worker)

    def queue_for(self, worker: str, queue: str | None) -> str:
        return self._route(worker, queue)[0]

    def can_call(self, worker: str) -> bool:
        return worker in self.app.tasks

    def timeout_of(self, worker: str) -> float | None:
        return (self._directory.find(worker) or _UNKNOWN).timeout

    def workers_here(self) -> dict[str, dict[str, Any]]:
        return {
            name: (facts if facts.queue else facts._replace(home=self._route(name, None)[0])).to_dict()
            for name, facts in self._directory.here().items()
        }

    def announced(self, *, fresh: bool = False) -> Announced:
        return self._directory.announced(fresh=fresh)

    def publish(
        self,
        definition: Definition,
        correlation: Correlation,
        target: str,
        *,
        probe: bool = False,
        first: bool = False,
    ) -> None:
        step, task = task_of(definition, correlation, probe=probe)
        _, routed = self._route(task, step.queue)
        options: dict[str, Any] = {"queue": target} if target else {}
        if (priority := self._priority_of(step, routed, first=first)) is not None:
            options["priority"] = priority
        hard = self._hard_limit(step, task, correlation.direction, probe=probe)
        self._send(task, _kwargs(definition, correlation), correlation, options, hard)

    def _send(
        self, task: str, kwargs: dict[str, Any], correlation: Correlation, options: dict[str, Any], hard: int | None
    ) -> None:
        with self._producers.acquire() as producer:
            self.app.send_task(
                task,
                kwargs=kwargs,
                task_id=str(correlation),
                headers={HEADER: _UNNUMBERED},
                root_id=correlation.transaction_id,
                parent_id=correlation.transaction_id,
                kwargsrepr=shown(correlation),
                argsrepr="()",
                time_limit=hard,
                ignore_result=True,
                serializer="json",
                producer=producer,
                **options,
            )

    def _connect(self) -> Connection:
        amqp = str(self.app.conf.broker_write_url or "").startswith(("amqp", "pyamqp"))
        return self.app.connection_for_write(transport_options={"confirm_publish": True} if amqp else None)

    def backlog(self, target: str) -> int:
        try:
            with self.app.connection_for_write() as connection:
                channel: Any = connection.default_channel
                declared = channel.queue_declare(target, passive=True)
                return int(declared.message_count)
        except Exception:
            logger.debug("the broker did not tell how long queue %r is", target, exc_info=True)
            return -1

    def is_consumed(self, queue: str) -> bool | None:
        return self._consumed.has(queue)

    def queue_of(self, target: str) -> str:
        options = self.app.conf.broker_transport_options or {}
        queue, *_ = target.removeprefix(options.get("global_keyprefix", "")).split(options.get("sep", wire.SEPARATOR))
        return queue

    def is_deserted(self, target: str) -> bool:
        queue = self.queue_of(target)
        return queue.endswith(QUARANTINE_SUFFIX) and self._consumed.has(queue) is False

    def link(
        self, definition: Definition, correlation: Correlation, *, probe: bool = False, home: str | None = None
    ) -> Any:
        step, task = task_of(definition, correlation, probe=probe)
        queue, routed = self._route(task, step.queue, home)
        options: dict[str, Any] = {
            "task_id": str(correlation),
            "queue": queue,
            "headers": {HEADER: _UNNUMBERED},
            "ignore_result": True,
            "serializer": "json",
            "kwargsrepr": shown(correlation),
            "root_id": correlation.transaction_id,
        }
        if (hard := self._hard_limit(step, task, correlation.direction, probe=probe)) is not None:
            options["time_limit"] = hard
        if (priority := self._priority_of(step, routed, first=False)) is not None:
            options["priority"] = priority
        registered = self.app.tasks.get(task)
        if registered is not None and not hasattr(registered, "worker_queue"):
            # A Celery task that knows nothing of runs, and would refuse our arguments where they are sent.
            options["headers"] = {HEADER: _UNNUMBERED, CALLED: task}
            task = CALL_TASK
        return _Link(WriteSite.LINK, self.app, task, _kwargs(definition, correlation), options)

    def orchestration(self, transaction_id: str, *, first: bool = False) -> tuple[str, str, str] | None:
        if not self.atomic:
            return None
        queue, priority = self._route(ORCHESTRATOR_TASK, self.settings.orchestrator_queue)
        if first and priority is None:
            priority = self._start_priority
        correlation = _of_run(transaction_id)
        prefix, suffix = self._render(
            ORCHESTRATOR_TASK, queue, priority, {"transaction_id": transaction_id}, correlation, None
        )
        return self._list_of(queue, priority), prefix, suffix

    def send_orchestration(self, transaction_id: str, *, first: bool = False) -> None:
        queue, priority = self._route(ORCHESTRATOR_TASK, self.settings.orchestrator_queue)
        options: dict[str, Any] = {"queue": queue}
        if first and priority is None and self._start_priority is not None:
            options["priority"] = self._start_priority
        self._send(ORCHESTRATOR_TASK, {"transaction_id": transaction_id}, _of_run(transaction_id), options, None)

    def orchestration_link(self, transaction_id: str) -> Any:
        queue, _ = self._route(ORCHESTRATOR_TASK, self.settings.orchestrator_queue)
        options = {"queue": queue, "headers": {HEADER: _UNNUMBERED}, "ignore_result": True, "serializer": "json"}
        kwargs = {"transaction_id": transaction_id}
        return _Link(WriteSite.LINK_ORCHESTRATE, self.app, ORCHESTRATOR_TASK, kwargs, options)

    # --- rendering ---------------------------------------------------------------------------------------------------

    def _render(
        self,
        task: str,
        queue: str,
        priority: int | None,
        kwargs: dict[str, Any],
        correlation: Correlation,
        hard: int | None,
    ) -> tuple[str, str]:
        """The message around its number, which the commit script fills in."""
        task_id = str(correlation) if correlation.step else uuid4().hex
        partition = self._keys.partition_of(correlation.transaction_id)
        if signals.before_task_publish.receivers:
            made = self._made(task, kwargs, task_id, correlation.transaction_id, shown(correlation), hard)
            headers = {**made.headers, HEADER: f"{partition}:@number@"}
            properties = {**made.properties, "delivery_mode": 2}
            signals.before_task_publish.send(
                sender=task,
                body=made.body,
                exchange="",
                routing_key=queue,
                headers=headers,
                properties=properties,
                declare=[],
                retry_policy=self.app.conf.task_publish_retry_policy,
            )
            body = b64encode(wire.serialized(made.body).encode()).decode()
            text = wire.message(queue, priority, headers, properties, body, uuid4().hex)
            prefix, _, suffix = text.partition("@number@")
            return prefix, suffix
        key = (task, queue, priority, hard, partition)
        template = self._templates.get(key)
        if template is None:
            template = _with_room(self._templates)[key] = self._template(task, queue, priority, kwargs, hard, partition)
        return template.fill(
            {
                "id": task_id,
                "root": correlation.transaction_id,
                "shown": shown(correlation),
                "tag": self._tags.next(),
                "step": correlation.step,
                "direction": correlation.direction.value,
                "attempt": str(correlation.attempt),
                "definition": kwargs.get("definition", ""),
                "nonce": correlation.nonce,
            }
        )

    def _template(
        self,
        task: str,
        queue: str,
        priority: int | None,
        kwargs: dict[str, Any],
        hard: int | None,
        partition: int,
    ) -> MessageTemplate:
        blanks = {name: _BLANKS[name] for name in kwargs}
        made = self._made(task, blanks, "@id@", "@root@", "@shown@", hard)
        headers = {**made.headers, HEADER: f"{partition}:@number@"}
        text = wire.message(queue, priority, headers, {**made.properties, "delivery_mode": 2}, "@body@", "@tag@")
        return MessageTemplate(text, wire.serialized(made.body).replace(str(_ATTEMPT), "@attempt@"))

    def _made(self, task: str, kwargs: dict[str, Any], task_id: str, root: str, shown: str, hard: int | None) -> Any:
        """What Celery makes of a task before it is published."""
        return self.app.amqp.as_task_v2(
            task_id,
            task,
            kwargs=kwargs,
            root_id=root,
            parent_id=root,
            argsrepr="()",
            kwargsrepr=shown,
            time_limit=hard,
            ignore_result=True,
        )

    def _hard_limit(self, step: StepDefinition, task: str, direction: Direction, *, probe: bool) -> int | None:
        limit = step.timeout if direction is Direction.DO and not probe else None
        if limit is None:
            facts = self._directory.find(task)
            if facts is None:
                return None  # Its worker may have a longer limit of its own, which is not known here.
            limit = facts.timeout
        if limit is None:
            limit = self.settings.step_timeout
        return ceil(limit) + HARD_LIMIT_GRACE if limit else None


def _with_room(cache: dict[_K, _V]) -> dict[_K, _V]:
    """A cache that takes one more: it begins anew when there have been very many queues, one for each customer, say."""
    if len(cache) >= MAX_CACHED:
        cache.clear()
    return cache


class _Link(Signature):
    """A signature that a task carries as its link, and that Celery publishes when the task has succeeded."""

    def __init__(
        self, site: WriteSite, app: Celery, task: str, kwargs: dict[str, Any], options: dict[str, Any]
    ) -> None:
        super().__init__(task, kwargs=kwargs, immutable=True, options=options, app=app)
        self._site = site

    def clone(self, *_args: Any, **_kwargs: Any) -> _Link:
        # Celery clones what it links, into a plain signature; this one is made for one task and used once.
        return self

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Publish it."""
        # Called by Celery, once the task has succeeded: a link is not ours to send, so its write is named where it is.
        return write(self._site, partial(super().apply_async, *args, **kwargs))


_UNKNOWN = WorkerFacts()
#: The header of a message that no commit has numbered.
_UNNUMBERED = "0:0"


def _kwargs(definition: Definition, correlation: Correlation) -> dict[str, Any]:
    return {
        "transaction_id": correlation.transaction_id,
        "step": correlation.step,
        "direction": correlation.direction.value,
        "attempt": correlation.attempt,
        "definition": definition.content_hash,
        "nonce": correlation.nonce,
    }


def _of_run(transaction_id: str) -> Correlation:
    return Correlation(transaction_id, "", Direction.DO, 0)


def assert_may_wait() -> None:
    """Raise `RuntimeError` inside a task, as Celery's ``AsyncResult.get()`` does."""
    try:
        assert_will_not_block()
    except RuntimeError as error:
        raise RuntimeError(
            "a task may not wait for a run: it would hold a place in its worker that the run may need, and never end; "
            "make the other run a step of this one, with add_child(...), or wait where no task is"
        ) from error
