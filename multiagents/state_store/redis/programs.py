"""What agents have learned, in Redis: one hash for each worker, in the partition of its name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic_core import from_json

from multiagents.failpoints import WriteSite
from multiagents.keys import Keys
from multiagents.state_store.payloads import PayloadPolicy
from multiagents.state_store.programs import Programs
from multiagents.state_store.records import MAX_PROGRAM_CHANGES, MAX_PROGRAMS, Placement, ProgramChange, ProgramRecord
from multiagents.state_store.redis.script_server import ScriptServer

#: The fields of a placement.
_PLACEMENT = ("revision", "current", "canary", "share", "former")


class RedisPrograms(Programs):
    """Keep the programs of workers.

    Args:
        server: runs the scripts.
        keys: the key names.
        policy: in what form data is stored.
    """

    def __init__(self, server: ScriptServer, keys: Keys, policy: PayloadPolicy) -> None:
        self._server = server
        self._client: Any = server.client
        self._keys = keys
        self._policy = policy

    def add(self, worker: str, program: Any, about: Mapping[str, Any], *, token: str) -> int:
        args = [token, self._policy.text(program), self._policy.text(dict(about)), MAX_PROGRAMS]
        version: int = self._server.run(WriteSite.PROGRAM_ADD, "program_add", [self._key(worker)], args)[0]
        return version

    def get(self, worker: str, version: int) -> Any:
        found = self._server.call(partial(self._client.hget, self._key(worker), f"v:{version}"))
        return None if found is None else from_json(self._policy.open(found))

    def records(self, worker: str) -> list[ProgramRecord]:
        return [ProgramRecord(*each) for each in self._noted(worker, "m:")]

    def placement(self, worker: str) -> Placement:
        key = self._key(worker)
        revision, current, canary, share, former = self._server.call(partial(self._client.hmget, key, _PLACEMENT))
        return Placement(
            int(revision or 0),
            int(current or 0),
            int(canary or 0),
            float(share or 0),
            tuple(int(one) for one in (former or "").strip(",").split(",") if one),
        )

    def place(self, worker: str, placement: Placement, about: Mapping[str, Any]) -> bool:
        former = f",{','.join(map(str, placement.former))},"
        placed = [placement.revision, placement.current, placement.canary, repr(placement.share), former]
        args = [*placed, self._policy.text(dict(about)), MAX_PROGRAM_CHANGES]
        return bool(self._server.run(WriteSite.PROGRAM_PLACE, "program_place", [self._key(worker)], args)[0])

    def changes(self, worker: str) -> list[ProgramChange]:
        return [ProgramChange(*each) for each in self._noted(worker, "c:")]

    def _key(self, worker: str) -> str:
        return self._keys.of_key(worker).programs(worker)

    def _noted(self, worker: str, kind: str) -> list[tuple[int, int, Any]]:
        """Number, time and notes of the fields of a kind, in the order of their numbers; programs are not fetched."""
        key = self._key(worker)
        names = [name for name in self._server.call(partial(self._client.hkeys, key)) if name.startswith(kind)]
        if not names:
            return []
        noted: list[tuple[int, int, Any]] = []
        for name, text in zip(names, self._server.call(partial(self._client.hmget, key, names)), strict=True):
            if text is not None:  # it may have gone meanwhile
                at, _, notes = text.partition("|")
                noted.append((int(name.removeprefix(kind)), int(at), from_json(self._policy.open(notes))))
        return sorted(noted, key=lambda each: each[0])
