"""A conversation: who is talked with, and what was said. It is kept by whoever talks; a run gets a window of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

#: How many turns the model is shown of what was said before: older ones are kept, and cost nothing any more.
WINDOW = 4

#: What the model is told of itself.
PERSONALITIES = {
    "pirate": "You are an old pirate, loud and friendly. You speak of everything as if it were at sea.",
    "librarian": "You are a librarian, quiet and exact. You answer in one sentence, and recommend a book.",
    "coach": "You are a coach. You answer briefly, and end with one thing to do today.",
}


class Turn(BaseModel):
    """What was said, and what was answered: the two fields that `chat`'s signature has for it."""

    message: str
    reply: str


class Conversation(BaseModel):
    """A conversation with one of the personalities."""

    personality: str
    turns: list[Turn] = []

    def asked(self, message: str) -> dict[str, Any]:
        """What a run begins with that answers a message: a few hundred words, however long the conversation is."""
        recent = [turn.model_dump() for turn in self.turns[-WINDOW:]]
        personality = PERSONALITIES[self.personality]
        return {"personality": personality, "conversation": {"messages": recent}, "message": message}

    def save(self, path: Path) -> None:
        """Write all of it to a file."""
        path.write_text(self.model_dump_json(indent=2), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it from a file, to go on with it."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))
