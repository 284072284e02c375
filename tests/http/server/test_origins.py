"""Requests that pages of other sites make a browser send: refused on each route."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from served import Served
from server_process import ServerProcess

from treehub_level.http.server.origins import OriginPolicy
from treehub_level.http.server.permissions import Permission
from treehub_level.http.server.routes import ROUTES

pytestmark = pytest.mark.once

ALLOWED = "https://app.example"

#: Headers of a request for ``http://localhost``, and True if it is admitted: alone, if the origin
#: ``https://app.example`` is allowed, if every origin is.
CASES: dict[str, tuple[list[tuple[str, str]], tuple[bool, bool, bool]]] = {
    "a program": ([], (True, True, True)),
    "the address bar": ([("sec-fetch-site", "none")], (True, True, True)),
    "a page of this server": ([("sec-fetch-site", "same-origin")], (True, True, True)),
    "the same behind a proxy": (
        [("sec-fetch-site", "same-origin"), ("origin", "https://public.example")],
        (True, True, True),
    ),
    "an image on another site": ([("sec-fetch-site", "cross-site")], (False, False, True)),
    "a page on another port": (
        [("sec-fetch-site", "same-site"), ("origin", "http://localhost:3000")],
        (False, False, True),
    ),
    "a link on another port": ([("sec-fetch-site", "same-site")], (False, False, True)),
    "fetch on another site": (
        [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")],
        (False, False, True),
    ),
    "fetch on an allowed site": ([("sec-fetch-site", "cross-site"), ("origin", ALLOWED)], (False, True, True)),
    "an unknown value": ([("sec-fetch-site", "same-galaxy")], (False, False, True)),
    "an empty value": ([("sec-fetch-site", "")], (False, False, True)),
    "two values": ([("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], (False, False, True)),
    "an old browser, this server": ([("origin", "http://localhost")], (True, True, True)),
    "an old browser, another site": ([("origin", "https://evil.example")], (False, False, True)),
    "an old browser, a sandbox": ([("origin", "null")], (False, False, True)),
    "an old browser, an allowed site": ([("origin", ALLOWED)], (False, True, True)),
    "a similar name": ([("origin", "http://localhost.evil.example")], (False, False, True)),
    "a user in the origin": ([("origin", "http://evil.example@localhost")], (False, False, True)),
    "another port": ([("origin", "http://localhost:1")], (False, False, True)),
    "two origins": ([("origin", "http://localhost"), ("origin", "https://evil.example")], (False, False, True)),
}


async def wrong_decisions(served: Served) -> list[str]:
    """Return each case that is admitted and must not be, or the other way round."""
    found = []
    for at, origins in enumerate(([], [ALLOWED], ["*"])):
        served.rebuild(tokens=None, origins=origins)
        for name, (headers, admitted) in CASES.items():
            response = await served.anonymous.put("/v1/notes/entries/a", json=1, headers=headers)
            if (response.status_code == 204) is not admitted[at]:
                found.append(f"{name}, allowed {origins}: {response.status_code}")
            if response.status_code == 403 and response.json()["code"] != "LEVEL_ORIGIN":
                found.append(f"{name}, allowed {origins}: {response.text}")
    return found


async def test_requests_of_other_sites_are_refused_unless_their_origin_is_allowed(served: Served) -> None:
    assert await wrong_decisions(served) == []


async def test_a_missing_check_of_the_origin_is_detected(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OriginPolicy, "check", lambda *_: None)
    assert await wrong_decisions(served) != []


async def test_each_route_but_the_health_checks_refuses_other_sites(served: Served) -> None:
    served.rebuild(tokens=None)
    for route in ROUTES:
        method, path = route.label.split()
        path = path.replace("{db}", "notes").replace("{key:anything}", "a")
        response = await served.anonymous.request(method, path, headers={"sec-fetch-site": "cross-site"})
        assert (response.status_code == 403) is (route.permission is not Permission.OPEN), route.label


async def test_a_valid_token_does_not_admit_another_site(served: Served) -> None:
    response = await served.client.get("/v1/notes", headers={"sec-fetch-site": "cross-site"})
    assert (response.status_code, response.json()["code"]) == (403, "LEVEL_ORIGIN")


def test_an_image_or_a_form_on_another_site_opens_and_writes_nothing(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "stores")
    store = tmp_path / "stores" / "notes"
    try:
        before = {path.name: path.read_bytes() for path in store.iterdir()}
        for method, headers, body in (
            ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-dest": "image"}, None),
            ("POST", {"origin": "null", "content-type": "text/plain"}, b"{}"),
            ("PUT", {"origin": "https://evil.example", "content-type": "application/json"}, b"1"),
        ):
            for path in ("", "/entries/a", "/exchange", "/change"):
                response = httpx.request(method, server.url + path, headers=headers, content=body)
                assert response.status_code in (403, 404, 405), (method, path)
        assert {path.name: path.read_bytes() for path in store.iterdir()} == before
    finally:
        server.stop()
