"""The HTTP side of the stub: one thread for each connection, each answer (or event) in one write."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from multiagents.testing.lm_stub.gemini import Gemini
from multiagents.testing.lm_stub.openai_chat import OpenAIChat
from multiagents.testing.lm_stub.replies import Reply
from multiagents.testing.lm_stub.request import LMRequest
from multiagents.testing.lm_stub.wire import Asked, Wire

__all__ = ["Answering", "StubServer"]

_WIRES: tuple[Wire, ...] = (OpenAIChat(), Gemini())
_KEYS = {"authorization", "api-key", "x-api-key", "x-goog-api-key"}
_NO_JSON = b"<html><body>502 Bad Gateway</body></html>"


class Answering(Protocol):
    """Who decides what is answered: the stub."""

    def take(self, asked: Asked, **known: Any) -> LMRequest:
        """Remember a request."""

    def reply_to(self, request: LMRequest, connection: socket.socket) -> Reply | None:
        """Wait until the request may be answered, and say with what; None when nobody waits for it any more."""

    def done(self, request: LMRequest) -> None:
        """Note that a request is over, however it ended."""

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the stub is stopped; false then."""

    def hang(self, request: LMRequest, seconds: float | None) -> None:
        """Wait so long, or until the stub is released or stopped."""


class StubServer(ThreadingHTTPServer):
    """Listen on loopback, and forget no connection: they all end with the server."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], stub: Answering) -> None:
        self.stub = stub
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note a new connection."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that has ended."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away; that is what tests do."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def close_all(self) -> None:
        """Stop listening, and end every connection."""
        self.shutdown()
        self.server_close()
        with self._lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it has ended by itself


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Beside the single writes: a delayed acknowledgement would cost each call 40 ms.
    disable_nagle_algorithm = True
    server: StubServer

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        try:
            body = json.loads(raw)
            read = ((wire, wire.read(url.path, body)) for wire in _WIRES)
            found = next(((wire, asked) for wire, asked in read if asked is not None), None)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self._refuse(400, f"the body cannot be read as a request ({error!r}), got {raw[:60]!r}")
            return
        if found is None:
            known = "POST .../chat/completions and .../models/<model>:generateContent"
            self._refuse(404, f"the stub has {known}, got {url.path}")
            return
        self._answer(*found, body, url.query)

    def do_GET(self) -> None:
        self._refuse(404, f"the stub answers only POST, got GET {urlsplit(self.path).path}")

    def log_message(self, *_: Any) -> None:
        """Stay silent; `LMStub.requests` tells what came."""

    def _answer(self, wire: Wire, asked: Asked, body: Mapping[str, Any], query: str) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        stub = self.server.stub
        request = stub.take(
            asked,
            wire=wire.name,
            headers={name: value for name, value in headers.items() if name not in _KEYS},
            has_key=not _KEYS.isdisjoint(headers) or "key" in parse_qs(query),
            body=body,
        )
        try:
            reply = stub.reply_to(request, self.connection)
            if reply is None or not self._wait_for(reply, request):
                self.close_connection = True
            elif request.stream and reply.problem is None and reply.fault != "garbage":
                self._send_events(wire, reply, request)
            else:
                # Before the answer is sent: whoever has read it may ask again before this thread goes on.
                stub.done(request)
                self._send_whole(wire, reply, request)
        except OSError:
            self.close_connection = True  # the client has gone
        finally:
            stub.done(request)

    def _wait_for(self, reply: Reply, request: LMRequest) -> bool:
        """Wait as long as the reply takes; whether it is to be sent."""
        if reply.fault == "hang":
            self.server.stub.hang(request, reply.delay)
            return False
        pauses = 0.0 if request.stream else reply.pause * (len(reply.pieces) - 1)
        return self.server.stub.wait((reply.delay or 0.0) + pauses)

    def _send_whole(self, wire: Wire, reply: Reply, request: LMRequest) -> None:
        if reply.fault == "garbage":
            self._send(200, "text/html", _NO_JSON)
        elif (problem := reply.problem) is not None:
            extra = {} if problem.retry_after is None else {"Retry-After": f"{problem.retry_after:g}"}
            self._send(problem.status, "application/json", json.dumps(wire.error(problem)).encode(), extra)
        else:
            content = json.dumps(wire.answer(reply, request)).encode()
            self._send(200, "application/json", content, cut=reply.fault == "cut")

    def _refuse(self, status: int, message: str) -> None:
        self._send(status, "application/json", json.dumps({"error": {"message": message, "code": status}}).encode())

    def _send(
        self, status: int, kind: str, content: bytes, extra: Mapping[str, str] | None = None, *, cut: bool = False
    ) -> None:
        head = self._head(status, {"Content-Type": kind, "Content-Length": str(len(content)), **(extra or {})})
        self.close_connection = self.close_connection or cut
        self.wfile.write(head + (content[: len(content) // 2] if cut else content))

    def _send_events(self, wire: Wire, reply: Reply, request: LMRequest) -> None:
        events = wire.events(reply, request)
        if reply.fault == "cut":
            events = events[: len(events) // 2]
        first = self._head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        for number, event in enumerate(events):
            if number and not self.server.stub.wait(reply.pause):
                self.close_connection = True
                return
            data = f"data: {event}\n\n".encode()
            self.wfile.write((b"" if number else first) + b"%x\r\n%s\r\n" % (len(data), data))
        self.server.stub.done(request)
        if reply.fault == "cut":
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _head(self, status: int, headers: Mapping[str, str]) -> bytes:
        known = {one.value: one.phrase for one in HTTPStatus}
        lines = [
            f"HTTP/1.1 {status} {known.get(status, 'Unknown')}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode()
