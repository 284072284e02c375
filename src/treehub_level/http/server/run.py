"""Running the application as a process of its own: address, TLS, signals, and log."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

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
from .supervisor import inherited_listener, notify
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


def check_server(hub: Hub, address: ListenAddress, tokens: Tokens | None) -> None:
    """Check that a server could start, without creating stores or listening.

    Args:
        hub: The databases.
        address: The address to listen on.
        tokens: The access tokens.

    Raises:
        ValueError: The address needs tokens or TLS: see `ListenAddress.check`.
        OSError: The certificate cannot be read.
        LevelError: The root or the tokens cannot be read.
    """
    address.check(tokens)
    hub.check_root()
    if tokens is not None:
        tokens.all()
    if address.certificate is not None:
        Certificate(address.certificate, address.key)


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
    on_reload: Callable[[], object] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then shut down gracefully.

    A graceful shutdown ends long polls and watches, lets other requests finish, and closes the
    stores. SIGHUP reads the tokens and the certificate again; if the server was started from a
    terminal that is closed, it shuts down.

    Args:
        hub: The databases.
        address: The address to listen on. A listening socket of a supervisor takes its place.
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
        on_reload: Called after SIGHUP has had the tokens and the certificate read again.

    Raises:
        ValueError: The address needs tokens or TLS: see `ListenAddress.check`; or ``proxies`` has
            an item that is no address or network.
        OSError: The address is not available, or the certificate cannot be read.
        LevelError: The stores cannot be served: see `Hub.prepare`.
    """
    inherited = inherited_listener()
    if inherited is not None:
        host, port = inherited.getsockname()[:2]
        address = replace(address, host=host, port=port)
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
    with inherited or socket.create_server((address.host, address.port), family=family) as listener:
        # Accepted sockets inherit TCP_NODELAY; asyncio does not set it. Without TCP_NODELAY, Nagle
        # and delayed ACK add 40 ms to each response.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, port = listener.getsockname()[:2]
        scheme = "http" if address.certificate is None else "https"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

        # After its shutdown uvicorn raises the signal again. The default handler would then end the
        # process by that signal instead of with exit code 0.
        previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}

        def report() -> None:
            lifecycle.listening(url)
            on_listening(url)
            notify("READY=1", f"STATUS=serving at {url}")

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
                on_reload=on_reload,
            ).run()
        finally:
            lifecycle.stopped()
            for number, handler in previous.items():
                signal.signal(number, handler)


#: Limits of open files to try where the maximum is refused.
_FILES: Final = (61_440, 10_240, 4096, 1024)


def _bounded_by_files(connections: int) -> int:
    """Raise the limit of open files to its maximum, and bound the number of connections by it.

    Each connection needs one file, and each LevelDB store about a hundred. Connections may take
    half of the files.
    """
    files = _raise_limit_of_files()
    if files is not None and files // 2 < connections:
        logger.warning("at most %d connections: this process may open only %d files", files // 2, files)
        return files // 2
    return connections


def _raise_limit_of_files() -> int | None:
    """Return the number of files that this process may open; ``None`` if it is not limited."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    present, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if present == unlimited:
        return None
    # macOS reports no maximum, but refuses more than ``kern.maxfilesperproc``.
    lower = [files for files in _FILES if files > present and (maximum == unlimited or files < maximum)]
    for files in (maximum, *lower):
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, maximum))
            return None if files == unlimited else files
    return present
