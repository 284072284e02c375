"""A TCP relay in front of PostgreSQL, which can drop a connection at a COMMIT."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Final

#: The end of the message that commits a transaction.
_COMMIT: Final = b"COMMIT\0"


class Relay:
    """A relay, which is closed at the end of its ``with`` block.

    Args:
        port: The port of the server, on loopback.

    Attributes:
        port: The port of the relay.
        drop: The part of the next COMMIT to drop: ``"reply"``, the reply of the server;
            ``"commit"``, the COMMIT itself; ``None`` for neither.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.drop: str | None = None
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def cut(self) -> None:
        """Break all connections."""
        for one in [*self._sockets]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with suppress(OSError):
                    server = socket.create_connection(("127.0.0.1", self._target))
                    self._sockets |= {client, server}
                    self._start(self._pump, client, server)
                    self._start(self._pump, server, client)
                    continue
                client.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Forward one direction of a connection until one end closes it."""
        with suppress(OSError):
            while data := source.recv(65_536):
                drop = None
                if data.endswith(_COMMIT):
                    drop, self.drop = self.drop, None
                if drop == "commit":
                    break
                if drop == "reply":
                    # Forward nothing back from now on. The server's end stays open for the reply.
                    source.shutdown(socket.SHUT_WR)
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
