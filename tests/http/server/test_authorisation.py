"""Authorization: each route × each kind of token × each database, generated from the routes."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterator
from typing import Any

import pytest
from replication.helpers import ask as request
from served import Served, StreamingRequest
from starlette.routing import Route

from treehub_level.engine.access import Access
from treehub_level.errors import ForbiddenError
from treehub_level.http.server import dispatch, identities, tokens
from treehub_level.http.server.permissions import AuthorizedRoute, Permission, authorized, check_permission
from treehub_level.http.server.refusals import RefusedError
from treehub_level.http.server.routes import ROUTES

#: The databases, the write permission and the prefix of each kind of token; ``None`` if invalid.
KINDS: dict[str, tuple[list[str], bool, str] | None] = {
    "no token": None,
    "another scheme": None,
    "unknown": None,
    "wrong secret": None,
    "expired": None,
    "revoked": None,
    "read": (["notes"], False, ""),
    "write": (["notes"], True, ""),
    "other database": (["other"], True, ""),
    "prefix": (["notes"], True, "mine/"),
    "read all": (["*"], False, ""),
    "write all": (["*"], True, ""),
    "prefix of all": (["*"], True, "mine/"),
    "operator": (["notes"], False, ""),
    "operator of all": (["*"], False, ""),
    "operator with prefix": (["*"], False, "mine/"),
}
OPERATORS = ("operator", "operator of all", "operator with prefix")
ILLEGAL = ["Illegal", "%2e%2e"]
DATABASES = ["notes", "other", "absent", *ILLEGAL]
BODIES: dict[str, Any] = {
    "POST /v1/{db}/exchange": request(),
    "POST /v1/{db}/change": {"cid": 0, "changes": []},
    "POST /v1/{db}/batch": {"ops": [{"type": "put", "key": "mine/x", "value": 1}]},
    "PUT /v1/{db}/entries/{key:anything}": 1,
    "POST /v1/{db}/rename": {"to": "notes"},
    "POST /v1/{db}/undrop": {},
}


def authorization(served: Served, kind: str) -> str | None:
    """Return the ``Authorization`` header for a token of a kind, if there is one."""
    allowed = KINDS[kind] or (["*"], True, "")
    expires = time.time() - 1 if kind == "expired" else None
    credentials = served.tokens.add(
        databases=allowed[0], write=allowed[1], prefix=allowed[2], operator=kind in OPERATORS, expires=expires
    )
    id = credentials.partition(".")[0]
    if kind == "revoked":
        assert served.tokens.revoke(id)
    return {
        "no token": None,
        "another scheme": f"Basic {credentials}",
        "unknown": "Bearer 0123456789ab." + credentials.partition(".")[2],
        "wrong secret": f"Bearer {id}.{'A' * 43}",
    }.get(kind, f"Bearer {credentials}")


def expected(route: AuthorizedRoute, kind: str, database: str) -> int | None:
    """Return the status of the documented refusal; ``None`` if the request is allowed."""
    permission = route.permission
    if permission is Permission.OPEN:
        return None
    allowed = KINDS[kind]
    if allowed is None:
        return 401
    databases, write, prefix = allowed
    if permission is Permission.MONITOR:
        return None if databases == ["*"] and (kind in OPERATORS or not prefix) else 403
    if "{db}" in route.path and (database in ILLEGAL or ("*" not in databases and database not in databases)):
        return 404
    if permission in (Permission.INSPECT, Permission.OPERATE) and kind not in OPERATORS:
        return 403
    if permission is Permission.WRITE and not write:
        return 403
    return None if database in ("notes", "other") or not route.uses_database else 404


def cases() -> Iterator[tuple[AuthorizedRoute, str, str]]:
    for route in ROUTES:
        for kind in KINDS:
            for database in DATABASES if "{db}" in route.path else ["notes"]:
                yield route, kind, database


async def violations(served: Served) -> list[str]:
    """Return a description of each case with another response than the expected one."""
    found = []
    before = served.raw()
    headers = {kind: authorization(served, kind) for kind in KINDS}
    for route, kind, database in cases():
        path = route.path.replace("{db}", database).replace("{key:anything}", "mine/x").replace("{id}", "absent")
        header = headers[kind]
        sent = {} if header is None else {"authorization": header}
        if route.path.endswith("/watch"):
            status = await status_of_stream(served, path, sent)
        else:
            method, body = route.label.partition(" ")[0], BODIES.get(route.label)
            response = await served.anonymous.request(method, path, json=body, headers=sent)
            status = 200 if b"LEVEL_NOT_FOUND" in response.content else response.status_code
            if b"administers it itself" in response.content or b"LEVEL_NO_BACKUPS" in response.content:
                status = 200  # it may, and the hub of these tests has no root, and no folder for backups
        refused = status if status >= 400 else None
        expected_status = expected(route, kind, database)
        if refused != expected_status:
            found.append(f"{route.label} with {kind} on {database}: {status} instead of {expected_status or 'success'}")
        if expected_status is not None and served.raw() != before:
            found.append(f"{route.label} with {kind} on {database} changed the store")
        before = served.raw()
    return found


async def status_of_stream(served: Served, path: str, headers: dict[str, str]) -> int:
    async with StreamingRequest(served.app, "GET", path, headers=headers).open() as stream:
        await stream.until(lambda: stream.sent)
        return stream.status


async def unrestricted(*_: Any) -> identities.Identity:
    """Let every caller do everything."""
    return identities.AnonymousIdentity()


async def test_each_route_admits_exactly_the_tokens_with_its_permission(served: Served) -> None:
    assert await violations(served) == []


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (identities.Identity, "covers", lambda *_: True),
        (tokens.Token, "is_expired", lambda *_: False),
        (identities.Identity, "may_monitor", True),
        (hmac, "compare_digest", lambda *_: True),
        (tokens.Tokens, "revoke", lambda *_: True),
        (dispatch.Dispatcher, "_authenticate", unrestricted),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_missing_check_is_detected(
    served: Served, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, broken: Any
) -> None:
    monkeypatch.setattr(owner, name, broken)
    assert await violations(served) != []


# ------------------------------------------------------------------------------ beyond the matrix


async def test_a_read_only_token_may_exchange_but_not_push(served: Served) -> None:
    reader = await served.client_with(served.tokens.add(databases=["notes"]))
    await served.levels["notes"].put("a", 1)
    before = served.raw()
    assert (await reader.post("/v1/notes/exchange", json=request())).json()["page"] == [[1, ["a", 1]]]
    for push in ({"changes": [["b", 2]]}, {"withdraw": ["b"]}):
        response = await reader.post("/v1/notes/exchange", json=request(cid=1, **push))
        assert (response.status_code, response.json()["code"]) == (403, ForbiddenError.code)
    assert served.raw() == before


PUSHES: list[tuple[str, str, Any]] = [
    ("POST", "/v1/notes/change", {"cid": 2, "changes": [["mine/a", 0], ["theirs/a"]]}),
    ("PUT", "/v1/notes/entries/theirs/a", 0),
    ("PUT", "/v1/notes/entries/mine", 0),
    ("DELETE", "/v1/notes/entries/theirs/a", None),
]


async def refused_pushes(served: Served) -> list[bool]:
    """Return True for each push of a key outside the prefix that was refused and wrote nothing."""
    mine = await served.client_with(served.tokens.add(databases=["notes"], write=True, prefix="mine/"))
    await served.levels["notes"].put("mine/a", 1)
    await served.levels["notes"].put("theirs/a", 2)
    found = []
    for method, path, body in PUSHES:
        before = served.raw()
        response = await mine.request(method, path, json=body)
        found.append(response.status_code == 403 and served.raw() == before)
    return found


async def test_a_write_to_a_key_outside_the_prefix_is_refused(served: Served) -> None:
    assert await refused_pushes(served) == [True] * len(PUSHES)


async def pushed_outside(served: Served) -> list[bool]:
    """Return True for each exchange that refused the key outside the prefix, and no other."""
    mine = await served.client_with(served.tokens.add(databases=["notes"], write=True, prefix="mine/"))
    await served.levels["notes"].put("theirs/a", 2)
    push = request(cid=1, changes=[["mine/a", 0], ["theirs/a", 0]])
    replies = [(await mine.post("/v1/notes/exchange", json=push)).json() for _ in range(2)]
    stored = dict(await served.levels["notes"].query())
    assert stored["mine/a"] == 0
    return [reply["rejected"] == ["theirs/a"] and stored["theirs/a"] == 2 for reply in replies]


async def test_an_exchange_refuses_the_keys_outside_the_prefix_and_accepts_the_others(served: Served) -> None:
    assert await pushed_outside(served) == [True, True]


async def test_an_accepted_key_outside_the_prefix_is_detected(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Access, "covers", lambda *_: True)
    assert await pushed_outside(served) == [False, False]


@pytest.mark.parametrize("fields", [{"complete": ["theirs/"]}, {"complete": [], "fill": ["theirs/", ""]}])
async def test_a_range_outside_the_prefix_is_forbidden(served: Served, fields: dict[str, Any]) -> None:
    mine = await served.client_with(served.tokens.add(databases=["notes"], write=True, prefix="mine/"))
    response = await mine.post("/v1/notes/exchange", json=request(**fields))
    assert (response.status_code, response.json()["code"]) == (403, ForbiddenError.code)


async def test_a_missing_check_of_pushed_keys_is_detected(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Access, "check_write", lambda *_: None)
    monkeypatch.setattr(Access, "check_read", lambda *_: None)
    assert await refused_pushes(served) == [False] * len(PUSHES)


async def seen(served: Served) -> set[str]:
    """Return the keys that a token for ``mine/`` can see by any route."""
    token = served.tokens.add(databases=["notes"], write=True, prefix="mine/")
    mine = await served.client_with(token)
    for key in ("mine/a", "theirs/a", "theirs/b"):
        await served.levels["notes"].put(key, 1)
    page = (await mine.post("/v1/notes/exchange", json=request())).json()["page"]
    filled = (await mine.post("/v1/notes/exchange", json=request(complete=[], fill=["", ""]))).json()["entries"]
    read = (await mine.post("/v1/notes/exchange", json=request(read=["theirs/a"]))).json()["values"]
    changes = (await mine.get("/v1/notes/changes")).json()["changes"]
    entries = (await mine.get("/v1/notes/entries")).json()["entries"]
    outside = await mine.get("/v1/notes/entries/theirs/a")
    headers = {"authorization": f"Bearer {token}"}
    async with StreamingRequest(served.app, "GET", "/v1/notes/watch?since=0", headers=headers).open() as stream:
        await stream.until(lambda: b"id: 3\n" in stream.text)
        watched = stream.text.decode()
    return {
        *(change[0] for _, change in page),
        *(key for key, _ in filled),
        *(row[0] for row in read if len(row) == 2),
        *(change[0] for change in changes),
        *(key for key, _ in entries),
        *(["theirs/a"] if outside.status_code != 403 else []),
        *(key for key in ("mine/a", "theirs/a", "theirs/b") if key in watched),
    }


async def test_keys_outside_the_prefix_are_invisible(served: Served) -> None:
    assert await seen(served) == {"mine/a"}


async def test_visible_keys_outside_the_prefix_are_detected(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens.Token, "access", Access("mallory"))
    assert await seen(served) == {"mine/a", "theirs/a", "theirs/b"}


async def test_a_client_id_belongs_to_the_first_token_that_pushed_with_it(served: Served) -> None:
    alice, again, mallory = [
        await served.client_with(served.tokens.add(databases=["notes"], write=True, name=name))
        for name in ("alice", "alice", "mallory")
    ]
    assert (await alice.post("/v1/notes/exchange", json=request(changes=[["a", 1]]))).status_code == 200
    before = served.raw()
    theirs = await mallory.post("/v1/notes/exchange", json=request(cid=1, seq=2, push="2" * 32, changes=[["a", 2]]))
    assert (theirs.status_code, theirs.json()["kind"]) == (409, "forked")
    assert served.raw() == before
    assert (await mallory.post("/v1/notes/exchange", json=request())).json()["page"] == [[1, ["a", 1]]]
    renewed = request(cid=1, seq=2, push="2" * 32, changes=[["a", 2]])
    assert (await again.post("/v1/notes/exchange", json=renewed)).status_code == 200


async def test_a_database_outside_the_token_gets_the_response_of_an_absent_one(served: Served) -> None:
    client = await served.client_with(served.tokens.add(databases=["notes"]))
    same_id = {"x-request-id": "1"}
    outside, absent = [await client.get(f"/v1/{name}", headers=same_id) for name in ("other", "absent")]
    assert (outside.status_code, outside.content) == (absent.status_code, absent.content)


async def test_a_missing_and_an_invalid_token_get_the_same_response(served: Served) -> None:
    answers = set()
    for kind in ("no token", "unknown", "wrong secret", "expired", "revoked"):
        header = authorization(served, kind)
        headers = {"x-request-id": "1", **({} if header is None else {"authorization": header})}
        response = await served.anonymous.get("/v1/notes", headers=headers)
        assert response.headers["www-authenticate"] == "Bearer"
        answers.add(response.content)
    assert len(answers) == 1


async def test_two_authorization_headers_are_refused(served: Served) -> None:
    response = await served.anonymous.get("/v1/notes", headers=[("authorization", "Bearer a.b")] * 2)
    assert response.status_code == 400


async def test_without_tokens_every_request_is_allowed(served: Served) -> None:
    served.rebuild(tokens=None)
    assert (await served.anonymous.put("/v1/notes/entries/a", json=1)).status_code == 204
    assert (await served.anonymous.get("/metrics")).status_code == 200


# ----------------------------------------------------------------------------------- registration


async def unused_handler(_: Any) -> Any:
    """A handler of routes that are never called."""


@pytest.mark.parametrize("permission", [None, "read", True])
def test_a_route_without_a_permission_cannot_be_created(permission: Any) -> None:
    with pytest.raises(TypeError, match="must declare a Permission"):
        AuthorizedRoute("GET", "/v1/{db}/new", unused_handler, permission=permission)
    with pytest.raises(TypeError, match="permission"):
        AuthorizedRoute("GET", "/v1/{db}/new", unused_handler)  # type: ignore[call-arg]


def test_a_plain_starlette_route_cannot_be_served() -> None:
    with pytest.raises(TypeError, match="declares no permission"):
        authorized([*ROUTES, Route("/v1/{db}/new", unused_handler)])


def test_every_route_of_the_application_has_a_permission(served: Served) -> None:
    assert [route.permission for route in authorized(served.app.routes)] == [route.permission for route in ROUTES]


@pytest.mark.once
def test_a_caller_without_a_token_is_no_operator() -> None:
    """Each program of the machine is this caller of a server without tokens."""
    anonymous = identities.AnonymousIdentity()
    for permission in (Permission.READ, Permission.WRITE, Permission.MONITOR, Permission.INSPECT):
        check_permission(permission, anonymous, "notes")
    with pytest.raises(RefusedError, match="start it with --temporary-token") as found:
        check_permission(Permission.OPERATE, anonymous, "notes")
    assert found.value.status == 403


@pytest.mark.once
@pytest.mark.parametrize("right", ["write", "operator"])
def test_a_right_is_true_or_false(right: str) -> None:
    with pytest.raises(TypeError, match=f"{right} is True or False, not 'no'"):
        identities.Identity("alice", **{right: "no"})  # type: ignore[arg-type]
