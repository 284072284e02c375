"""T8: clients and a server, each in its own process, over a network with random faults."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from fault_proxy import FaultProxy, Faults

from .chaos import ClientTokens, run_chaos, start_server, violations

pytestmark = pytest.mark.once

#: Seconds of faults. ``python -m tests.http.chaos`` runs longer, which finds rarer bugs.
SECONDS = 8

#: The prelude of a server that forgets its decisions on pushes, and so treats a repeated push as
#: new.
FORGETFUL = "from treehub_level.replication import server; server.read_decision = lambda *_: None; "


async def test_clients_converge_after_network_faults(tmp_path: Path) -> None:
    tokens = ClientTokens(tmp_path, 4)
    server = start_server(tmp_path, "--tokens", str(tokens.path))
    proxy = FaultProxy(server.port, Faults(), random.Random(8))
    await proxy.start()
    try:
        url = f"http://127.0.0.1:{proxy.port}/v1/notes"
        outcome = await run_chaos(tmp_path, server, proxy, url, seconds=SECONDS, restart=True, tokens=tokens)
    finally:
        await proxy.close()
        server.stop()
    assert violations(outcome) == []
    first = outcome.reports["client0"]
    assert first["cid"] > 30
    assert len(first["entries"]) > 10
    assert all(report["pairs"] and len(report["refused"]) >= 2 for report in outcome.reports.values())
    assert {"refuse", "delay", "duplicate", "cut", "late"} <= set(proxy.counts)


async def test_a_server_that_forgets_its_decisions_is_detected(tmp_path: Path) -> None:
    for attempt in range(3):  # a repeated push does harm only if others write its keys in between
        folder = tmp_path / str(attempt)
        folder.mkdir()
        server = start_server(folder, prelude=FORGETFUL)
        proxy = FaultProxy(server.port, Faults(duplicate=1, cut=0.15), random.Random(8 + attempt))
        await proxy.start()
        try:
            url = f"http://127.0.0.1:{proxy.port}/v1/notes"
            outcome = await run_chaos(folder, server, proxy, url, seconds=SECONDS)
        finally:
            await proxy.close()
            server.stop()
        if violations(outcome):
            return
    pytest.fail("the fault was not found")


@pytest.mark.parametrize(("fault", "found"), [("torn", "are refused, and present"), ("unjournaled", "does not tell")])
async def test_a_client_that_tears_or_forgets_refused_batches_is_detected(
    tmp_path: Path, fault: str, found: str
) -> None:
    server = start_server(tmp_path)
    proxy = FaultProxy(server.port, Faults(), random.Random(8))
    await proxy.start()
    try:
        url = f"http://127.0.0.1:{proxy.port}/v1/notes"
        outcome = await run_chaos(tmp_path, server, proxy, url, "--fault", fault, seconds=1, clients=1)
    finally:
        await proxy.close()
        server.stop()
    assert any(found in violation for violation in violations(outcome))


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """The paths of a certificate for the loopback address and of its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which creates the certificate, is not installed")
    certificate, key = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate, key


async def test_tls_detects_flipped_bits(tmp_path: Path, certificate: tuple[str, str]) -> None:
    server = start_server(tmp_path, "--tls-cert", certificate[0], "--tls-key", certificate[1])
    proxy = FaultProxy(server.port, Faults(refuse=0, swallow=0, duplicate=0, cut=0.02, flip=0.1), random.Random(8))
    await proxy.start()
    try:
        url = f"https://127.0.0.1:{proxy.port}/v1/notes"
        outcome = await run_chaos(tmp_path, server, proxy, url, "--certificate", certificate[0], seconds=SECONDS)
    finally:
        await proxy.close()
        server.stop()
    assert violations(outcome) == []
    assert proxy.counts["flip"] > 10
