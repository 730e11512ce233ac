"""What an optimization was told, as it travels with its run: plain JSON, checked before the run is started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from importlib.util import find_spec
from typing import Any, Self

from multiagents.exceptions import ConfigurationError, did_you_mean
from multiagents.plain_json import canonical

#: So many examples it takes: two to learn from, and two to see whether it was any use.
FEWEST = 4


class Optimizer(StrEnum):
    """How a better program is looked for."""

    #: examples that were answered well are shown to the model
    BOOTSTRAP = "bootstrap"
    #: the model reflects on what went wrong, and writes better instructions
    GEPA = "gepa"
    #: instructions and examples are proposed, and combinations of them tried
    MIPRO = "mipro"

    @property
    def packages(self) -> tuple[str, ...]:
        """What has to be installed for it where the agent's steps run."""
        return {Optimizer.BOOTSTRAP: (), Optimizer.GEPA: ("gepa",), Optimizer.MIPRO: ("optuna",)}[self]

    @classmethod
    def named(cls, name: Any) -> Optimizer:
        """The one of this name.

        Raises:
            ConfigurationError: when there is none.
        """
        try:
            return cls(name)
        except ValueError:
            raise ConfigurationError(
                f'optimizer "{name!s:.60}" is not known{did_you_mean(str(name), list(cls))} '
                f"(there are: {', '.join(cls)})"
            ) from None

    def check_installed(self) -> None:
        """See to it that what it needs is installed here.

        Raises:
            ConfigurationError: when it is not.
        """
        missing = [name for name in ("dspy", *self.packages) if find_spec(name) is None]
        if missing:
            raise ConfigurationError(
                f'optimizer="{self}" needs {", ".join(missing)}, which is not installed here, and nothing was asked; '
                f'install it where the steps of the worker run: pip install "celery-multiagents[optimize]"'
            )


@dataclass(frozen=True)
class Options:
    """What an optimization was told.

    Attributes:
        metric: what says how good an answer is.
        optimizer: how a better program is looked for.
        budget: how many calls of a model looking for it may take; None is what the optimizer itself stops at.
        spend: what looking, and measuring, may cost each: the arguments of a `Budget`; None is without limit.
        threshold: by how much the candidate has to score better than the current program.
        holdout: which part of the examples is held out.
        seed: of all chance.
        min_score: which feedback an example must have, if it has any.
        max_examples: how many are used, the newest.
        model: what the optimizer itself asks, if not what the agent asks.
        canary_share: of how many steps the candidate is asked with at first.
        canary_runs: how many runs with it have to end before it is judged.
        canary_timeout: seconds after which it is taken back if so many have not.
        tolerance: by how much it may do worse than the current program.
        call_tools: the agent's tools may be called while it is optimized.
    """

    metric: str
    optimizer: str = Optimizer.BOOTSTRAP
    budget: int | None = None
    spend: Mapping[str, Any] | None = None
    threshold: float = 0.0
    holdout: float = 0.3
    seed: int = 0
    min_score: float = 0.5
    max_examples: int = 200
    model: Any = None
    canary_share: float = 0.1
    canary_runs: int = 50
    canary_timeout: float = 7 * 86400.0
    tolerance: float = 0.05
    call_tools: bool = False

    def __post_init__(self) -> None:
        Optimizer.named(self.optimizer)
        self._whole("budget", 1, none=True)
        self._whole("seed", 0)
        self._whole("max_examples", FEWEST)
        self._whole("canary_runs", 0)
        self._between("threshold", -1, 1)
        self._between("holdout", 0, 1, inner=True)
        self._between("min_score", 0, 1)
        self._between("canary_share", 0, 1)
        self._between("tolerance", 0, 1)
        if isinstance(self.canary_timeout, bool) or not self.canary_timeout > 0:
            raise self._refused("canary_timeout", "a number of seconds above 0")
        if self.model is not None and not isinstance(self.model, str):
            raise self._refused("model", 'the name of a model, such as "gemini/gemini-3.8-flash"')

    @property
    def has_canary(self) -> bool:
        """Whether a share of the steps tries the candidate before all of them do."""
        return self.canary_runs > 0 and 0 < self.canary_share < 1

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """The inverse of `told`; what a newer release has added is left out."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in told.items() if name in known})

    @property
    def told(self) -> dict[str, Any]:
        """It as plain JSON."""
        return asdict(self)

    def _whole(self, name: str, least: int, *, none: bool = False) -> None:
        value = getattr(self, name)
        if value is None and none:
            return
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self._refused(name, f"a whole number of at least {least}{', or None' if none else ''}")

    def _between(self, name: str, least: float, most: float, *, inner: bool = False) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not least <= value <= most or (inner and value in (least, most)):
            raise self._refused(
                name, f"a number {'between' if inner else 'from'} {least} {'and' if inner else 'to'} {most}"
            )

    def _refused(self, name: str, expected: str) -> ConfigurationError:
        return ConfigurationError(f"optimize() was given {name}={getattr(self, name)!r:.80}; expected {expected}")


def chosen(lines: Iterable[Mapping[str, Any]], options: Options) -> list[dict[str, Any]]:
    """The examples that are good to learn from, of lines as `get_optimization_data` gives them, newest first.

    One is good if its saga has completed, or where somebody has given it a score, if that is high enough. Of those that
    ask the same, the newest counts.
    """
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        if len(found) == options.max_examples:
            break
        inputs, outputs, score = line.get("inputs"), line.get("outputs"), line.get("score")
        if not isinstance(inputs, Mapping) or not isinstance(outputs, Mapping) or not inputs or not outputs:
            continue
        good = line.get("outcome", "completed") == "completed" if score is None else score >= options.min_score
        if good:
            found.setdefault(canonical(inputs), {"inputs": dict(inputs), "outputs": dict(outputs)})
    return list(found.values())


def check_enough(worker: str, found: int) -> None:
    """See to it that there are enough examples.

    Raises:
        ConfigurationError: when there are too few.
    """
    if found < FEWEST:
        raise ConfigurationError(
            f'worker "{worker}" has {found} examples that are good to learn from (of completed runs, or with a high '
            f"score, each asking something else), and it takes at least {FEWEST}; let it do more, give feedback "
            f"(run.feedback), or give examples="
        )


def parted(examples: Sequence[Any], options: Options) -> tuple[list[Any], list[Any]]:
    """Examples to learn from, and those that are held out; always the same for the same seed.

    >>> parted([1, 2, 3, 4, 5, 6], Options("exact", seed=1))
    ([3, 2, 1, 5], [6, 4])
    """
    from random import Random

    shuffled = list(examples)
    Random(options.seed).shuffle(shuffled)  # noqa: S311 - it is to be the same again
    held_out = min(max(2, round(len(shuffled) * options.holdout)), len(shuffled) - 2)
    return shuffled[:-held_out], shuffled[-held_out:]
