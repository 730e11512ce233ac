"""Templates of keys: ``stock:{sku}``, whose fields are filled in from a run's context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Any

from multiagents.exceptions import WorkflowError, did_you_mean

#: How long a key may be once its fields are filled in.
MAX_KEY = 512


def template_fields(template: str) -> Iterator[str]:
    """The fields of a template: dotted paths in the context.

    Raises:
        ValueError: when it is no template: a brace without the other one, an empty field, a format.

    >>> list(template_fields("stock:{order.sku}:{shop}"))
    ['order.sku', 'shop']
    """
    for _, path, form, conversion in Formatter().parse(template):
        if path is None:
            continue
        if form or conversion or not all(path.split(".")) or not set(path).isdisjoint("[]"):
            raise ValueError("a field is a name, or names with dots between them, in braces")
        yield path


def filled_template(template: str, context: Mapping[str, Any]) -> str:
    """A template with its fields filled in: a key that may be used.

    Raises:
        WorkflowError: when the context lacks something it names, or has what makes no key there.

    >>> filled_template("stock:{order.sku}", {"order": {"sku": 7}})
    'stock:7'
    """
    parts = []
    for text, path, *_ in Formatter().parse(template):
        parts.append(text)
        if path is not None:
            parts.append(_looked_up(template, path, context))
    return checked_key("".join(parts))


def checked_key(key: Any) -> str:
    """A key as it may be used, unchanged.

    Raises:
        WorkflowError: when it is no text, or empty, too long, or of more than one line.
    """
    if not isinstance(key, str) or not key.strip() or len(key) > MAX_KEY or not key.isprintable():
        shown = type(key).__name__
        if isinstance(key, str):
            shown = f"{key[:40]!r}..." if len(key) > MAX_KEY else repr(key)
        raise WorkflowError(f"{shown} cannot be a key; expected 1 to {MAX_KEY} printable characters")
    return str.__str__(key)


def _looked_up(template: str, path: str, context: Mapping[str, Any]) -> str:
    value: Any = context
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            # Keys only: values may be secret.
            raise WorkflowError(
                f'the key "{template}" takes "{path}" from the context, which does not have it'
                f"{did_you_mean(path, context)} (it has: {', '.join(map(str, context)) or 'nothing'})"
            )
        value = value[name]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise WorkflowError(
            f'the key "{template}" takes "{path}" from the context, where it is a {type(value).__name__}; expected a '
            f"text or a number"
        )
    return str(value)
