"""Protection of browsers: security headers, the ``Host`` check, and CORS."""

from __future__ import annotations

from typing import Any

import pytest
from served import Served

pytestmark = pytest.mark.once

COMMON_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
ORIGIN = "https://example.org"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/healthz"),
        ("GET", "/metrics"),
        ("GET", "/v1/notes"),
        ("GET", "/v1/absent"),
        ("GET", "/nothing"),
        ("POST", "/v1/notes/exchange"),
        ("PUT", "/v1/notes/entries/a"),
        ("OPTIONS", "/v1/notes"),
    ],
)
async def test_every_response_has_the_security_headers(served: Served, method: str, path: str) -> None:
    response = await served.client.request(method, path, json=1)
    assert COMMON_HEADERS.items() <= dict(response.headers).items()
    assert "set-cookie" not in response.headers


async def test_an_internal_error_has_the_security_headers(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("surprise")

    monkeypatch.setattr(served.app.state.dispatcher, "_authenticate", broken)
    response = await served.client.get("/v1/notes")
    assert (response.status_code, response.json()["code"]) == (500, "LEVEL_INTERNAL")
    assert COMMON_HEADERS.items() <= dict(response.headers).items()


@pytest.mark.parametrize("host", ["localhost", "localhost:8421", "127.0.0.1", "[::1]:80", "LocalHost"])
async def test_the_names_of_the_loopback_interface_are_accepted(served: Served, host: str) -> None:
    assert (await served.client.get("/v1/notes", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:80", "", "localhost@evil.example", "127.0.0.1.nip.io"],
)
async def test_a_foreign_host_name_is_refused(served: Served, host: str) -> None:
    response = await served.client.get("/v1/notes", headers={"host": host})
    assert (response.status_code, response.json()["code"]) == (400, "LEVEL_HOST")
    assert (await served.client.get("/healthz", headers={"host": host})).status_code == 200


async def test_the_accepted_host_names_can_be_configured(served: Served) -> None:
    served.rebuild(hosts=["Sync.Example.org"])
    assert (await served.client.get("/v1/notes", headers={"host": "sync.example.org:443"})).status_code == 200
    assert (await served.client.get("/v1/notes")).status_code == 400
    served.rebuild(hosts=["*"])
    assert (await served.client.get("/v1/notes", headers={"host": "anything"})).status_code == 200


async def test_two_host_headers_are_refused(served: Served) -> None:
    response = await served.client.get("/v1/notes", headers=[("host", "localhost"), ("host", "evil.example")])
    assert response.status_code == 400


def has_cors_header(response: Any) -> bool:
    return "access-control-allow-origin" in response.headers


async def test_only_listed_origins_get_cors_headers(served: Served) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "PUT"}
    assert not has_cors_header(await served.client.options("/v1/notes/entries/a", headers=asked))
    assert not has_cors_header(await served.client.get("/v1/notes", headers={"origin": ORIGIN}))
    served.rebuild(origins=[ORIGIN])
    assert has_cors_header(await served.client.options("/v1/notes/entries/a", headers=asked))
    assert not has_cors_header(
        await served.client.options("/v1/notes/entries/a", headers={**asked, "origin": "https://evil.example"})
    )


async def test_a_page_of_a_listed_origin_can_read_refusals(served: Served) -> None:
    served.rebuild(origins=[ORIGIN])
    for path in ("/v1/notes", "/v1/absent", "/nothing"):
        response = await served.client.get(path, headers={"origin": ORIGIN})
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in response.headers
        assert COMMON_HEADERS.items() <= dict(response.headers).items()
