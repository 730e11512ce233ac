"""Arguments from the context and results back into it, by the names and annotations of a worker function.

1. A function takes the whole context if its only parameter is called ``context`` or ``ctx``, or is annotated as a
   mapping.
2. Any other parameter is taken from the context by its name, and read by Pydantic as its annotation says: what is kept
   as text becomes a Decimal, a datetime or a model again. If the function has just one, and it is a model, it may also
   be the whole context. ``**rest`` takes what no other parameter has.
3. A default stands in for what the context lacks.
4. The result is validated against the return annotation unless that is a dict, and is kept as plain JSON.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)

from multiagents.exceptions import OutcomeUnknownError, TerminalError
from multiagents.plain_json import dumps, plain, tidied

#: What a single parameter is called that takes the whole context.
CONTEXT_NAMES = frozenset({"context", "ctx"})
#: The same, unless the context has a key of that name.
_SHORT_NAMES = frozenset({"c", ""})
#: Bytes are kept as base64. A model says in its own configuration how it reads and writes them.
_BASE64 = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class ArgumentsError(TerminalError):
    """The context does not fit the parameters of a worker; the worker did not run."""


class ResultError(OutcomeUnknownError):
    """A worker ran, and what it returned cannot be recorded (rule S1b)."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    adapter: TypeAdapter[Any] | None
    default: Any
    takes_context: bool
    is_model: bool
    keyword_only: bool
    #: the only one, and called so that it may be the whole context
    may_be_context: bool = False


