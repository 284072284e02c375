"""The environment of a client: no error of a library below reaches a user."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from scripted_server import ScriptedHandler, running

from treehub_level import TransportError
from treehub_level.http import RemoteServer
from treehub_level.http import blocking as http_blocking
from treehub_level.http.client import environment

pytestmark = pytest.mark.once

URL = "http://127.0.0.1:9/v1/notes"
PROXY = "http://127.0.0.1:9"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def proxy() -> Iterator[Any]:
    """An HTTP proxy that answers every request itself, and records its targets in ``targets``."""

    class Handler(ScriptedHandler):
        protocol_version = "HTTP/1.0"  # a connection for each request

        def answer(self) -> None:
            server.targets.append(self.path)
            self.respond(200, {"Treehub-Level": "1", "Content-Type": "application/json"}, b'{"cid": 7}')

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        server.targets = []
        yield server


def call(url: str = URL) -> Any:
    with http_blocking.RemoteServer(url, retries=0, timeout=5) as remote:
        return remote.info()


# ----------------------------------------------------------------------------------------- proxies


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_used(proxy: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, proxy.url)
    assert call("http://example.org/v1/notes") == {"cid": 7}
    assert proxy.targets == ["http://example.org/v1/notes"]


@pytest.mark.parametrize("excluded", ["127.0.0.0/8", "[::1],127.0.0.1", "fd00::/8 127.0.0.1:*,127.0.0.1", "*"])
def test_a_host_in_no_proxy_is_reached_directly(proxy: Any, monkeypatch: pytest.MonkeyPatch, excluded: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", excluded)
    assert call(f"{proxy.url}/v1/notes") == {"cid": 7}
    assert proxy.targets == ["/v1/notes"]


@pytest.mark.parametrize(
    ("url", "no_proxy", "is_excluded"),
    [
        ("http://[::1]/v1/x", "[::1]", True),
        ("http://[::1]/v1/x", "::1", True),
        ("http://[::1]:81/v1/x", "[::1]:81", True),
        ("http://[::1]:81/v1/x", "[::1]:82", False),
        ("http://[fd12::7]/v1/x", "fd00::/8", True),
        ("http://[fd12::7]/v1/x", "[fd00::]/8", True),
        ("http://[fe80::7]/v1/x", "fd00::/8", False),
        ("http://10.1.2.3/v1/x", "10.0.0.0/8", True),
        ("http://10.1.2.3/v1/x", "10.1.2.3", True),
        ("http://10.1.2.3/v1/x", "10.1.2", False),
        ("http://11.1.2.3/v1/x", "10.0.0.0/8,::/0", False),
        ("http://example.org/v1/x", "0.0.0.0/0", False),
        ("http://example.org/v1/x", "example.org", True),
        ("http://Example.Org/v1/x", "EXAMPLE.org", True),
        ("http://a.example.org/v1/x", "example.org", True),
        ("http://a.example.org/v1/x", ".example.org", True),
        ("http://a.example.org/v1/x", "*.example.org", True),
        ("http://example.org/v1/x", ".example.org", False),
        ("http://badexample.org/v1/x", "example.org", False),
        ("http://example.org/v1/x", "example.org:80", True),
        ("https://example.org/v1/x", "example.org:80", False),
        ("https://example.org/v1/x", "http://example.org", False),
        ("https://example.org/v1/x", "https://example.org", True),
        ("https://example.org/v1/x", "all://example.org", True),
        ("http://example.org/v1/x", "*", True),
        ("http://example.org/v1/x", " a , example.org", True),
        ("http://example.org/v1/x", "", False),
        ("http://example.org/v1/x", ".,*.,://,http://[::,[,],::/999,é,http:///", False),
    ],
)
def test_no_proxy_lists_names_addresses_and_networks(url: str, no_proxy: str, is_excluded: bool) -> None:
    assert environment.is_excluded(urlsplit(url), no_proxy) is is_excluded


@pytest.mark.parametrize(
    ("proxy_url", "reason"),
    [
        ("socks5://me:hunter2@127.0.0.1:9", "socksio"),
        ("socks4://me:hunter2@127.0.0.1:9", "'socks4' is none of"),
        ("foo://me:hunter2@127.0.0.1:9", "'foo' is none of"),
        ("http://me:hunter2@127.0.0.1:port", "no URL"),
        ("http://me:hunter2@127.0.0.1:99999", "no URL"),
        ("http://me:hunter2@[::1", "no URL"),
        ("http://me:hunter2@", "no URL"),
        ("http://me:hunter2@" + "a" * 70 + ".org", "no URL"),
        ("http://me:hunter2@host\x01", "no URL"),
        ("http://me:hunter2@\udcff", "no URL"),
    ],
)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, variable: str, proxy_url: str, reason: str
) -> None:
    monkeypatch.setattr(environment, "find_spec", lambda _: None)
    monkeypatch.setenv(variable, proxy_url)
    with pytest.raises(TransportError, match=f"{variable} cannot be used: .*{reason}") as raised:
        call()
    error: BaseException | None = raised.value
    while error is not None:
        assert "hunter2" not in str(error)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("proxy_url", "error"),
    [
        ("socks5://127.0.0.1:9", ImportError),
        ("foo://127.0.0.1:9", ValueError),
        ("http://127.0.0.1:port", httpx.InvalidURL),
    ],
)
def test_control_a_proxy_that_is_not_checked_raises_the_error_of_a_library(
    monkeypatch: pytest.MonkeyPatch, proxy_url: str, error: type[Exception]
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setattr(environment, "proxy_for", lambda url: httpx.Proxy(proxy_url))
    with pytest.raises(error):
        call()


async def test_a_proxy_that_cannot_be_used_fails_a_call_of_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "foo://127.0.0.1")
    async with RemoteServer(URL) as remote:
        with pytest.raises(TransportError, match="HTTP_PROXY"):
            await remote.info()
        monkeypatch.delenv("HTTP_PROXY")
        with pytest.raises(TransportError, match="could not be reached"):
            await remote.info()


def test_a_name_that_cannot_be_looked_up_is_an_unreachable_server() -> None:
    with pytest.raises(TransportError, match="could not be reached"):
        call(f"http://{'a' * 70}.org/v1/notes")


# --------------------------------------------------------------------------------------------- TLS


def missing(folder: Path) -> str:
    return str(folder / "missing" / "file")


def junk(folder: Path) -> str:
    (folder / "junk").write_text("no certificate")
    return str(folder / "junk")


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"])
@pytest.mark.parametrize("value_of", [missing, str, junk])
def test_certificates_and_keys_that_cannot_be_used_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value_of: Callable[[Path], str]
) -> None:
    monkeypatch.setenv(variable, value_of(tmp_path))
    usable = {"SSL_CERT_DIR": str, "SSLKEYLOGFILE": junk}.get(variable) is value_of
    reason = "could not be reached" if usable else f"{variable} cannot be used"
    with pytest.raises(TransportError, match=reason):
        call("https://127.0.0.1:9/v1/notes")
    with pytest.raises(TransportError, match="could not be reached"):
        call()


def test_control_certificates_that_are_not_checked_raise_the_error_of_a_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", missing(tmp_path))
    monkeypatch.setattr(environment, "_context", lambda variable, create: create())
    with pytest.raises(FileNotFoundError):
        call("https://127.0.0.1:9/v1/notes")


def test_a_certificate_file_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    certifi = pytest.importorskip("certifi")
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    context = environment.network_options("https://example.org/v1/x", None)[0]
    assert isinstance(context, ssl.SSLContext)
    assert context.get_ca_certs()
    assert context.check_hostname


def test_netrc_is_not_read(proxy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("syntax error\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert call(f"{proxy.url}/v1/notes") == {"cid": 7}


# -------------------------------------------------------------------------------------- the server


def test_a_server_does_not_read_the_variables_of_uvicorn(tmp_path: Path) -> None:
    variables = {"WEB_CONCURRENCY": "junk", "FORWARDED_ALLOW_IPS": "junk", "UVICORN_PORT": "junk", "UVICORN_SSL": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "treehub_level.cli", "serve", str(tmp_path), "--create", "notes", "--port", "0"],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().rpartition(" at ")[2].strip()
    try:
        assert call(f"{url}/v1/notes")["cid"] == 0
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
