"""The base of the models that users make themselves: what does not fit is refused in words, by an error of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from multiagents.exceptions import InvalidValueError, did_you_mean

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)  # it is not exported

__all__ = ["PublicModel"]

#: How Pydantic begins to say what it expected.
_EXPECTED = "Input should be "


class _InWords(ModelMetaclass):
    """Makes instances as Pydantic does, and says what is wrong with what was given as the rest of the library does.

    Here, and not in ``__init__``: Pydantic calls that for models inside others, too, and then takes the slow way.
    """

    if not TYPE_CHECKING:  # what a constructor takes and gives is the model's to say

        def __call__(cls, *args: Any, **given: Any) -> Any:  # noqa: N805 - a metaclass
            if args:
                raise InvalidValueError(
                    f"no {cls.__name__} was made: {', '.join(map(_shown, args))} was given without a name; expected "
                    f"{'=..., '.join(cls.model_fields)}=..."
                )
            try:
                return super().__call__(**given)
            except ValidationError as error:
                problems = [_in_words(cls, problem) for problem in error.errors(include_url=False)]
            # Not chained: Pydantic's error shows what was given, all of it.
            raise InvalidValueError(f"no {cls.__name__} was made: {'; '.join(problems)}")


class PublicModel(BaseModel, metaclass=_InWords):
    """A Pydantic model whose constructor raises `InvalidValueError`."""


def _in_words(model: Any, problem: Any) -> str:
    """One field that does not fit, with what was given for it and what was expected."""
    where, kind, said = ".".join(map(str, problem["loc"])), problem["type"], problem["msg"]
    if kind == "missing":
        return f"{where} is missing; expected {where}=..."
    if kind == "extra_forbidden":
        near = did_you_mean(where, model.model_fields)
        return f"{where}= is not known{near or '; expected one of ' + ', '.join(model.model_fields)}"
    if said.startswith(_EXPECTED):
        said = said.removeprefix(_EXPECTED)
        said = f"expected {'a number ' if said.startswith(('greater', 'less')) else ''}{said}"
    return f"{where}={_shown(problem['input'])}; {said.removeprefix('Value error, ')}"


def _shown(value: Any) -> str:
    """A value, if it is short and nothing that may hold somebody's data; else what it is."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str) and len(value) <= 40:
        return repr(value)
    return f"<{type(value).__name__}>"
