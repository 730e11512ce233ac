"""A conversation that is saved, loaded and gone on with, until it is longer than what the model is shown of it.

``python -m examples.chatbot.main``, from the project's folder. ``--talk pirate`` lets you talk yourself, with ``--save
FILE`` to go on with it the next time.
"""

from __future__ import annotations

import faulthandler
import itertools
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from examples._support.scene import Scene, SceneError, run
from examples.chatbot.conversation import PERSONALITIES, WINDOW, Conversation, Turn
from examples.chatbot.workflow import chat_turn, help_desk

NAME = "What is my name?"


def story(scene: Scene) -> None:
    """Talk as Ann; or let whoever sits there talk."""
    if scene.options.talk:
        talk(scene, scene.options.talk, scene.options.save)
        return
    conversation = Conversation(personality="pirate")
    say(scene, conversation, "Good day, I am Ann.")
    say(scene, conversation, NAME)
    it_is_saved_and_loaded(scene, conversation)
    it_forgets_what_is_out_of_its_window(scene, conversation)
    others_talk_otherwise(scene)
    it_is_a_step(scene)


_numbers = itertools.count(1)


def say(scene: Scene, conversation: Conversation, message: str) -> Any:
    """Say something: a run answers it. How that stands then."""
    turn = scene.orchestrator.start(
        chat_turn, conversation.asked(message), transaction_id=scene.id(f"{conversation.personality}-{next(_numbers)}")
    )
    seen = scene.until(turn, lambda seen: seen.status.is_end, "its reply")
    reply = turn.result(timeout=0)["reply"]
    scene.see(seen)
    conversation.turns.append(Turn(message=message, reply=reply))
    if not scene.options.talk:
        scene.console.print(f"  you         {message}", highlight=False)
    scene.console.print(f"  {conversation.personality:<10}  {reply}", highlight=False, markup=False)
    return seen


def it_is_saved_and_loaded(scene: Scene, conversation: Conversation) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "conversation.json"
        conversation.save(path)
        loaded = Conversation.load(path)
    say(scene, loaded, NAME)
    same = loaded.turns[:-1] == conversation.turns
    scene.check("what was saved is loaded, and gone on with", same, f"{len(loaded.turns)} turns")
    reply = loaded.turns[-1].reply
    scene.check("what is in the window is known to the model", "Ann" in reply, reply, free=True)


def it_forgets_what_is_out_of_its_window(scene: Scene, conversation: Conversation) -> None:
    for number in range(WINDOW):
        say(scene, conversation, f"A wave, number {number + 1}.")
    last = say(scene, conversation, NAME)
    forgotten = "Ann" not in conversation.turns[-1].reply
    figures = f"{len(conversation.turns)} turns, of which {WINDOW} are shown"
    scene.check("what is out of the window is not known to the model", forgotten, figures, free=True)
    first, long = conversation.turns[0], last.steps["chat"].usage.input_tokens
    scene.check("and is kept all the same", "Ann" in first.message, f"{long} tokens in for the last one")


def others_talk_otherwise(scene: Scene) -> None:
    replies = set()
    for personality in PERSONALITIES:
        other = Conversation(personality=personality)
        say(scene, other, "How are you?")
        replies.add(other.turns[-1].reply)
    own = len(replies) == len(PERSONALITIES)
    scene.check("each personality has words of its own", own, f"{len(replies)} replies", free=True)


def it_is_a_step(scene: Scene) -> None:
    desk = scene.start(help_desk, "T-1", complaint="my kettle leaks")
    seen = scene.end(desk, "the chatbot as a step of a help desk", "completed", open="live")
    scene.print(f"  {seen.context['sent']}")
    reply = seen.context["reply"]
    scene.check("T-1: what is sent is what the chatbot has replied", reply in seen.context["sent"], reply)


def talk(scene: Scene, personality: str, file: str | None) -> None:
    """Read messages from the terminal until there are no more."""
    if personality not in PERSONALITIES:
        raise SceneError(f"nobody here is called {personality!r}; there are: {', '.join(PERSONALITIES)}")
    faulthandler.cancel_dump_traceback_later()
    scene.options.deadline = math.inf
    path = Path(file) if file else None
    conversation = Conversation.load(path) if path and path.exists() else Conversation(personality=personality)
    scene.print(f"You talk with a {conversation.personality}; an empty line ends it.")
    while message := read(scene):
        say(scene, conversation, message)
        if path:
            conversation.save(path)


def read(scene: Scene) -> str:
    """What somebody types; empty at the end."""
    try:
        return scene.console.input("  > ").strip()
    except EOFError:
        return ""


if __name__ == "__main__":
    options = {"--talk": f"talk yourself, with one of: {', '.join(PERSONALITIES)}", "--save": "where --talk keeps it"}
    sys.exit(run("chatbot", story, pool="threads", concurrency=4, asks=True, options=options))