class Signature:
    """How one worker function is called.

    Args:
        worker: the worker's name, for errors.
        function: the function.
        namespace: names that its annotations may use beside those of its module.
        lenient: leave alone what is annotated with a type that Pydantic does not know; otherwise that is an error.
    """

    def __init__(
        self,
        worker: str,
        function: Callable[..., Any],
        namespace: Mapping[str, Any] | None = None,
        *,
        lenient: bool = False,
    ) -> None:
        self.worker = worker
        self._said = f'worker "{worker}" ran, and returned what'
        hints = _hints(function, namespace or {})
        self._lenient = lenient
        self._parameters: list[_Parameter] | None = None
        named, self._takes_rest = _named_parameters(function)
        if named is not None:
            annotations = [hints.get(p.name, p.annotation) for p in named]
            alone = len(named) == 1 and named[0].kind is not inspect.Parameter.KEYWORD_ONLY and not self._takes_rest
            if not (alone and _is_whole_context(named[0], annotations[0])):
                self._parameters = [
                    self._parameter(parameter, annotation, alone=alone)
                    for parameter, annotation in zip(named, annotations, strict=True)
                ]
        self._returns = self._result_adapter(hints.get("return", inspect.Signature.empty))

    @property
    def takes_context(self) -> bool:
        """Whether the function gets the context as it is."""
        return self._parameters is None

    def _parameter(self, parameter: inspect.Parameter, annotation: Any, *, alone: bool) -> _Parameter:
        takes_context = _is_context(annotation) and parameter.name in CONTEXT_NAMES
        adapter = None
        if not takes_context and annotation is not parameter.empty:
            adapter = _adapter(annotation)
            if adapter is None and not self._lenient:
                raise TerminalError(
                    f'worker "{self.worker}" cannot be called: its parameter "{parameter.name}" is annotated with '
                    f"{_shown(annotation)}, which Pydantic cannot validate; annotate it with a model, a dataclass or a "
                    f"JSON type, or take the context: dict"
                )
        return _Parameter(
            name=parameter.name,
            adapter=adapter,
            default=parameter.default,
            takes_context=takes_context,
            is_model=_is_model(annotation),
            keyword_only=parameter.kind is parameter.KEYWORD_ONLY,
            may_be_context=alone and parameter.name.lstrip("_") in _SHORT_NAMES,
        )

    def _result_adapter(self, annotation: Any) -> TypeAdapter[Any] | None:
        if annotation in (inspect.Signature.empty, Any, None, type(None)):
            return None
        if _is_context(annotation) and typing.get_args(annotation)[:1] in ((), (str,), (Any,)):
            return None  # its keys are text as they are
        return _adapter(annotation)

    def arguments(self, context: Any) -> tuple[list[Any], dict[str, Any]]:
        """The positional and keyword arguments for a context.

        Raises:
            ArgumentsError: when it lacks one, or one does not fit; every field that is wrong is named.
        """
        if self._parameters is None:
            return [context], {}
        if not isinstance(context, Mapping):
            # The step's `inputs` answered something else: it is what the one parameter is to get.
            context = {self._parameters[0].name: context} if len(self._parameters) == 1 else {}
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        problems: list[str] = []
        for parameter in self._parameters:
            try:
                value = self._value(parameter, context)
            except ValidationError as error:
                problems.extend(_problems(parameter.name, error))
                continue
            except KeyError:
                advice = "" if len(self._parameters) > 1 else "; a parameter called context gets all of it"
                problems.append(f"{parameter.name}: the context has no such key ({_keys(context)}){advice}")
                continue
            if parameter.keyword_only:
                keywords[parameter.name] = value
            else:
                positional.append(value)
        if problems:
            raise ArgumentsError(
                f'worker "{self.worker}" was not run: the context does not fit its parameters: {"; ".join(problems)}; '
                f"start the run with such a value, shape the context with inputs=, or change the parameters"
            )
        if self._takes_rest:
            named = {parameter.name for parameter in self._parameters}
            keywords |= {key: value for key, value in context.items() if key not in named}
        return positional, keywords

    def typed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments, each read as its parameter is annotated; what no parameter is called stays as it is.

        Raises:
            ArgumentsError: when one does not fit.
        """
        adapters = {parameter.name: parameter.adapter for parameter in self._parameters or ()}
        problems: list[str] = []
        typed = dict(given)
        for name, value in given.items():
            if (adapter := adapters.get(name)) is not None:
                try:
                    typed[name] = _read(adapter, value)
                except ValidationError as error:
                    problems.extend(_problems(name, error))
        if problems:
            raise ArgumentsError(
                f'worker "{self.worker}" was not run: what inputs= answers does not fit its parameters: '
                f"{'; '.join(problems)}; change inputs=, or the annotation"
            )
        return typed

    def knows(self, name: str) -> bool:
        """Whether there is a parameter of this name, or one for any name."""
        return self._takes_rest or any(parameter.name == name for parameter in self._parameters or ())

    def _value(self, parameter: _Parameter, context: Mapping[str, Any]) -> Any:
        if parameter.takes_context:
            return context
        adapter = parameter.adapter
        if parameter.name in context:
            value = context[parameter.name]
            alone = parameter.is_model and len(self._parameters or ()) == 1
            if alone and not isinstance(value, Mapping):
                value = context  # {"order": "A-1", "total": 3} for (order: Order): "order" is a field of the model
            return value if adapter is None else _read(adapter, value)
        if parameter.is_model and len(self._parameters or ()) == 1 and adapter is not None:
            if parameter.default is not inspect.Parameter.empty:
                try:
                    return _read(adapter, context)
                except ValidationError:
                    return parameter.default
            return _read(adapter, context)
        if parameter.default is not inspect.Parameter.empty:
            return parameter.default
        if parameter.may_be_context:
            return context
        raise KeyError(parameter.name)

    def result(self, returned: Any, max_bytes: int) -> Any:
        """What is recorded of what the function returned, as plain JSON.

        Args:
            returned: what the function returned.
            max_bytes: how large it may be as JSON, in bytes.

        Raises:
            ResultError: when it does not fit the return annotation, is not JSON, or is too large.
        """
        adapter = self._returns
        if adapter is not None and returned is not None:
            returned = self._validated(adapter, returned)
        return plain(returned, self._said, max_bytes=max_bytes, error=ResultError)

    def dumped(self, returned: Any) -> Any:
        """What a call outside a run returns: models as dicts, and anything else as it is."""
        if self._returns is not None and returned is not None:
            return self._validated(self._returns, returned)
        return returned.model_dump(mode="json") if isinstance(returned, BaseModel) else returned

    def _validated(self, adapter: TypeAdapter[Any], returned: Any) -> Any:
        try:
            validated = adapter.validate_python(returned)
            return tidied(validated, adapter.dump_python(validated, mode="json"))
        except ValidationError as error:
            raise ResultError(
                f'worker "{self.worker}" ran, and returned {_described(returned)}, which does not fit its return '
                f"annotation: {'; '.join(_problems('', error))}; return what the annotation says, or change it"
            ) from None  # Pydantic's own message has the values
        except (TypeError, ValueError) as error:
            raise ResultError(
                f'worker "{self.worker}" ran, and returned {_described(returned)}, which cannot be made JSON: {error}; '
                f"give its fields JSON types or serializers"
            ) from None


def _read(adapter: TypeAdapter[Any], value: Any) -> Any:
    """A value of the context as its annotation says."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        # A strict model takes the text of a time from JSON only, which is where it has come from.
        try:
            return adapter.validate_json(dumps(value))
        except (ValueError, TypeError):
            raise error from None


