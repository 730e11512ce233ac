"""The stub itself: what it is told to answer, and what it remembers."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from multiagents.testing.lm_stub.replies import Problem, ProblemKind, Reply, Scripted, text
from multiagents.testing.lm_stub.request import LMRequest
from multiagents.testing.lm_stub.script import Matching, Script, matcher, read_script
from multiagents.testing.lm_stub.server import StubServer
from multiagents.testing.lm_stub.wire import Asked

__all__ = ["LMStub"]


class LMStub:
    """A language model on loopback that says what a test tells it to, and remembers what it was asked.

    It runs in threads of its own in a ``with`` block. Processes that are given its address all speak with this one.

    Args:
        host: where it listens.
        port: 0 for a free one. A stub that is stopped and started again has the same port.

    Attributes:
        unscripted: the requests for which there was no reply.

    >>> with LMStub() as stub:
    ...     stub.reply("Paris")
    ...     lm = dspy.LM("openai/gpt-x", api_base=stub.openai_base, api_key="x", cache=False)
    ...     lm("What is the capital of France?")
    ...     stub.count
    ['Paris']
    1
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._address = (host, port)
        self._server: StubServer | None = None
        # Guards all that follows; told of every change.
        self._changed = threading.Condition()
        self._script = Script()
        self._requests: list[LMRequest] = []
        self.unscripted: list[LMRequest] = []
        #: how often was released when they began to wait, by their identity
        self._under_way: dict[int, int] = {}
        self._peak = 0
        #: requests with a higher number wait
        self._held_after: int | None = None
        self._releases = 0
        self._starts = 0

    # --- where it is

    def start(self) -> Self:
        """Listen. A ``with`` block does it by itself."""
        server = StubServer(self._address, self)
        self._address = (self._address[0], server.server_port)
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.01,), name="lm-stub", daemon=True).start()
        return self

    def stop(self) -> None:
        """Refuse connections, and end those that there are; scripts and memory stay."""
        server, self._server = self._server, None
        if server is None:
            return
        with self._changed:
            self._starts += 1
            self._changed.notify_all()
        server.close_all()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens: ``http://127.0.0.1:41234``."""
        return f"http://{self._address[0]}:{self._address[1]}"

    @property
    def openai_base(self) -> str:
        """The ``api_base`` of an ``openai/...`` model."""
        return f"{self.url}/v1"

    @property
    def gemini_base(self) -> str:
        """The ``api_base`` of a ``gemini/...`` model."""
        return f"{self.url}/v1beta"

    # --- what it answers

    def reply(self, *scripted: Scripted) -> None:
        """Answer the next requests with these, each once, in this order; after what is still to come.

        Args:
            scripted: texts, replies as the functions beside this class make them, or functions of the `LMRequest`.

        >>> stub.reply(rate_limited(retry_after=0.1), "Paris", garbage())
        >>> lm("What is the capital of France?")  # asks twice
        ['Paris']
        """
        with self._changed:
            self._script.in_order.extend(scripted)

    def when(self, *texts: str | Callable[[LMRequest], bool], model: str | None = None) -> Matching:
        """Answer requests that match; before the replies in order, and the first that matches.

        Args:
            texts: what must all be somewhere in the messages; or functions of the `LMRequest` that must be true.
            model: its name on the wire.

        Returns:
            what takes the replies; the last one stays.

        >>> stub.when("weather", "Paris").reply("cloudy", "sunny")
        >>> [lm("The weather in Paris?") for _ in range(3)]
        [['cloudy'], ['sunny'], ['sunny']]
        """
        found = Matching(matcher(texts, model))
        with self._changed:
            self._script.matching.append(found)
        return found

    def answer_with(self, function: Callable[[LMRequest], str | Reply | None]) -> None:
        """Answer all that is not scripted otherwise with what a function makes of the `LMRequest`; None is no reply.

        >>> stub.answer_with(lambda request: request.prompt.upper())
        >>> lm("Hi")
        ['HI']
        """
        with self._changed:
            self._script.otherwise = function

    def load(self, script: Mapping[str, Any] | str | Path) -> None:
        """Add what a script says, a mapping or the path of a JSON file.

        A reply is a text, or the name of one of the functions beside this class with its arguments. All three are
        optional::

            {
                "replies": ["Paris", {"react": ["I add.", "add", {"a": 1, "b": 2}]}, {"rate_limited": {}}],
                "when": [{"texts": ["weather"], "model": "gpt-x", "replies": [{"fields": {"answer": "sunny"}}]}],
                "answer_with": "module:function"
            }

        Raises:
            ConfigurationError: when something in it has no meaning.
        """
        rules, in_order, otherwise = read_script(script)
        with self._changed:
            for matches, scripted in rules:
                rule = Matching(matches)
                rule.reply(*scripted)
                self._script.matching.append(rule)
            self._script.in_order.extend(in_order)
            self._script.otherwise = otherwise or self._script.otherwise

    def hold(self, after: int = 0) -> None:
        """Receive requests from now on without answering, until `release`; the first ``after`` of them are answered.

        What is held takes its reply when it is released, if its client still waits then: a client that was killed
        uses up none.

        >>> stub.answer_with(lambda request: request.prompt.upper())
        >>> stub.hold()
        >>> asking = Thread(target=lm, args=["Hi"])
        >>> asking.start()
        >>> [request.prompt for request in stub.wait_for(1)]  # and here its process might be killed
        ['Hi']
        >>> stub.release()
        >>> asking.join()
        """
        with self._changed:
            self._held_after = len(self._requests) + after

    def release(self) -> None:
        """Answer what is held, and all that comes; end what hangs."""
        with self._changed:
            self._held_after = None
            self._releases += 1
            self._changed.notify_all()

    def reset(self) -> None:
        """Forget scripts and requests, and release what is held: as new, at the same address."""
        self.release()
        with self._changed:
            self._script = Script()
            self._requests = []
            self.unscripted = []
            self._peak = len(self._under_way)

    # --- what it remembers

    @property
    def requests(self) -> list[LMRequest]:
        """All requests so far, in the order in which they came."""
        with self._changed:
            return list(self._requests)

    @property
    def count(self) -> int:
        """How many requests came so far, whatever they were answered."""
        return len(self.requests)

    @property
    def under_way(self) -> int:
        """How many requests are being answered now; a held one whose client has gone counts until it is released."""
        with self._changed:
            return len(self._under_way)

    @property
    def peak(self) -> int:
        """How many requests were under way at once, at most."""
        with self._changed:
            return self._peak

    def wait_for(self, count: int, timeout: float = 10.0) -> list[LMRequest]:
        """Wait until so many requests came, counted from the first, and return them.

        Args:
            count: how many there must be at least.
            timeout: seconds.

        Raises:
            TimeoutError: when there were fewer in that time; it says which.

        >>> stub.reply("Paris")
        >>> lm("What is the capital of France?")
        ['Paris']
        >>> stub.wait_for(1)[0].prompt
        'What is the capital of France?'
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= count, timeout):
                seen = "".join(f"\n{request}" for request in self._requests)
                raise TimeoutError(f"waited {timeout:g} s for {count} requests, got {len(self._requests)}{seen}")
            return list(self._requests)

    # --- what its server asks

    def take(self, asked: Asked, **known: Any) -> LMRequest:
        """Remember a request."""
        with self._changed:
            request = LMRequest(
                number=len(self._requests) + 1,
                at=time.time(),
                model=asked.model,
                messages=asked.messages,
                tools=asked.tools,
                stream=asked.stream,
                **known,
            )
            self._requests.append(request)
            self._under_way[id(request)] = self._releases
            self._peak = max(self._peak, len(self._under_way))
            self._changed.notify_all()
        return request

    def reply_to(self, request: LMRequest, connection: socket.socket) -> Reply | None:
        """Say what a request is answered, once it may be; None when nobody waits for it any more."""
        with self._changed:
            starts = self._starts
            held = False
            while self._is_held(request) and self._starts == starts:
                held = True
                self._changed.wait()
            if self._starts != starts or (held and _has_gone(connection)):
                return None
            self._under_way[id(request)] = self._releases
            scripted = self._script.take(request)
        try:
            made = scripted(request) if callable(scripted) else scripted
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is to read it
            return self._unscripted(request, f"the function that answers raised {error!r}")
        match made:
            case Reply():
                return made
            case str():
                return text(made)
            case None:
                return self._unscripted(request, self._script.why_none())
            case _:
                return self._unscripted(request, f"a reply is a text or a Reply, got {made!r}")

    def done(self, request: LMRequest) -> None:
        """Note that a request is over."""
        with self._changed:
            self._under_way.pop(id(request), None)
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the stub is stopped; false then."""
        with self._changed:
            starts = self._starts
            return self._server is not None and not self._changed.wait_for(lambda: self._starts != starts, seconds)

    def hang(self, request: LMRequest, seconds: float | None) -> None:
        """Wait so long, or until the stub is released or stopped."""
        with self._changed:
            starts, releases = self._starts, self._under_way.get(id(request))
            self._changed.wait_for(lambda: self._starts != starts or self._releases != releases, seconds)

    def _is_held(self, request: LMRequest) -> bool:
        return self._held_after is not None and request.number > self._held_after

    def _unscripted(self, request: LMRequest, why: str) -> Reply:
        """Answer with what DSPy does not try again, and a test can read."""
        self.unscripted.append(request)
        return Reply(
            problem=Problem(
                ProblemKind.UNSCRIPTED,
                400,
                f"LMStub has no reply: {why}. Script one with stub.reply(...), stub.when(...).reply(...) or "
                "stub.answer_with(function).",
                about=str(request),
            )
        )


def _has_gone(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection on which nothing was to come."""
    readable, _, _ = select.select([connection], [], [], 0)
    if not readable:
        return False
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True
