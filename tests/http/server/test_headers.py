"""What protects browsers, and what browsers could be made to do: headers of answers, Host, CORS."""

from __future__ import annotations

from typing import Any

import pytest
from served import Served

pytestmark = pytest.mark.once

SAFE = {
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
async def test_every_answer_has_the_headers_that_keep_browsers_safe(served: Served, method: str, path: str) -> None:
    response = await served.client.request(method, path, json=1)
    assert SAFE.items() <= dict(response.headers).items()
    assert "set-cookie" not in response.headers


async def test_the_headers_are_there_even_if_everything_fails(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("surprise")

    monkeypatch.setattr(served.app.state.dispatcher, "_authenticate", broken)
    response = await served.client.get("/v1/notes")
    assert (response.status_code, response.json()["code"]) == (500, "LEVEL_INTERNAL")
    assert SAFE.items() <= dict(response.headers).items()


@pytest.mark.parametrize("host", ["localhost", "localhost:8421", "127.0.0.1", "[::1]:80", "LocalHost"])
async def test_the_names_of_the_loopback_interface_are_answered(served: Served, host: str) -> None:
    assert (await served.client.get("/v1/notes", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:80", "", "localhost@evil.example", "127.0.0.1.nip.io"],
)
async def test_a_name_that_was_made_to_lead_here_is_not_answered(served: Served, host: str) -> None:
    response = await served.client.get("/v1/notes", headers={"host": host})
    assert (response.status_code, response.json()["code"]) == (400, "LEVEL_HOST")
    assert (await served.client.get("/healthz", headers={"host": host})).status_code == 200


async def test_the_names_that_are_answered_can_be_chosen(served: Served) -> None:
    served.rebuild(hosts=["Sync.Example.org"])
    assert (await served.client.get("/v1/notes", headers={"host": "sync.example.org:443"})).status_code == 200
    assert (await served.client.get("/v1/notes")).status_code == 400
    served.rebuild(hosts=["*"])
    assert (await served.client.get("/v1/notes", headers={"host": "anything"})).status_code == 200


async def test_two_hosts_are_none(served: Served) -> None:
    response = await served.client.get("/v1/notes", headers=[("host", "localhost"), ("host", "evil.example")])
    assert response.status_code == 400


def is_let_in(response: Any) -> bool:
    return "access-control-allow-origin" in response.headers


async def test_no_page_may_call_unless_its_origin_is_listed(served: Served) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "PUT"}
    assert not is_let_in(await served.client.options("/v1/notes/entries/a", headers=asked))
    assert not is_let_in(await served.client.get("/v1/notes", headers={"origin": ORIGIN}))
    served.rebuild(origins=[ORIGIN])
    assert is_let_in(await served.client.options("/v1/notes/entries/a", headers=asked))
    assert not is_let_in(
        await served.client.options("/v1/notes/entries/a", headers={**asked, "origin": "https://evil.example"})
    )


async def test_a_page_of_a_listed_origin_can_read_refusals_too(served: Served) -> None:
    served.rebuild(origins=[ORIGIN])
    for path in ("/v1/notes", "/v1/absent", "/nothing"):
        response = await served.client.get(path, headers={"origin": ORIGIN})
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in response.headers
        assert SAFE.items() <= dict(response.headers).items()
