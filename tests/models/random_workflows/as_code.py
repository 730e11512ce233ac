"""Values written as the code that makes them."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

#: Of others' values the repr is better.
_OURS = (
    "multiagents.workflow.builder.elements",
    *(f"{__package__}.{module}" for module in ("elements", "case", "user_code")),
)


def written(value: Any, room: int = 100) -> str:
    """A value as code, without what is as usual; what does not fit into a line is parted."""
    match value:
        case list():
            parts, ends = [written(each, room - 4) for each in value], "[]"
        case dict():
            parts, ends = [f"{key!r}: {written(each, room - 4)}" for key, each in value.items()], "{}"
        case _ if is_dataclass(value) and type(value).__module__ in _OURS:
            given = [(each, getattr(value, each.name)) for each in fields(value)]
            told = [(each, of_it) for n, (each, of_it) in enumerate(given) if n == 0 or of_it != _usual(each)]
            parts = [f"{each.name}={written(of_it, room - 4)}" for each, of_it in told]
            parts[0] = written(told[0][1], room - 4)
            ends = f"{type(value).__name__}()"
        case _:
            return repr(value)
    line = f"{ends[:-1]}{', '.join(parts)}{ends[-1]}"
    if len(line) <= room and "\n" not in line:
        return line
    inner = "".join(f"\n{part},".replace("\n", "\n    ") for part in parts)
    return f"{ends[:-1]}{inner}\n{ends[-1]}"


def _usual(each: Field[Any]) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


class ShortRepr:
    """A repr that has only what is not as usual."""

    def __repr__(self) -> str:
        return written(self, room=1_000_000)
