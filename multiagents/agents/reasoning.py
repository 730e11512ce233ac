"""How an agent comes to its answer, by name."""

from __future__ import annotations

from enum import StrEnum

from multiagents.exceptions import ConfigurationError, did_you_mean


class Reasoning(StrEnum):
    """How an agent comes to its answer. The words are ours: which class of DSPy stands behind one may change."""

    #: one call of the model
    PREDICT = "predict"
    #: one call, in which the model first says how it comes to the answer
    CHAIN_OF_THOUGHT = "chain_of_thought"
    #: calls of tools, one after the other, until the model has what it needs
    REACT = "react"
    #: code that the model writes, for mathematics; it runs in a sandbox
    PROGRAM_OF_THOUGHT = "program_of_thought"
    #: the same, and the code may call tools
    CODEACT = "codeact"

    @property
    def takes_tools(self) -> bool:
        """Whether it calls tools."""
        return self in (Reasoning.REACT, Reasoning.CODEACT)

    @property
    def writes_code(self) -> bool:
        """Whether the model writes code, so that values are handed to it as they are."""
        return self in (Reasoning.PROGRAM_OF_THOUGHT, Reasoning.CODEACT)

    @classmethod
    def named(cls, name: str, worker: str) -> Reasoning:
        """The one of this name.

        Raises:
            ConfigurationError: when there is none.
        """
        try:
            return cls(name)
        except ValueError:
            raise ConfigurationError(
                f'worker "{worker}" has reasoning={name!r}, which there is not{did_you_mean(str(name), list(cls))} '
                f"(there are: {', '.join(cls)})"
            ) from None
