"""A supervisor such as systemd: it passes the listening socket, and is told about the state."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from treehub_level.http.server.supervisor import inherited_listener, notify

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has neither descriptors to pass nor SIGHUP"),
]

#: Sets the variables that a supervisor sets, in the process that becomes the server.
PROGRAM = """
import os, sys
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv.pop(1))
descriptor = int(sys.argv.pop(1))
if descriptor != 3:
    os.dup2(descriptor, 3)
os.set_inheritable(3, True)
from treehub_level.cli import main
main()
"""


def start(
    folder: Path, listener: socket.socket, *, count: str = "1", notified: Path | None = None
) -> subprocess.Popen[str]:
    """Start a server with a listening socket."""
    program = [sys.executable, "-c", PROGRAM, count, str(listener.fileno()), "serve", str(folder), "--create", "notes"]
    environment = {**os.environ, **({} if notified is None else {"NOTIFY_SOCKET": str(notified)})}
    return subprocess.Popen(
        program,
        pass_fds=[listener.fileno()],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_connections_wait_while_the_server_restarts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with ended(start(tmp_path, listener)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == f"serving notes at {url}\n", "the address is that of the socket"
            assert httpx.put(f"{url}/v1/notes/entries/a", json=1).status_code == 204
            process.terminate()
            assert process.wait(30) == 0
        found: list[int] = []
        asking = threading.Thread(
            target=lambda: found.append(httpx.get(f"{url}/v1/notes/entries/a", timeout=60).json())
        )
        asking.start()  # no server runs
        with ended(start(tmp_path, listener)):
            asking.join(60)
        assert found == [1]


@pytest.mark.parametrize("kind", ["two", "udp", "connected", "unix"])
def test_another_socket_is_an_error_that_says_what_to_give(tmp_path: Path, kind: str) -> None:
    made = socket.socket(
        socket.AF_UNIX if kind == "unix" else socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
    )
    with made, ended(start(tmp_path, made, count="2" if kind == "two" else "1")) as process:
        _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "supervisor" in error
    assert "ListenStream=" in error


def test_the_sockets_of_another_process_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert inherited_listener() is None
    assert "LISTEN_FDS" not in os.environ, "a child would take them"


def test_the_supervisor_is_told_about_start_reload_and_stop(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        receiver.bind(str(path))
        receiver.settimeout(60)
        with ended(start(tmp_path / "stores", listener, notified=path)) as process:
            assert receiver.recv(1000).startswith(b"READY=1\nSTATUS=serving at http://127.0.0.1:")
            process.send_signal(signal.SIGHUP)
            assert receiver.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert receiver.recv(1000) == b"READY=1"
            process.terminate()
            assert receiver.recv(1000) == b"STOPPING=1"
            assert process.wait(60) == 0


def test_an_abstract_address_is_told_and_an_absent_supervisor_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    notify("READY=1")
    if sys.platform != "linux":
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0treehub-level-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@treehub-level-{os.getpid()}")
        notify("READY=1", "STATUS=é")
        assert receiver.recv(100).decode() == "READY=1\nSTATUS=é"
