"""SIGHUP: the server reads its tokens and its certificate again, and says so in the log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from certificates import CAN_MAKE_CERTIFICATES, make_certificate

from treehub_level.http import Tokens

from .running import RunningServer, running, until

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP"),
]


def reload(server: RunningServer) -> str:
    """Send SIGHUP, and return the line of the log that reports the outcome."""
    before = server.log.read_text().count("SIGHUP")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: server.log.read_text().count("SIGHUP") > before)
    return [line for line in server.log.read_text().splitlines() if "SIGHUP" in line][-1]


def test_sighup_without_tokens_and_certificate_changes_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert "neither tokens nor a certificate" in reload(server)
        assert httpx.get(f"{server.url}/v1/notes").status_code == 200
        assert server.stop() == 0


def test_sighup_reloads_the_tokens(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    first = tokens.add(databases=["*"])
    with running(tmp_path, "--tokens", str(tokens.path)) as server:
        second = tokens.add(databases=["*"])
        line = reload(server)
        assert "reloaded 2 tokens from" in line
        assert "tokens.json" in line
        for credentials in (first, second):
            headers = {"authorization": f"Bearer {credentials}"}
            assert httpx.get(f"{server.url}/v1/notes", headers=headers).status_code == 200
        Path(tokens.path).write_text("{")
        line = reload(server)
        for part in ("ERROR", "tokens were not reloaded", "restore it"):
            assert part in line
        assert httpx.get(f"{server.url}/healthz").status_code == 200


@pytest.mark.skipif(not CAN_MAKE_CERTIFICATES, reason="openssl makes the certificate")
def test_sighup_reloads_the_certificate(tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    old = files.trusting()
    with running(tmp_path, *files.options) as server, httpx.Client(verify=old) as client:
        assert client.get(f"{server.url}/healthz").status_code == 200
        make_certificate(tmp_path)
        assert "reloaded the certificate" in reload(server)
        assert httpx.get(f"{server.url}/healthz", verify=files.trusting()).status_code == 200
        assert client.get(f"{server.url}/healthz").status_code == 200, "an open connection was closed"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/healthz", verify=old)


@pytest.mark.skipif(not CAN_MAKE_CERTIFICATES, reason="openssl makes the certificate")
def test_a_certificate_that_cannot_be_reloaded_stays_in_use(tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    trusting, certificate = files.trusting(), Path(files.certificate).read_bytes()

    def add_password() -> None:
        command = ["openssl", "ec", "-in", files.key, "-aes256", "-passout", "pass:x", "-out", files.key]
        subprocess.run(command, check=True, capture_output=True)

    def change_key() -> None:
        make_certificate(tmp_path)
        Path(files.certificate).write_bytes(certificate)

    with running(tmp_path, *files.options) as server:
        for damage in (
            add_password,
            change_key,
            lambda: Path(files.certificate).write_text("nothing"),
            lambda: os.unlink(files.certificate),
        ):
            damage()
            line = reload(server)
            for part in ("ERROR", files.certificate, "previous one stays in use"):
                assert part in line
            assert httpx.get(f"{server.url}/healthz", verify=trusting).status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="the test makes a terminal as on Linux")
def test_closing_the_terminal_stops_the_server(tmp_path: Path) -> None:
    import pty

    child, terminal = pty.fork()
    if not child:
        command = ["-m", "treehub_level", "serve", str(tmp_path / "stores"), "--create", "notes", "--port", "0"]
        os.execv(sys.executable, [sys.executable, *command])
    printed = b""
    while b"serving" not in printed:
        printed += os.read(terminal, 1000)
    os.close(terminal)
    exit_code = []

    def ended() -> bool:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            exit_code.append(os.waitstatus_to_exitcode(status))
        return bool(pid)

    until(ended)
    assert exit_code == [0]


def test_sighup_tells_which_options_of_the_file_need_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "treehub.toml"
    file.write_text("max-open = 3\n")
    with running(tmp_path, "--config", str(file)) as server:
        assert "max-open" not in reload(server)
        file.write_text("max-open = 4\nidle = 5\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "WARNING SIGHUP: the options max-open, idle in" in server.log.read_text())
        file.write_text("max-opne = 4\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "did you mean 'max-open'?; the options of the start stay in use" in server.log.read_text())
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert server.stop() == 0
