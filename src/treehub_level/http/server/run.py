"""Running the application as a process of its own: address, TLS, signals, and log."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import uvicorn

from .app import LOOPBACK_HOSTS, create_app
from .certificate import Certificate
from .connection_table import ConnectionTable
from .connections import TimedConnection
from .hub import Hub
from .hub_server import HubServer
from .lifecycle import LifecycleLog
from .limits import Limits
from .logs import LogSettings, log_to_stderr
from .tokens import Tokens

logger = logging.getLogger("treehub_level.http")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenAddress:
    """The address that a server listens on, and its TLS files.

    Attributes:
        host: A host name or an IP address of this machine.
        port: The port; 0 for any free port.
        certificate: A PEM file with the TLS certificate chain.
        key: A PEM file with the private key of the certificate; by default in the same file.
        insecure: True to serve without tokens or TLS on an address that other machines can reach.
    """

    host: str = "127.0.0.1"
    port: int = 8421
    certificate: str | None = None
    key: str | None = None
    insecure: bool = False

    def check(self, tokens: Tokens | None) -> None:
        """Check that an address which other machines can reach has tokens and TLS.

        Raises:
            ValueError: Tokens or a certificate are missing, and ``insecure`` is False.
        """
        protections = (("tokens", tokens), ("certificate", self.certificate))
        missing = [name for name, protection in protections if not protection]
        if missing and not self.insecure and not is_loopback(self.host):
            raise ValueError(
                f"{self.host} can be reached from other machines, and has no {' and no '.join(missing)}: "
                "give --tokens and --tls-cert, or listen on 127.0.0.1, or accept the risk with --insecure"
            )


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach ``host``: a loopback address, or ``localhost``."""
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
    limits: Limits | None = None,
    proxies: Iterable[str] = (),
    log: LogSettings | None = None,
    on_listening: Callable[[str], object],
) -> None:
    """Serve until SIGTERM or SIGINT, then shut down gracefully.

    A graceful shutdown ends long polls and watches, lets other requests finish, and closes the
    stores. SIGHUP reads the tokens and the certificate again; if the server was started from a
    terminal that is closed, it shuts down.

    Args:
        hub: The databases.
        address: The address to listen on.
        tokens: The access tokens: see `create_app`.
        hosts: Host names to accept in ``Host``, beside those of loopback and of the address.
        origins: See `create_app`.
        compressed_requests: See `create_app`.
        grace_seconds: Seconds for requests to finish during the shutdown.
        limits: Limits on sizes, times and concurrent operations; the defaults of `Limits` if not
            given. The open files that the system allows may reduce the number of connections.
        proxies: See `create_app`.
        log: The settings of the log on stderr; the defaults of `LogSettings` if not given.
        on_listening: Called with the URL once clients can connect.

    Raises:
        ValueError: The address needs tokens or TLS: see `ListenAddress.check`; or ``proxies`` has
            an item that is no address or network.
        OSError: The address is not available, or the certificate cannot be read.
        LevelError: The stores cannot be served: see `Hub.prepare`.
    """
    address.check(tokens)
    hub.prepare()
    if tokens is not None:
        tokens.all()  # raises now, not at the first request, if the file cannot be read
    names = [*LOOPBACK_HOSTS, *hosts, f"[{address.host}]" if ":" in address.host else address.host]
    limits = limits or Limits()
    app = create_app(
        hub,
        tokens=tokens,
        hosts=names,
        origins=origins,
        compressed_requests=compressed_requests,
        limits=limits,
        proxies=proxies,
    )
    certificate = None if address.certificate is None else Certificate(address.certificate, address.key)
    app.state.dispatcher.metrics.certificate = certificate
    lifecycle = LifecycleLog(hub, tokens, certificate)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        workers=1,  # otherwise uvicorn reads WEB_CONCURRENCY
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=TimedConnection.header_bytes,
        timeout_keep_alive=int(TimedConnection.header_seconds),
        timeout_graceful_shutdown=grace_seconds,
    )
    config.load()
    log_to_stderr(log or LogSettings())
    table = ConnectionTable(_bounded_by_files(limits.connections), limits.address_connections)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.create_server((address.host, address.port), family=family) as listener:
        # Accepted sockets inherit TCP_NODELAY; asyncio does not set it. Without TCP_NODELAY, Nagle
        # and delayed ACK add 40 ms to each response.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = listener.getsockname()[:2]
        scheme = "http" if address.certificate is None else "https"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

        def report() -> None:
            lifecycle.listening(url)
            on_listening(url)

        # After its shutdown uvicorn raises the signal again. The default handler would then end the
        # process by that signal instead of with exit code 0.
        previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            HubServer(
                config,
                hub,
                listener,
                table=table,
                tokens=tokens,
                certificate=certificate,
                lifecycle=lifecycle,
                on_listening=report,
            ).run()
        finally:
            lifecycle.stopped()
            for number, handler in previous.items():
                signal.signal(number, handler)


def _bounded_by_files(connections: int) -> int:
    """Raise the limit of open files to its maximum, and bound the number of connections by it.

    Each connection needs one file, and each LevelDB store about a hundred. Connections may take
    half of the files.
    """
    with suppress(ImportError, OSError, ValueError):
        import resource

        _, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, maximum))
        if maximum != resource.RLIM_INFINITY and maximum // 2 < connections:
            logger.warning("at most %d connections: this process may open only %d files", maximum // 2, maximum)
            return maximum // 2
    return connections
