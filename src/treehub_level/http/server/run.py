"""Running the application alone: the address, TLS, the signals, the log."""

from __future__ import annotations

import ipaddress
import logging
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import uvicorn

from .app import LOOPBACK, create_app
from .connections import TimedConnection
from .hub import Hub
from .tokens import Tokens

#: The most bytes of a request's line and headers.
_HEADER_BYTES: Final = 16 << 10
#: The most connections at a time. uvicorn refuses further ones with 503.
_CONNECTIONS: Final = 2000
#: The most characters of a log line.
_LINE: Final = 1000


#: What is logged, from where. uvicorn's own line a request has the URL in it, and so is not wanted.
_LOGGERS: Final = {"treehub_level.http": logging.INFO, "uvicorn": logging.WARNING, "asyncio": logging.WARNING}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenAddress:
    """Where a server listens, and what protects it there.

    Attributes:
        host: A name or an address of this machine.
        port: The port; 0 for any that is free.
        certificate: A file with the TLS certificate and those that it depends on, in PEM.
        key: A file with its key.
        insecure: Whether an address that others can reach needs neither tokens nor TLS.
    """

    host: str = "127.0.0.1"
    port: int = 8421
    certificate: str | None = None
    key: str | None = None
    insecure: bool = False

    def check(self, tokens: Tokens | None) -> None:
        """Refuse to serve strangers without protection.

        Raises:
            ValueError: Others can reach this address, and something is missing.
        """
        missing = [what for what, is_there in (("tokens", tokens), ("certificate", self.certificate)) if not is_there]
        if missing and not self.insecure and not is_loopback(self.host):
            raise ValueError(
                f"{self.host} can be reached from other machines, and has no {' and no '.join(missing)}: "
                "give --tokens and --tls-cert, or listen on 127.0.0.1; --insecure serves all the same"
            )


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only. Of names, none but ``localhost`` is sure to be."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def serve(
    hub: Hub,
    address: ListenAddress,
    *,
    tokens: Tokens | None = None,
    hosts: Iterable[str] = (),
    origins: Iterable[str] = (),
    compressed_requests: bool = False,
    grace_seconds: int = 10,
    listening: Callable[[str], object],
) -> None:
    """Serve until SIGTERM or SIGINT: then end what waits, finish what runs, and close the stores.

    Args:
        hub: The databases.
        address: Where to listen.
        tokens: Who may do what.
        hosts: Names that the server answers to, beside those of the loopback interface and that of the address.
        origins: See `create_app`.
        compressed_requests: See `create_app`.
        grace_seconds: How long requests may take to finish once the server stops.
        listening: Called with the URL, once clients can connect.

    Raises:
        ValueError: The address needs protection: see `ListenAddress.check`.
        OSError: The address cannot be listened on, or the certificate not be read.
        LevelError: See `Hub.prepare`.
    """
    address.check(tokens)
    hub.prepare()
    if tokens is not None:
        tokens.all()  # raises now, not at the first request, if they cannot be read
    names = [*LOOPBACK, *hosts, f"[{address.host}]" if ":" in address.host else address.host]
    app = create_app(hub, tokens=tokens, hosts=names, origins=origins, compressed_requests=compressed_requests)
    config = uvicorn.Config(
        app,
        http=TimedConnection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=int(TimedConnection.header_seconds),
        timeout_graceful_shutdown=grace_seconds,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )
    config.load()
    _log_to_stderr()
    _allow_many_files()
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.create_server((address.host, address.port), family=family) as listener:
        # Connections inherit it, and asyncio leaves them without: each answer would wait 40 ms for the client's nod.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = listener.getsockname()[:2]
        scheme = "http" if address.certificate is None else "https"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        # uvicorn sends the signal that ended it once more, to whoever listened before: that shall not end us.
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            _Server(config, hub, lambda: listening(url)).run(sockets=[listener])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Server(uvicorn.Server):
    """uvicorn's server, which tells when it listens, and tells the hub first when it stops."""

    def __init__(self, config: uvicorn.Config, hub: Hub, listening: Callable[[], object]) -> None:
        super().__init__(config)
        self._hub = hub
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._hub.stop()
        await super().shutdown(sockets)


class OneLine(logging.Formatter):
    """Log lines that are lines, and not long ones, whatever is in them."""

    _CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

    def format(self, record: logging.LogRecord) -> str:
        """A record as one line."""
        line = self._CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", super().format(record))
        return line if len(line) <= _LINE else line[:_LINE] + "…"


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
    for name, level in _LOGGERS.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers = [handler]
        logger.propagate = False


def _allow_many_files() -> None:
    """Let this process open as many files as it may: each connection is one, and each database some hundred."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
