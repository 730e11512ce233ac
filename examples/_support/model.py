"""Which model the agents of the examples ask: a real one where there is a key for it, else a stand-in.

The stand-in is a program (`examples._support.stand_in`) behind the HTTP server of `multiagents.testing.lm_stub`. It
understands nothing: it shows how a workflow runs with a model, not what a model can do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

#: What is asked where there is a key. ``MULTIAGENTS_LM`` names another model, of any provider.
MODEL = "gemini/gemini-3.8-flash"
KEYS = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
OTHER = "MULTIAGENTS_LM"
#: Its name everywhere: in `describe().steps[...].usage.models`, in `run.calls()`.
STAND_IN = "gemini/stand-in"
#: The environment variable with the stand-in's address, and the one that says that it is to be asked though there is a
#: key.
ADDRESS = "EXAMPLES_STAND_IN"
OFFLINE = "EXAMPLES_OFFLINE"


def is_real() -> bool:
    """Whether the environment has what a real model needs, and does not say that none is to be asked."""
    return any(os.environ.get(name) for name in (*KEYS, OTHER)) and not os.environ.get(OFFLINE)


def why_not() -> str:
    """Why no real model is asked."""
    return "as --offline says" if os.environ.get(OFFLINE) else f"as there is no key in {' or '.join(KEYS)}"


def chosen() -> Any:
    """What ``multiagents_lm`` is; None leaves it to ``MULTIAGENTS_LM``."""
    if (address := os.environ.get(ADDRESS)) and not is_real():
        # Else DSPy looks for a newer list of prices on the network, at its first call.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        return {"model": STAND_IN, "api_base": address, "api_key": "none", "timeout": 20}
    return None if os.environ.get(OTHER) else MODEL


def in_words(models: Iterable[str]) -> str:
    """Name the models that were asked, plainly.

    >>> in_words(["gemini/stand-in"])
    'a stand-in'
    """
    return ", ".join("a stand-in" if name == STAND_IN else name for name in sorted(set(models)))