def _named_parameters(function: Callable[..., Any]) -> tuple[list[inspect.Parameter] | None, bool]:
    """The parameters that have names of their own, and whether there is one for all others.

    There is nothing to go by in a builtin and in a bare wrapper, ``*args, **kwargs``: None.
    """
    if inspect.isbuiltin(function):
        return None, False
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None, False
    kinds = {p.kind for p in parameters}
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    bare = not named and inspect.Parameter.VAR_POSITIONAL in kinds
    return None if bare else named, inspect.Parameter.VAR_KEYWORD in kinds and not bare


def _is_whole_context(parameter: inspect.Parameter, annotation: Any) -> bool:
    if annotation is parameter.empty or annotation is Any:
        return parameter.name.lstrip("_") in CONTEXT_NAMES
    return _is_context(annotation)


def _hints(function: Callable[..., Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations, with strings resolved as far as they can be."""
    target: Any = inspect.unwrap(function)
    while isinstance(target, functools.partial):
        target = target.func
    if not hasattr(target, "__annotations__"):
        target = type(target).__call__
    raw = dict(getattr(target, "__annotations__", {}))
    names = {**getattr(target, "__globals__", {}), **namespace, **_closure(target)}
    resolved = {}
    for name, annotation in raw.items():
        # One by one: a name that only a type checker knows must not spoil the others.
        resolved[name] = _resolved(annotation, names) if isinstance(annotation, str) else annotation
    return resolved


def _resolved(annotation: str, names: dict[str, Any]) -> Any:
    try:
        holder = types.SimpleNamespace(__annotations__={"it": annotation})
        return typing.get_type_hints(holder, names, names, include_extras=True)["it"]
    except Exception:  # noqa: BLE001 - an annotation is any expression
        return _unresolved(annotation)


def _unresolved(annotation: str) -> Any:
    if annotation.partition("[")[0].rpartition(".")[2].lower() in ("dict", "mapping", "mutablemapping", "any"):
        return dict
    return annotation


def _closure(function: Any) -> dict[str, Any]:
    """Names of the enclosing functions, for models that are defined inside one."""
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    found = {}
    for name, cell in zip(code.co_freevars if code else (), cells, strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not yet assigned
            continue
    return found


def _is_context(annotation: Any) -> bool:
    if annotation in (inspect.Parameter.empty, Any):
        return True
    origin = typing.get_origin(annotation) or annotation
    # A TypedDict is a dict too: it says what is in the context, to the type checker.
    return origin in (Mapping, MutableMapping) or (isinstance(origin, type) and issubclass(origin, dict))


def _is_model(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_is_model(member) for member in typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Annotated:
        return _is_model(typing.get_args(annotation)[0])
    return isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation))


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    if isinstance(annotation, str):
        return None
    try:
        adapter = _adapted(annotation)
        adapter.rebuild(raise_errors=True)
        return adapter
    except (PydanticSchemaGenerationError, PydanticUserError, NameError):
        return None


def _adapted(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=_BASE64)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)  # a model: it has a configuration of its own


def _problems(name: str, error: ValidationError) -> list[str]:
    found = []
    for problem in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in (*([name] if name else []), *problem["loc"]))
        got = "" if problem["type"] == "missing" else f" (got {_shown(type(problem['input']))})"
        found.append(f"{where or 'the value'}: {problem['msg']}{got}")
    return found


def _keys(context: Mapping[str, Any]) -> str:
    keys = sorted(str(key) for key in context)
    return f"keys: {', '.join(keys[:20])}{', ...' if len(keys) > 20 else ''}" if keys else "it is empty"


def _described(value: Any) -> str:
    kind = _shown(type(value))
    if isinstance(value, Mapping):
        return f"a {kind} with {_keys(value)}"
    return f"a value of type {kind}"


def _shown(annotation: Any) -> str:
    if not isinstance(annotation, type):
        return str(annotation)
    return (
        annotation.__qualname__
        if annotation.__module__ == "builtins"
        else f"{annotation.__module__}.{annotation.__qualname__}"
    )
