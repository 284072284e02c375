"""The interface of a process supervisor such as systemd: a listening socket, and notifications.

Both are protocols of a few lines (``sd_listen_fds(3)`` and ``sd_notify(3)``), and other supervisors
speak them, too.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import Final

#: The first descriptor that a supervisor passes.
_FIRST_DESCRIPTOR: Final = 3


def inherited_listener() -> socket.socket | None:
    """Return the listening socket that the supervisor has opened for this process, if there is one.

    While the server restarts, new connections wait in the queue of this socket. The variables of
    the environment are removed, so that no child takes the socket for its own.

    Raises:
        ValueError: The supervisor has passed something else than one listening TCP socket.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count:
        return None
    if count != "1":
        raise ValueError(
            f"the supervisor passes {count} sockets, and a server listens on one: give it one ListenStream="
        )
    listener = socket.socket(fileno=_FIRST_DESCRIPTOR)
    is_tcp = listener.family in (socket.AF_INET, socket.AF_INET6) and listener.type == socket.SOCK_STREAM
    if not is_tcp or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError(
            "the socket of the supervisor is no listening TCP socket: give ListenStream= a port, Accept=no"
        )
    os.set_inheritable(_FIRST_DESCRIPTOR, False)
    return listener


def notify(*states: str) -> None:
    """Tell the supervisor about the state of the service; do nothing without a supervisor.

    Args:
        states: Assignments such as ``READY=1``, ``STOPPING=1`` and ``STATUS=…``.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # A supervisor that does not listen any more is no reason to stop.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        sender.send("\n".join(states).encode())


def notify_reloading() -> None:
    """Tell the supervisor that a reload begins. `notify` with ``READY=1`` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
