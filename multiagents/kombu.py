"""What kombu's JSON writes of types that JSON does not have."""

from __future__ import annotations

from typing import Any

from kombu.utils.json import JSONEncoder

_default = JSONEncoder().default


def written(value: Any) -> Any:
    """What stands for a value: of ``__json__``, of a lazy text of Django, of ``register_type``.

    kombu names the type beside it, so that its own reader finds it again. Here the value alone is kept: other readers
    know no such names, and Pydantic reads it by the annotation.

    Raises:
        TypeError: when kombu does not know the type.
    """
    given = _default(value)
    if isinstance(given, dict) and given.keys() == {"__type__", "__value__"}:
        return given["__value__"]
    return given
