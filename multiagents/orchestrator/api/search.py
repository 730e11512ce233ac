"""Which runs are meant: the filter that listing, counting and the bulk verbs share; and what runs are found by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from multiagents.clock import to_ms
from multiagents.events import new_id
from multiagents.exceptions import StateConflictError, WorkflowError, did_you_mean
from multiagents.failpoints import WriteSite
from multiagents.orchestrator.api.views import left_live, may_leave_live
from multiagents.plain_json import check_words
from multiagents.state_store import StateStore
from multiagents.state_store.records import (
    Commit,
    Condition,
    Page,
    Search,
    Verdict,
    check_attribute_count,
    decode_attribute,
    encode_attributes,
)
from multiagents.workflow.decider import said
from multiagents.workflow.definition import Definition, definitions
from multiagents.workflow.state import RunStatus

#: What the history calls it when what a run is found by was set from outside.
ATTRIBUTES_SET = "attributes_set"
#: How often it is tried while others change the run.
MAX_RACES = 100

#: A status or some, as users give them; None is all.
Statuses = RunStatus | str | Iterable[RunStatus | str] | None


class Filter(NamedTuple):
    """Which runs are meant.

    Attributes:
        statuses: in any of these; None is all.
        workflow: of this one.
        since: started at this time or later.
        conditions: with these attributes.
        version: of this version of the workflow.
        live: whose end has left effects live (`multiagents.orchestrator.api.views.left_live`).
    """

    statuses: list[RunStatus] | None = None
    workflow: str | None = None
    since: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    version: str | None = None
    live: bool = False

    @classmethod
    def of(
        cls,
        workflow: Definition | str | None = None,
        status: Statuses = None,
        since: datetime | None = None,
        attributes: Mapping[str, Any] | None = None,
        *,
        version: str | None = None,
        live: bool = False,
    ) -> Filter:
        """Read a filter as users give it.

        Raises:
            WorkflowError: when a status or an attribute cannot be searched for.
        """
        if status is None:
            statuses = None
        elif isinstance(status, str):
            statuses = [status_of(status)]
        else:
            statuses = [status_of(one) for one in status]
        name = (
            workflow
            if workflow is None or isinstance(workflow, str)
            else definitions.meant(workflow, "the filter").name
        )
        conditions = tuple(Condition.of(key, wanted) for key, wanted in (attributes or {}).items())
        return cls(statuses, name, since, conditions, version, live)

    @property
    def is_empty(self) -> bool:
        """Whether all runs are meant."""
        return self == Filter()

    def page(self, store: StateStore, limit: int, cursor: str | None = None) -> Page:
        """A page of the runs that are meant; what no index has is looked for in all runs of it at once."""
        if self.conditions:
            page = store.visibility.search(self._search(limit, cursor))
        else:
            page = store.visibility.list_runs(
                statuses=self._statuses, workflow=self.workflow, since=self.since, limit=limit, cursor=cursor
            )
        meant = page.transaction_ids
        if self.version is not None:
            versions = store.visibility.versions(meant)
            meant = [each for each in meant if versions.get(each) == self.version]
        if self.live:
            found = store.load_many(meant)
            meant = [each for each in meant if each in found and left_live(found[each])]
        return page._replace(transaction_ids=meant)

    @property
    def _statuses(self) -> list[RunStatus]:
        statuses = list(RunStatus) if self.statuses is None else self.statuses
        # No other has left anything that is to be told of.
        return [each for each in statuses if may_leave_live(each)] if self.live else statuses

    def count(self, store: StateStore) -> int:
        """How many runs are meant; ``since`` without attributes is not counted by."""
        if self.conditions:
            return store.visibility.count_found(self._search())
        return sum(store.visibility.count(one, self.workflow) for one in self._statuses)

    def _search(self, limit: int = 50, cursor: str | None = None) -> Search:
        since = 0 if self.since is None else to_ms(self.since)
        return Search(
            self.conditions, self._statuses if self.live else self.statuses, self.workflow, since, limit, cursor
        )


def status_of(status: RunStatus | str) -> RunStatus:
    """The status of this name.

    Raises:
        WorkflowError: when there is none.
    """
    try:
        return RunStatus(status)
    except ValueError:
        raise WorkflowError(
            f"there is no status {status!r}{did_you_mean(str(status), list(RunStatus))} "
            f"(statuses: {', '.join(RunStatus)})"
        ) from None


def set_attributes(
    store: StateStore, transaction_id: str, attributes: Mapping[str, Any], *, reason: str | None, actor: str | None
) -> None:
    """Set what a run is found by, with a fact in its history; a repetition that changes nothing leaves none."""
    check_words(reason=reason, actor=actor)
    encoded = encode_attributes(attributes)
    for _ in range(MAX_RACES):
        snapshot = store.load(transaction_id)
        known = snapshot.attributes
        changed = {name: stored for name, stored in encoded.items() if known.get(name, "") != stored}
        if not changed:
            return
        check_attribute_count(sum(map(bool, {**known, **changed}.values())), transaction_id)
        fact = said(
            snapshot.state,
            ATTRIBUTES_SET,
            snapshot.now,
            event_id=new_id(),
            reason=reason,
            actor=actor,
            payload={name: decode_attribute(stored) if stored else None for name, stored in changed.items()},
        )
        nonce = snapshot.state.nonce
        site = WriteSite.ATTRIBUTES
        commit = Commit(transaction_id, [fact], version=snapshot.version, attributes=changed, site=site, nonce=nonce)
        # A run that is gone by now is said to be so when it is loaded again.
        if store.commit(commit).verdict is Verdict.APPLIED:
            return
    raise StateConflictError(
        f"run {transaction_id!r} was changed by others {MAX_RACES} times while its attributes were set; nothing was "
        f"set: set them again"
    )
