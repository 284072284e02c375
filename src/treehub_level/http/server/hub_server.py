"""uvicorn's server with a listener of its own, over a hub of databases."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable

import uvicorn

from .certificate import Certificate
from .connection_table import ConnectionTable, TableEntry
from .connections import TimedConnection
from .hub import Hub
from .lifecycle import LifecycleLog
from .listener import Listener
from .reload import has_terminal, reload
from .supervisor import notify, notify_reloading
from .tokens import Tokens

logger = logging.getLogger("treehub_level.http")


class HubServer(uvicorn.Server):
    """A server that counts all connections, reloads at SIGHUP, and stops the hub first.

    Args:
        config: The settings of uvicorn.
        hub: The databases.
        listening: The listening socket.
        table: The table of connections.
        tokens: The access tokens, to reload.
        certificate: The TLS certificate; ``None`` to serve without TLS.
        lifecycle: Logs that the server stops.
        on_listening: Called once clients can connect.
        on_reload: Called after the tokens and the certificate were read again.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        hub: Hub,
        listening: socket.socket,
        *,
        table: ConnectionTable,
        tokens: Tokens | None,
        certificate: Certificate | None,
        lifecycle: LifecycleLog,
        on_listening: Callable[[], object],
        on_reload: Callable[[], object],
    ) -> None:
        super().__init__(config)
        self._hub = hub
        self._listening = listening
        self._tokens = tokens
        self._certificate = certificate
        self._lifecycle = lifecycle
        self._on_listening = on_listening
        self._on_reload = on_reload
        self._listener = Listener(
            listening,
            table,
            self._create_protocol,
            certificate=certificate,
            handshake_seconds=TimedConnection.header_seconds,
        )
        self._had_terminal = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the hub, accept connections, and report that clients can connect."""
        await super().startup(sockets=[])  # uvicorn itself listens on nothing
        self._handle_hangups()
        self._listener.start()
        self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, end long polls and watches, and let other requests finish."""
        notify("STOPPING=1")
        self._lifecycle.stopping()
        self._hub.stop()
        await self._listener.close()
        self._listening.close()
        await super().shutdown(sockets=[])

    def _create_protocol(self, entry: TableEntry) -> TimedConnection:
        return TimedConnection(entry, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def _handle_hangups(self) -> None:
        if not hasattr(signal, "SIGHUP"):  # Windows
            return
        # nohup ignores SIGHUP for a process that shall survive its terminal.
        self._had_terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and has_terminal()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_hangup(self) -> None:
        if self._had_terminal and not has_terminal():
            logger.info("SIGHUP: the terminal of the server was closed, so the server stops")
            self.should_exit = True
        else:
            notify_reloading()
            reload(self._tokens, self._certificate)
            self._on_reload()
            notify("READY=1")
