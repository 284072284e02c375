"""T8: clients, each in a process of its own, and a server in another, over a network that is as bad as it gets."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .fault_proxy import FaultProxy, Faults
from .processes import ServerProcess

pytestmark = pytest.mark.once

#: Seconds of turmoil; much longer runs find rarer faults.
SECONDS = float(os.environ.get("TREEHUB_LEVEL_NETWORK_SECONDS", "8"))
#: Seconds in which all must be equal again once the network is well.
HEALED = 60.0
STYLES = ["live", "sync", "live", "sync"]

#: A server that keeps no record of what it has decided on.
FORGETFUL = "from treehub_level.replication import server; server.read_decision = lambda *_: None; "


class ClientProcess:
    """A client in a process of its own: see ``client_process.py``."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self.name = name

    @classmethod
    async def start(cls, folder: Path, name: str, url: str, *arguments: str) -> ClientProcess:
        script = str(Path(__file__).with_name("client_process.py"))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            script,
            str(folder / name),
            name,
            url,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
        )
        return cls(process, name)

    def tell(self) -> None:
        """Let it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def answer(self) -> str:
        """What it says."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode()

    async def end(self) -> None:
        """Wait until it has ended; kill it if it does not by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()


async def turmoil(
    folder: Path, server: ServerProcess, proxy: FaultProxy, url: str, *arguments: str, restart: bool = False
) -> tuple[list[Any], list[Any]]:
    """Let clients write and synchronise through the proxy, then heal it: what each has in the end, and its name."""
    clients = [
        await ClientProcess.start(folder, f"client{number}", url, style, *arguments)
        for number, style in enumerate(STYLES)
    ]
    try:
        await asyncio.sleep(SECONDS / 2)
        if restart:
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
        await asyncio.sleep(SECONDS / 2)
        for client in clients:
            client.tell()
        await proxy.heal()
        drained = await asyncio.wait_for(asyncio.gather(*(client.answer() for client in clients)), HEALED)
        assert drained == ["drained\n"] * len(clients)
        for client in clients:
            client.tell()
        reports = await asyncio.wait_for(asyncio.gather(*(client.answer() for client in clients)), HEALED)
        return [json.loads(report) for report in reports], [client.name for client in clients]
    finally:
        for client in clients:
            await client.end()


def faults_in(reports: list[Any], names: list[str]) -> list[str]:
    """What is wrong with what the clients have in the end."""
    wrong = []
    for name, report in zip(names, reports, strict=True):
        if (report["cid"], report["entries"]) != (reports[0]["cid"], reports[0]["entries"]):
            wrong.append(f"{name} differs from {names[0]}")
        own = [entry for entry in report["entries"] if entry[0].startswith(f"{name}/")]
        if own != report["written"]:
            wrong.append(f"{name} wrote {report['written']}, and there is {own}")
        if any(key.startswith(f"{name}/") for key in report["conflicts"]):
            wrong.append(f"{name} lost to itself")
    return wrong


async def test_clients_converge_once_a_bad_network_is_well_again(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "stores")
    proxy = FaultProxy(server.port, Faults(), random.Random(8))
    await proxy.start()
    try:
        url = f"http://127.0.0.1:{proxy.port}/v1/notes"
        reports, names = await turmoil(tmp_path, server, proxy, url, restart=True)
    finally:
        await proxy.close()
        server.stop()
    assert faults_in(reports, names) == []
    assert reports[0]["cid"] > 100
    assert len(reports[0]["entries"]) > 10
    assert {"refuse", "delay", "duplicate", "cut", "late"} <= set(proxy.happened)


async def test_a_server_that_forgets_its_decisions_is_found_out(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "stores", prelude=FORGETFUL)
    proxy = FaultProxy(server.port, Faults(duplicate=1, cut=0.15), random.Random(8))
    await proxy.start()
    try:
        url = f"http://127.0.0.1:{proxy.port}/v1/notes"
        reports, names = await turmoil(tmp_path, server, proxy, url)
    finally:
        await proxy.close()
        server.stop()
    assert faults_in(reports, names) != []


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A certificate for loopback, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    certificate, key = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate, key


async def test_tls_notices_bytes_that_are_flipped(tmp_path: Path, certificate: tuple[str, str]) -> None:
    server = ServerProcess(tmp_path / "stores", "--tls-cert", certificate[0], "--tls-key", certificate[1])
    proxy = FaultProxy(server.port, Faults(refuse=0, swallow=0, duplicate=0, cut=0.02, flip=0.1), random.Random(8))
    await proxy.start()
    try:
        url = f"https://127.0.0.1:{proxy.port}/v1/notes"
        reports, names = await turmoil(tmp_path, server, proxy, url, certificate[0])
    finally:
        await proxy.close()
        server.stop()
    assert faults_in(reports, names) == []
    assert proxy.happened["flip"] > 10
