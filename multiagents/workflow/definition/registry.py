"""The definitions that this process has built, found by name, version or content.

One name and version must mean one content wherever it runs. A process that built another shape under the same label
would decide runs by rules that they did not start with; so that is refused at once, and the difference is spelt out.
"""

from __future__ import annotations

from multiagents.exceptions import DefinitionError, WorkflowNotFoundError, did_you_mean
from multiagents.workflow.definition.definition import Definition
from multiagents.workflow.definition.diff import changes

__all__ = ["DefinitionRegistry", "definitions", "next_version"]


class DefinitionRegistry:
    """Keep the definitions of a process.

    >>> from multiagents import WorkflowBuilder
    >>> registry = DefinitionRegistry()
    >>> order = WorkflowBuilder("order").add_step("reserve", "reserve_stock").build(register=False)
    >>> registry.register(order)
    <Definition 'order' version '1': 1 step, 5979ca40>
    >>> registry.get("order") is order
    True
    """

    def __init__(self) -> None:
        self._versions: dict[str, dict[str, Definition]] = {}
        self._by_hash: dict[str, Definition] = {}

    def register(self, definition: Definition) -> Definition:
        """Add a definition and return it. An equal one is replaced, so that a reloaded module's code counts.

        Raises:
            DefinitionError: when another content is registered under this name and version.
        """
        versions = self._versions.setdefault(definition.name, {})
        existing = versions.get(definition.version)
        if existing is not None and existing != definition:
            raised = f'WorkflowBuilder("{definition.name}", version="{next_version(definition.version)}")'
            raise DefinitionError(
                f'workflow "{definition.name}" version "{definition.version}" is registered already with other '
                f"content: {changes(existing, definition)}. Runs in flight, and processes not yet deployed, know it as "
                f"it was: raise the version, e.g. {raised}"
            )
        versions[definition.version] = self._by_hash[definition.content_hash] = definition
        return definition

    def get(self, name: str, version: str | None = None) -> Definition:
        """The definition of this name and version; without a version, the one whose version was registered last.

        Raises:
            WorkflowNotFoundError: when it was not built in this process.
        """
        versions = self._versions.get(name)
        if versions is None:
            raise WorkflowNotFoundError(
                name,
                f'no workflow named "{name}" is registered here{did_you_mean(name, self._versions)} (registered: '
                f"{', '.join(self.names()) or 'none'}); import the module that builds it",
            )
        if version is None:
            return list(versions.values())[-1]
        if version not in versions:
            raise WorkflowNotFoundError(
                name,
                f'workflow "{name}" has no version "{version}" here (registered: {", ".join(versions)}); build that '
                f"version too, or name one of these",
            )
        return versions[version]

    def meant(self, workflow: Definition | str, by: str) -> Definition:
        """The definition that somebody gave, or named.

        Args:
            workflow: a definition, or the name of one that was built here.
            by: who takes it, for the message.

        Raises:
            WorkflowNotFoundError: when no workflow of this name was built in this process.
            DefinitionError: when it is neither: such as a builder whose ``build()`` was forgotten.
        """
        if isinstance(workflow, Definition):
            return workflow
        if isinstance(workflow, str):
            return self.get(workflow)
        given: object = workflow
        if callable(getattr(given, "build", None)):
            raise DefinitionError(
                f'{by} was given the builder of workflow "{getattr(given, "name", "?")}", and takes what it builds: '
                f"end it with .build()"
            )
        raise DefinitionError(
            f"{by} was given {given!r:.80}; expected a definition, as WorkflowBuilder(...).build() returns it, or the "
            f"name of one"
        )

    def by_hash(self, content_hash: str) -> Definition | None:
        """The definition with this content, or None when it was not built in this process."""
        return self._by_hash.get(content_hash)

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of a workflow that this process has built; none of one that it does not know."""
        return tuple(self._versions.get(name, ()))

    def names(self) -> tuple[str, ...]:
        """The names of all registered workflows, sorted."""
        return tuple(sorted(self._versions))

    def clear(self) -> None:
        """Forget every definition: for tests that build many workflows under one name."""
        self._versions.clear()
        self._by_hash.clear()


def next_version(version: str) -> str:
    """A version to raise to."""
    return str(int(version) + 1) if version.isdecimal() else f"{version}-2"


#: The definitions that `WorkflowBuilder.build` registers.
definitions = DefinitionRegistry()
