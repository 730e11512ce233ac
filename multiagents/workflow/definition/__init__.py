"""What a workflow is, as frozen data: its steps, their order, its hash. Begin with `definition.Definition`.

Written by the builder, kept by the stores under its content hash, read by everything else; nothing here changes once
it is made. What a run adds to it (the items of a map, the passes of a save-point) is a definition of its own:
`Definition.expanded`.
"""

from __future__ import annotations

from multiagents.workflow.definition.definition import Definition
from multiagents.workflow.definition.diff import changes
from multiagents.workflow.definition.key_template import checked_key, filled_template, template_fields
from multiagents.workflow.definition.map_items import ITEM_KEYS, item_name, map_of
from multiagents.workflow.definition.rate_limit import Limit
from multiagents.workflow.definition.registry import DefinitionRegistry, definitions, next_version
from multiagents.workflow.definition.step import ON_UNKNOWN, BlockDefinition, StepDefinition, StepKind, code_elsewhere
from multiagents.workflow.definition.tool_calls import call_name, maker_of

__all__ = [
    "ITEM_KEYS",
    "ON_UNKNOWN",
    "BlockDefinition",
    "Definition",
    "DefinitionRegistry",
    "Limit",
    "StepDefinition",
    "StepKind",
    "call_name",
    "changes",
    "checked_key",
    "code_elsewhere",
    "definitions",
    "filled_template",
    "item_name",
    "maker_of",
    "map_of",
    "next_version",
    "template_fields",
]
