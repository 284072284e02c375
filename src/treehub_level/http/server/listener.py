"""The listener: accepts connections and performs TLS handshakes, within the limits of the table.

asyncio's own server shows a connection to its protocol only after the TLS handshake, so that
handshakes could be neither counted nor made to give way.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from asyncio import sslproto
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from .certificate import Certificate
from .connection_table import ConnectionTable, TableEntry

#: Connections in the kernel's queue until they are accepted.
BACKLOG: Final = 2048
#: Connections accepted in one turn of the event loop, so that requests are served in between.
_BATCH: Final = 16
#: Seconds without accepting connections if the system has no file descriptor or memory for one.
_RETRY_SECONDS: Final = 0.1

#: The size of asyncio's buffer for each TLS connection, in bytes. By default it has 256 KiB, which
#: is most of the memory of an idle connection. A TLS record has at most 16 KiB.
_TLS_BUFFER_BYTES: Final = 32 << 10

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

logger = logging.getLogger("treehub_level.http")


class Listener:
    """Accepts the connections of a listening socket until it is closed.

    Args:
        listening: The listening socket.
        table: The table of connections.
        protocol: Creates the protocol of a connection.
        certificate: The certificate for TLS; ``None`` to serve without TLS.
        handshake_seconds: Seconds for a TLS handshake.
    """

    def __init__(
        self,
        listening: socket.socket,
        table: ConnectionTable,
        protocol: Callable[[TableEntry], asyncio.Protocol],
        *,
        certificate: Certificate | None,
        handshake_seconds: float,
    ) -> None:
        self._listening = listening
        self._table = table
        self._protocol = protocol
        self._certificate = certificate
        self._handshake_seconds = handshake_seconds
        self._tasks: set[asyncio.Task[None]] = set()
        if certificate is not None:
            # For the whole process, since asyncio has no parameter for it.
            sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES  # type: ignore[attr-defined]  # not in typeshed

    def start(self) -> None:
        """Start to accept connections, in a task of the running event loop."""
        self._listening.setblocking(False)
        self._listening.listen(BACKLOG)
        self._start_task(self._accept())

    async def close(self) -> None:
        """Stop accepting connections, and end unfinished handshakes."""
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for _ in range(_BATCH):
                try:
                    connection, address = await loop.sock_accept(self._listening)
                except OSError as error:
                    await self._recover(error)
                else:
                    self._connect(connection, address[0])
            await asyncio.sleep(0)

    async def _recover(self, error: OSError) -> None:
        """Wait until another connection can be accepted.

        Other errors are those of a peer that closed its connection before it was accepted.
        """
        if error.errno not in _EXHAUSTED:
            await asyncio.sleep(0)
            return
        self._table.make_room()
        logger.error("no further connection can be accepted: %s; raise the limit of open files", error.strerror)
        await asyncio.sleep(_RETRY_SECONDS)

    def _connect(self, connection: socket.socket, host: str) -> None:
        entry = self._table.admit(host, lambda: _shut_down(connection))
        if entry is None:
            connection.close()
        else:
            self._start_task(self._establish(connection, entry))

    async def _establish(self, connection: socket.socket, entry: TableEntry) -> None:
        """Perform the TLS handshake, if there is one, and connect the socket to a protocol."""
        context = None if self._certificate is None else self._certificate.context
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._protocol(entry),
                connection,
                ssl=context,
                ssl_handshake_timeout=None if context is None else self._handshake_seconds,
            )
        except OSError as error:  # a failed handshake, or a peer that is gone
            entry.remove()
            # The frames of the traceback and the error refer to each other, and the frames to the
            # buffers of TLS, which would be kept until the next collection of cycles.
            error.__traceback__ = None
        except BaseException:
            entry.remove()
            connection.close()
            raise


def _shut_down(connection: socket.socket) -> None:
    """End a connection during its handshake. The event loop then closes the socket."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
