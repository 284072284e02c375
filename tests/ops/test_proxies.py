"""The configurations of proxies in ``examples/ops``, each with its proxy in front of a server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from certificates import CAN_MAKE_CERTIFICATES, CertificateFiles, make_certificate
from server_process import ServerProcess
from waiting import PATIENCE

from treehub_level import Level, blocking
from treehub_level.http import Tokens
from treehub_level.http.blocking import RemoteServer

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not CAN_MAKE_CERTIFICATES, reason="openssl makes the certificate"),
]

OPS = Path(__file__).parents[2] / "examples" / "ops"


def replaced(name: str, **changes: str) -> str:
    """Return a file of ``examples/ops`` with other ports and paths. Each text must occur."""
    text = (OPS / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name} lacks {old}"
        text = text.replace(old, new)
    return text


def nginx(folder: Path, files: CertificateFiles, port: int, server: int) -> list[str]:
    site = replaced(
        "nginx.conf",
        **{
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "127.0.0.1:8421": f"127.0.0.1:{server}",
            "/etc/letsencrypt/live/notes.example.org/fullchain.pem": files.certificate,
            "/etc/letsencrypt/live/notes.example.org/privkey.pem": files.key,
        },
    )
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "site.conf").write_text(site)
    (folder / "main.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off;\n{paths}include {folder}/site.conf;\n}}\n"
    )
    command = ["nginx", "-c", str(folder / "main.conf"), "-p", str(folder)]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    return command


def haproxy(folder: Path, files: CertificateFiles, port: int, server: int) -> list[str]:
    both = folder / "both.pem"
    both.write_text(Path(files.certificate).read_text() + Path(files.key).read_text())
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        replaced(
            "haproxy.cfg",
            **{
                "bind :443": f"bind 127.0.0.1:{port}",
                "127.0.0.1:8421": f"127.0.0.1:{server}",
                "/etc/haproxy/notes.example.org.pem": str(both),
            },
        )
    )
    subprocess.run(["haproxy", "-c", "-f", str(configuration)], check=True, capture_output=True)
    return ["haproxy", "-db", "-f", str(configuration)]


def caddy(folder: Path, files: CertificateFiles, port: int, server: int) -> list[str]:
    # A certificate of the test in place of one of the internet.
    text = replaced(
        "Caddyfile",
        **{
            "{$TREEHUB_HOST:localhost}": f"https://localhost:{port}",
            "{$TREEHUB_UPSTREAM:127.0.0.1:8421}": f"127.0.0.1:{server}",
            "\treverse_proxy": f"\ttls {files.certificate} {files.key}\n\treverse_proxy",
        },
    )
    configuration = folder / "Caddyfile"
    configuration.write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + text)
    return ["caddy", "run", "--config", str(configuration), "--adapter", "caddyfile"]


PROXIES: dict[str, Callable[[Path, CertificateFiles, int, int], list[str]]] = {
    "nginx": nginx,
    "haproxy": haproxy,
    "caddy": caddy,
}


class Proxied:
    """A server behind a proxy.

    Attributes:
        url: The URL of the database ``notes``, through the proxy.
        client: An HTTP client with a token.
        remote: Another client with the token.
    """

    def __init__(self, url: str, token: str, files: CertificateFiles) -> None:
        self.url = url
        self.client = httpx.Client(
            headers={"authorization": f"Bearer {token}"}, verify=files.trusting(), timeout=PATIENCE
        )
        self.remote = RemoteServer(url, token=token, ssl_context=files.trusting())


@pytest.fixture(scope="module", params=PROXIES)
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    folder = tmp_path_factory.mktemp("ops")
    files = make_certificate(folder)
    tokens = Tokens(folder / "tokens.json")
    token = tokens.add(databases=["notes"], write=True, name="ada")
    server = ServerProcess(folder / "stores", "--tokens", str(tokens.path))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("wb") as log:
        command = PROXIES[request.param](folder, files, port, server.port)
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)})
    found = Proxied(f"https://localhost:{port}/v1/notes", token, files)
    try:
        wait_until_it_serves(found, process, folder / "log")
        yield found
    finally:
        found.client.close()
        found.remote.close()
        process.terminate()
        process.wait(PATIENCE)
        server.stop()


def wait_until_it_serves(proxied: Proxied, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if proxied.client.get(proxied.url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_a_client_synchronises(proxied: Proxied, tmp_path: Path) -> None:
    with blocking.Level(tmp_path / "client", mode=Level.CLIENT) as client:
        for i in range(300):
            client.put(f"sync/{i}", "x" * 1000)
        assert client.sync(proxied.remote).pushed == 300
        with blocking.Level(tmp_path / "other", mode=Level.CLIENT) as other:
            other.sync(proxied.remote)
            assert other.count(prefix="sync/") == 300


def test_a_long_poll_is_answered_by_a_change(proxied: Proxied) -> None:
    cid = proxied.client.get(proxied.url).json()["cid"]
    found: list[dict[str, object]] = []

    def poll() -> None:
        found.append(proxied.client.get(f"{proxied.url}/changes?since={cid}&wait=30").json())

    polling = threading.Thread(target=poll)
    polling.start()
    time.sleep(0.5)
    assert not found, "the poll did not wait"
    proxied.remote.put("polled", 1)
    polling.join(PATIENCE)
    assert found[0]["changes"] == [["polled", 1]]


def test_the_events_of_a_watch_are_not_buffered(proxied: Proxied) -> None:
    with proxied.client.stream("GET", f"{proxied.url}/watch") as response:
        lines = response.iter_lines()
        for value in (1, 2):  # the stream does not end in between
            proxied.remote.put("watched", value)
            assert next(line for line in lines if line == f'data: ["watched",{value}]')


@pytest.mark.parametrize("path", ["a/b", "a%2Fb", "a//b", "%2F", "100%25", "%C3%A9"])
def test_keys_are_passed_as_they_were_sent(proxied: Proxied, path: str) -> None:
    assert proxied.client.put(f"{proxied.url}/entries/{path}", json=path).status_code == 204
    assert proxied.client.get(f"{proxied.url}/entries/{path}").json() == path


def test_a_body_that_is_too_large_gets_the_refusal_of_the_server(proxied: Proxied) -> None:
    assert proxied.client.put(f"{proxied.url}/entries/large", json="x" * (3 << 20)).status_code == 204
    refused = proxied.client.put(
        f"{proxied.url}/entries/large",
        content=b'"' + b"x" * ((16 << 20) + 10) + b'"',
        headers={"content-type": "application/json"},
    )
    assert (refused.status_code, refused.json()["code"]) == (413, "LEVEL_TOO_LARGE")
    assert refused.headers["treehub-level"] == "1"


def test_a_condition_and_a_compressed_response_pass(proxied: Proxied) -> None:
    proxied.remote.put("tagged", "x" * 5000)
    response = proxied.client.get(f"{proxied.url}/entries/tagged", headers={"accept-encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    tag = response.headers["etag"]
    again = proxied.client.get(f"{proxied.url}/entries/tagged", headers={"if-none-match": tag})
    assert again.status_code == 304
    assert proxied.client.put(f"{proxied.url}/entries/tagged", json=1, headers={"if-match": '"x"'}).status_code == 412
