"""What the stand-in says in this example, where there is no key for a real model: it knows names, and little else."""

from __future__ import annotations

import re
from typing import Any

from examples._support.stand_in import Asked, says

MANNERS = {
    "pirate": "Arr! {}, sailor.",
    "librarian": "{}; there is a book about that.",
    "coach": "{}. Now take a walk.",
}


@says("reply")
def reply(asked: Asked) -> dict[str, Any]:
    """Answer what the name is, if it was said in the messages that it is shown; else say how many these are."""
    said = [fields.get("message", "") for role, fields in asked.earlier if role == "user"]
    names = re.findall(r"I am (\w+)", " ".join([*said, asked["message"]]))
    if "my name" in asked["message"]:
        words = f"Your name is {names[-1]}" if names else "I do not know your name"
    elif "I am" in asked["message"]:
        words = f"Welcome, {names[-1]}"
    else:
        words = f"That is message {len(said) + 1} that I know of"
    manner = next(manner for who, manner in MANNERS.items() if who in asked["personality"])
    return {"reply": manner.format(words)}
