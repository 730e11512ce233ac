"""A TCP balancer: new connections go to the server of the hour, those that there are stay where they are."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Balancer:
    """Listen on a port of its own, and hand on what comes, as a service IP, a DNS name or a proxy does.

    Args:
        port: the server's that new connections go to; change ``target`` to move it.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        #: when set, what is answered to all that is asked on the connections that there are
        self.says: bytes | None = None
        self._old: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)

    @property
    def url(self) -> str:
        """Its URL, database 0."""
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def answer_old_ones(self, says: bytes) -> None:
        """Let the server refuse whatever is asked on the connections that there are; new ones are served."""
        self.says = says
        self._old = set(self._open)

    def __enter__(self) -> Self:
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.close()
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._open.add(near)
                threading.Thread(target=self._serve, args=[near], daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError), near, socket.create_connection(("127.0.0.1", self.target)) as far:
            threading.Thread(target=self._back, args=[near, far], daemon=True).start()
            while data := near.recv(65536):
                if near in self._old and self.says is not None:
                    near.sendall(self.says)
                else:
                    far.sendall(data)
        self._open.discard(near)

    def _back(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                near.sendall(data)
        with contextlib.suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)
