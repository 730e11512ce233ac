"""Programs that were learned, as DSPy's objects: how one is written down, what it has to fit, and how it is made again.

What is written down is the state of a module, JSON: instructions, examples, fields. Nothing of it is code, and nothing
of an LM is in it: that would have an address in it, and perhaps more.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import dspy
from pydantic import TypeAdapter

from multiagents.agents.dspy.models import choices_of
from multiagents.agents.dspy.program import adapter_of, program_of
from multiagents.exceptions import ProgramMismatchError, ProgramNotFoundError
from multiagents.plain_json import canonical, plain
from multiagents.state_store.records import BUILT_IN

if TYPE_CHECKING:
    from multiagents.agents.agent import Agent
    from multiagents.state_store import StateStore

logger = logging.getLogger(__name__)

#: How many programs a process keeps made.
_KEPT = 64
#: Characters of a part of a fingerprint that are kept as they are; of a longer one there is a hash.
_SHOWN = 300


def written(program: Any, agent: Agent, adapter: Any) -> dict[str, Any]:
    """A program as it is kept, with what it fits."""
    bare = program.deepcopy()
    for _, predictor in bare.named_predictors():
        predictor.lm = None
    state = plain(bare.dump_state(), f'the program of worker "{agent.name}"')
    return {"state": state, "fits": dict(fingerprint(agent, adapter))}


def made(agent: Agent, kept: Mapping[str, Any], version: int, adapter: Any) -> Any:
    """A program as it was written down.

    Raises:
        ProgramMismatchError: when it does not fit what the agent is here.
    """
    differences = list(_differences(kept["fits"], fingerprint(agent, adapter)))
    if differences:
        raise ProgramMismatchError(agent.name, version, differences)
    program = program_of(agent).deepcopy()
    try:
        program.load_state(kept["state"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProgramMismatchError(
            agent.name, version, [f"DSPy cannot load it: {type(error).__name__}: {error}"]
        ) from error
    return program


def fingerprint(agent: Agent, adapter: Any) -> Mapping[str, str]:
    """What a program has to fit: what is asked, with which tools, how, and in whose words."""
    program = program_of(agent)
    questions = [
        f"{name}({', '.join(_field(*each) for each in predictor.signature.fields.items())}: "
        f"{predictor.signature.instructions})"
        for name, predictor in program.named_predictors()
    ]
    return {
        "reasoning": str(agent.reasoning) if agent.module is None else _named(type(program)),
        "signature": _short("; ".join(questions)),
        "tools": _short("; ".join(_tool(one) for one in _tools(program))),
        "adapter": _named(type(adapter)),
        "dspy": dspy.__version__,
    }


def _differences(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in now:
        if was.get(name) != now[name]:
            yield f"{name} was {was.get(name) or 'none'}, and is {now[name] or 'none'}"


def _field(name: str, field: Any) -> str:
    annotation = field.annotation
    text = getattr(annotation, "__name__", str(annotation))
    try:
        schema = TypeAdapter(annotation).json_schema()
    except Exception:  # noqa: BLE001 - a type of the user's own, or of DSPy's, that has none
        schema = {}
    told = f"{name}: {text}"
    if "properties" in schema or "$defs" in schema:
        told += f"#{sha256(canonical(schema).encode()).hexdigest()[:8]}"
    said = (field.json_schema_extra or {}).get("desc", "")
    return told if said in ("", f"${{{name}}}") else f"{told} ({said})"


def _tools(program: Any) -> Iterator[Any]:
    for _, part in program.named_sub_modules():
        if isinstance(part, dspy.ReAct):
            yield from (one for name, one in part.tools.items() if name != "finish")
        elif isinstance(part, dspy.RLM):
            yield from part._user_tools.values()  # noqa: SLF001 - where it keeps them


def _tool(one: Any) -> str:
    return f"{one.name}({canonical(plain(one.args or {}, 'arguments'))}): {one.desc or ''}"


def _named(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _short(text: str) -> str:
    if len(text) <= _SHOWN:
        return text
    return f"{text[:_SHOWN]}... (#{sha256(text.encode()).hexdigest()[:16]})"


# --- those that are in place -----------------------------------------------------------------------------------------

_made: WeakKeyDictionary[StateStore, OrderedDict[tuple[Agent, int, str], Any]] = WeakKeyDictionary()
_lock = Lock()


def learned(agent: Agent, version: int, store: StateStore, adapter: Any) -> Any | None:
    """A program that an agent has learned; None for the built-in one, and where it does not fit, which is said once.

    A program is made once in a process.
    """
    if version == BUILT_IN:
        return None
    key = agent, version, _named(type(adapter))
    with _lock:
        known = _made.setdefault(store, OrderedDict())
        if key in known:
            known.move_to_end(key)
            return known[key]
    found = _found(agent, version, store, adapter)
    with _lock:
        known[key] = found
        while len(known) > _KEPT:
            known.popitem(last=False)
    return found


def _found(agent: Agent, version: int, store: StateStore, adapter: Any) -> Any | None:
    try:
        return loaded(agent, version, store, adapter)
    except (ProgramMismatchError, ProgramNotFoundError) as error:
        logger.error("%s. Until then this process goes on with the program that the code is", error)
        return None


def loaded(agent: Agent, version: int, store: StateStore, adapter: Any) -> Any:
    """A program that an agent has learned, made from what the store has.

    Raises:
        ProgramNotFoundError: when it is not kept.
        ProgramMismatchError: when it does not fit what the agent is here.
    """
    kept = store.programs.get(agent.name, version)
    if kept is None:
        known = [each.version for each in store.programs.records(agent.name)]
        raise ProgramNotFoundError(agent.name, version, known)
    return made(agent, kept, version, adapter)


def check_fit(agent: Agent, version: int, store: StateStore, setting: Any) -> None:
    """See to it that a program fits what an agent is here.

    Args:
        agent: the agent.
        version: the program's.
        store: where it is kept.
        setting: ``multiagents_lm``, which may say which adapter is meant.

    Raises:
        ProgramNotFoundError: when it is not kept.
        ProgramMismatchError: when it does not fit.
    """
    loaded(agent, version, store, adapter_of(agent, choices_of(agent, setting)))
