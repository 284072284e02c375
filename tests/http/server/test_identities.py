"""Users of a server's own: `authenticate`, `Identity`, and databases on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from replication.helpers import ask
from served import Served, StreamingRequest
from waiting import until

from treehub_level import Level, StateError, StorageError, blocking
from treehub_level.http import Hub, Identity, Tokens, create_app
from treehub_level.http.server import identities

#: The users, by the text of the header `x-user`.
USERS: dict[str, dict[str, Any]] = {
    "alice": {"databases": ["notes"], "write": True, "prefixes": ["alice/", "team/"]},
    "bob": {"databases": ["notes"], "prefixes": ["bob/", "team/"]},
    "root": {"databases": ["*"], "write": True},
    "none": {"databases": ["notes"], "write": True, "prefixes": []},
}


def authenticate(request: Any) -> Identity | None:
    """Return the user that a header names."""
    name = request.headers.get("x-user", "")
    return Identity(name, **USERS[name]) if name in USERS else None


async def authenticate_later(request: Any) -> Identity | None:
    """Do the same after a wait."""
    await asyncio.sleep(0)
    return authenticate(request)


class Directory:
    """An object that authenticates."""

    async def __call__(self, request: Any) -> Identity | None:
        return authenticate(request)


def user(name: str) -> dict[str, str]:
    """The headers of a user."""
    return {"x-user": name}


@pytest.fixture(params=[authenticate, authenticate_later, Directory()], ids=["plain", "async", "object"])
async def users(served: Served, request: pytest.FixtureRequest) -> Served:
    """A server that authenticates by a function."""
    served.rebuild(tokens=None, authenticate=request.param)
    return served


async def status(served: Served, method: str, path: str, name: str, **options: Any) -> int:
    """The status of a request of a user."""
    return (await served.anonymous.request(method, f"/v1/{path}", headers=user(name), **options)).status_code


async def test_a_function_decides_who_may_do_what(users: Served) -> None:
    level = users.levels["notes"]
    assert await status(users, "GET", "notes", "stranger") == 401
    assert await status(users, "GET", "other", "alice") == 404
    assert await status(users, "PUT", "notes/entries/alice/a", "alice", json=1) == 204
    assert await status(users, "PUT", "notes/entries/team/a", "alice", json=2) == 204
    assert await status(users, "PUT", "notes/entries/bob/a", "alice", json=1) == 403
    assert await status(users, "PUT", "notes/entries/bob/a", "bob", json=1) == 403
    assert await status(users, "PUT", "other/entries/x", "root", json=1) == 204
    assert await status(users, "GET", "notes/entries/team/a", "bob") == 200
    assert await status(users, "GET", "notes/entries/team/a", "none") == 403
    assert (await users.anonymous.get("/metrics", headers=user("root"))).status_code == 200
    assert (await users.anonymous.get("/metrics", headers=user("alice"))).status_code == 403
    assert {change.by for change in (await level.changes(0)).changes} <= {"alice", None}


async def test_several_prefixes_are_one_view(users: Served) -> None:
    level = users.levels["notes"]
    for key in ("a", "alice/1", "alice/2", "alice0", "b", "bob/1", "team/1", "team/2", "zoe/1"):
        await level.put(key, key)
    mine = ["alice/1", "alice/2", "team/1", "team/2"]

    async def entries(**query: Any) -> tuple[list[str], bool]:
        response = await users.anonymous.get("/v1/notes/entries", params=query, headers=user("alice"))
        page = response.json()
        return [key for key, _ in page["entries"]], page["has_more"]

    assert await entries() == (mine, False)
    assert await entries(reverse="true") == (mine[::-1], False)
    for limit in (1, 2, 3, 4):
        assert await entries(limit=limit) == (mine[:limit], limit < 4)
        assert await entries(limit=limit, reverse="true") == (mine[::-1][:limit], limit < 4)
    assert await entries(gt="alice/1", lt="team/2") == (["alice/2", "team/1"], False)
    assert await entries(prefix="bob/") == ([], False)

    found = (await users.anonymous.get("/v1/notes/changes", headers=user("alice"))).json()
    assert [change[0] for change in found["changes"]] == mine
    page = (await users.anonymous.post("/v1/notes/exchange", json=ask(), headers=user("alice"))).json()
    assert [change[0] for _, change in page["page"]] == mine
    filled = ask(complete=[], fill=["", ""])
    page = (await users.anonymous.post("/v1/notes/exchange", json=filled, headers=user("alice"))).json()
    assert [key for key, _ in page["entries"]] == mine
    pushed = ask(cid=9, changes=[["alice/3", 1], ["bob/2", 1], ["team/3", 1]])
    page = (await users.anonymous.post("/v1/notes/exchange", json=pushed, headers=user("alice"))).json()
    assert [keys for keys, *_ in page["refused"]] != []
    assert (await level.has("alice/3"), await level.has("bob/2"), await level.has("team/3")) == (True, False, True)
    assert await status(users, "POST", "notes/exchange", "alice", json=ask(complete=["bob/"])) == 403
    assert await entries(prefix="none") == ([], False)
    nothing = await users.anonymous.get("/v1/notes/entries", headers=user("none"))
    assert nothing.json() == {"cid": level.cid, "has_more": False, "entries": []}


async def test_a_client_with_several_prefixes_converges(users: Served) -> None:
    server = users.levels["notes"]
    await server.load([("alice/1", 1), ("bob/1", 1), ("team/1", 1)])

    class Exchanger:
        async def exchange(self, message: Any) -> Any:
            response = await users.anonymous.post("/v1/notes/exchange", json=message, headers=user("alice"))
            return response.json()

    async with Level("client", backend="memory", mode=Level.CLIENT) as client:
        await client.put("team/2", 2)
        await client.sync(Exchanger())
        assert await client.query() == [("alice/1", 1), ("team/1", 1), ("team/2", 2)]
        assert await server.get("team/2") == 2


@pytest.mark.parametrize("change", ["revoked", "narrowed", "expired"])
async def test_rights_that_end_end_an_open_stream(served: Served, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(identities, "RECHECK_SECONDS", 0.05)
    now: dict[str, Any] = {"databases": ["notes"], "expires": time.time() + 0.3 if change == "expired" else None}
    known = [True]
    served.rebuild(tokens=None, authenticate=lambda _: Identity("u", **now) if known else None)
    path = "/v1/notes/watch?since=0"
    async with StreamingRequest(served.app, "GET", path, headers={}).open() as stream:
        await served.levels["notes"].put("a", 1)
        await stream.until(lambda: b'["a",1]' in stream.text)
        if change == "revoked":
            known.clear()
        elif change == "narrowed":
            now["databases"] = ["other"]
        await asyncio.sleep(0.4)
        await served.levels["notes"].put("b", 2)
        await stream.until(lambda: b"LEVEL_" in stream.text)
        assert b'["b",2]' not in stream.text


async def test_a_function_is_asked_once_a_second_for_a_request(served: Served) -> None:
    asked: list[None] = []

    def count(request: Any) -> Identity:
        asked.append(None)
        return Identity("u", databases=["notes"], write=True)

    served.rebuild(tokens=None, authenticate=count)
    assert (await served.anonymous.put("/v1/notes/entries/a", json=1)).status_code == 204
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(RuntimeError("secret"), (503, "LEVEL_UNAVAILABLE")), ("alice", (500, "LEVEL_INTERNAL"))],
)
async def test_a_function_that_fails_lets_nobody_in(
    served: Served, answer: Any, expected: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    served.rebuild(tokens=None, authenticate=fail)
    response = await served.anonymous.put("/v1/notes/entries/a", json=1)
    assert (response.status_code, response.json()["code"]) == expected
    assert "secret" not in response.text + caplog.text
    assert "authenticate" in caplog.text
    assert served.levels["notes"].cid == 0


async def test_the_file_of_tokens_is_such_a_function(served: Served, tmp_path: Path) -> None:
    served.rebuild(tokens=None, authenticate=served.tokens)
    assert (await served.client.get("/v1/notes")).status_code == 200
    assert (await served.anonymous.get("/v1/notes")).status_code == 401
    with pytest.raises(ValueError, match="not both"):
        create_app(served.hub, tokens=served.tokens, authenticate=Tokens(tmp_path / "x"))
    with pytest.raises(TypeError):
        create_app(served.hub, authenticate="alice")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": ""}, ValueError),
        ({"name": "a\nb"}, ValueError),
        ({"name": "a" * 256}, ValueError),
        ({"name": 1}, TypeError),
        ({"name": "a", "databases": "notes"}, TypeError),
        ({"name": "a", "databases": [1]}, TypeError),
        ({"name": "a", "prefixes": "x/"}, TypeError),
        ({"name": "a", "write": 1}, TypeError),
        ({"name": "a", "prefixes": [str(n) for n in range(1000, 1300)]}, ValueError),
    ],
)
def test_an_invalid_identity_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Identity(**arguments)


# ---------------------------------------------------------------------------------- administration


@pytest.fixture(params=["leveldb", "sqlite"])
async def hub(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Hub]:
    """A hub over a directory."""
    async with Hub(tmp_path / "stores", create=["notes"], backend=request.param, create_on_demand=True) as hub:
        yield hub


def client_of(hub: Hub, **identity: Any) -> httpx.AsyncClient:
    """A client with an identity."""
    app = create_app(hub, authenticate=lambda _: Identity("alice", **{"write": True, **identity}))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=60)


async def test_a_database_of_a_user_is_created_on_demand(hub: Hub) -> None:
    client = client_of(hub, databases=["user-alice"])
    assert (await client.put("/v1/user-alice/entries/a", json=1)).status_code == 204
    assert (await client.put("/v1/user-bob/entries/a", json=1)).status_code == 404
    everything = client_of(hub, databases=["*"])
    assert (await everything.get("/v1/user-carol")).status_code == 404
    reader = client_of(hub, databases=["user-dan"], write=False)
    assert (await reader.get("/v1/user-dan")).status_code == 404
    assert hub.names() == ["notes", "user-alice"]


async def test_databases_are_created_renamed_and_deleted_beside_clients(hub: Hub) -> None:
    client = client_of(hub, databases=["*"])
    await hub.create("more")
    assert (await client.put("/v1/more/entries/a", json=1)).status_code == 204
    store = (await client.get("/v1/more")).json()["server"]
    await hub.rename("more", "other")
    response = await client.get("/v1/more/entries/a")
    assert (response.status_code, response.json()["code"]) == (404, "LEVEL_DATABASE_NOT_FOUND")
    assert (await client.get("/v1/other/entries/a")).json() == 1
    assert (await client.get("/v1/other")).json()["server"] == store
    await hub.delete("other")
    assert (await client.get("/v1/other")).status_code == 404
    assert hub.names() == ["notes"]
    await hub.create("other")
    assert (await client.get("/v1/other/entries")).json()["entries"] == []
    assert (await client.get("/v1/other")).json()["server"] != store


@pytest.mark.parametrize("verb", ["delete", "rename"])
async def test_open_streams_end_when_their_database_goes(hub: Hub, verb: str) -> None:
    app = create_app(hub)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=60)
    polling = asyncio.create_task(client.get("/v1/notes/changes?wait=60"))
    stream = StreamingRequest(app, "GET", "/v1/notes/watch", headers={})
    async with stream.open():
        await until(lambda: len(hub._subscriptions._by_name.get("notes", ())) == 2)
        await (hub.delete("notes") if verb == "delete" else hub.rename("notes", "renamed"))
        await stream.until(lambda: b"LEVEL_DATABASE_NOT_FOUND" in stream.text)
        response = await polling
        assert (response.status_code, response.json()["code"]) == (404, "LEVEL_DATABASE_NOT_FOUND")


async def test_a_database_that_is_written_to_is_deleted_in_one_piece(hub: Hub) -> None:
    client = client_of(hub, databases=["*"])
    found: list[int] = []

    async def write() -> None:
        for n in range(1000):
            found.append((await client.put(f"/v1/notes/entries/k{n}", json=n)).status_code)
            if found[-1] != 204:
                return

    writers = [asyncio.create_task(write()) for _ in range(4)]
    await until(lambda: len(found) > 20)
    await hub.delete("notes")
    await asyncio.gather(*writers)
    assert {*found} == {204, 404}
    assert hub.names() == []


async def test_changes_that_cannot_be_made_are_refused(hub: Hub) -> None:
    calls: list[tuple[Callable[[], Any], type[Exception]]] = [
        (lambda: hub.create("notes"), Exception),
        (lambda: hub.create("../x"), ValueError),
        (lambda: hub.rename("notes", "Illegal"), ValueError),
        (lambda: hub.rename("notes", "notes"), ValueError),
        (lambda: hub.rename("absent", "new"), Exception),
        (lambda: hub.delete("absent"), Exception),
    ]
    for call, error in calls:
        with pytest.raises(error):
            await call()
    await hub.create("second")
    with pytest.raises(Exception, match="there is a store 'notes' already"):
        await hub.rename("second", "notes")
    async with hub.use("notes") as level:
        await level.put("a", 1)
    assert hub.names() == ["notes", "second"]


async def test_a_hub_without_a_root_creates_nothing(served: Served) -> None:
    with pytest.raises(ValueError, match="root"):
        await served.hub.create("more")
    with pytest.raises(ValueError, match="root"):
        await served.hub.delete("notes")
    with pytest.raises(ValueError, match="root"):
        Hub(levels=served.levels, create_on_demand=True)


@pytest.mark.once
@pytest.mark.parametrize("suffix", ["-wal", "-journal", ""])
async def test_a_database_is_not_moved_to_a_name_with_files_of_another_one(tmp_path: Path, suffix: str) -> None:
    """SQLite applies a write-ahead log that it finds, to any database."""
    with blocking.Level(tmp_path / "gone.sqlite", backend="sqlite", mode=Level.SERVER) as gone:
        gone.put("stale", 1)
        log = (tmp_path / "gone.sqlite-wal").read_bytes()
    (tmp_path / "gone.sqlite").unlink()
    (tmp_path / f"new.sqlite{suffix}").write_bytes(log)
    async with Hub(tmp_path, backend="sqlite", create=["old"]) as hub:
        async with hub.use("old") as level:
            await level.put("mine", 1)
        refused = pytest.raises((StorageError, StateError), match=r"remove .*new\.sqlite-|there is a store")
        with refused:
            await hub.rename("old", "new")
        async with hub.use("old") as level:
            assert await level.query() == [("mine", 1)]
        await hub.drop("old")
        with refused:
            await hub.undrop("old", to="new")
        assert await hub.undrop("old") == "old"
        async with hub.use("old") as level:
            assert await level.query() == [("mine", 1)]
    assert (tmp_path / f"new.sqlite{suffix}").read_bytes() == log
