"""The life of databases: created, renamed, dropped and restored, beside clients that use them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import waiting
from served import Served
from typer.testing import CliRunner

from treehub_level import Level, LockedError, StateError, StorageError, TransportError, blocking
from treehub_level.cli.application import app
from treehub_level.engine import clock
from treehub_level.http import Hub, Identity, RefusedError, Tokens, create_app
from treehub_level.http.blocking import RemoteServer
from treehub_level.http.server.administration import Administrator
from treehub_level.http.server.catalog import Catalog, create_catalog
from treehub_level.http.server.dropped import KEEP, DroppedDatabase

from .running import RunningServer, running, until

pytestmark = pytest.mark.once


def run(*arguments: str, code: int = 0, token: str | None = None) -> Any:
    """Run a command, and return its result."""
    env = {"COLUMNS": "500", "TREEHUB_LEVEL_TOKEN": token or ""}
    result = CliRunner().invoke(app, list(arguments), env=env, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(params=["leveldb", "sqlite", "postgres"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Catalog:
    """An empty catalog of each kind."""
    options: dict[str, Any] = {"backend": request.param, "prefix": "!"}
    location = str(tmp_path / "stores")
    if request.param == "postgres":
        location, options["table"] = request.getfixturevalue("postgres_url"), f"life_{uuid4().hex[:12]}"
    return create_catalog(location, options)


def open_level(catalog: Catalog, name: str) -> blocking.Level:
    return blocking.Level(mode=blocking.Level.SERVER, **catalog.level_options(name))


def test_a_database_is_the_same_store_through_its_whole_life(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    databases = Administrator(catalog)
    databases.create("notes")
    with open_level(catalog, "notes") as level:
        level.put("a", 1)
        store = level.info()["store"]
    databases.rename("notes", "archive")
    dropped = databases.drop("archive")
    assert (databases.names(), databases.dropped()) == ([], [dropped])
    databases.create("archive")
    again = databases.drop("archive")
    databases.create("archive")
    with pytest.raises(StateError, match="there is a store 'archive' already"):
        databases.undrop("archive")
    assert databases.undrop("archive", "empty") == "empty", "the one that was dropped last comes back first"
    assert databases.undrop("archive", "notes") == "notes"
    with open_level(catalog, "notes") as level:
        assert (level.get("a"), level.info()["store"]) == (1, store)
    assert again.name == "archive"
    databases.delete("archive")
    databases.delete("empty")
    with pytest.raises(RefusedError, match="there is no dropped database 'empty'"):
        databases.undrop("empty")

    databases.drop("notes")
    now = clock.unix_ms()
    day = int(KEEP / timedelta(milliseconds=1))
    monkeypatch.setattr(clock, "unix_ms", lambda: now + day - 1000)
    assert databases.remove_expired() == []
    monkeypatch.setattr(clock, "unix_ms", lambda: now + day + 1000)
    assert [dropped.name for dropped in databases.remove_expired()] == ["notes"]
    assert (databases.names(), databases.dropped()) == ([], [])
    assert catalog.stored_aside() == []


def test_two_drops_at_the_same_moment_are_both_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "unix_ms", lambda: 1_800_000_000_000)
    databases = Administrator(create_catalog(tmp_path, {"backend": "sqlite", "prefix": "!"}))
    for _ in range(2):
        databases.create("notes")
        databases.drop("notes")
    assert len(databases.dropped()) == 2


def test_a_store_that_is_open_elsewhere_is_not_moved(catalog: Catalog) -> None:
    databases = Administrator(catalog)
    databases.create("notes")
    with open_level(catalog, "notes") as level:
        level.put("a", 1)
        is_shared = catalog.level_options("notes")["backend"] == "postgres"
        if is_shared:  # the table knows no processes: those that have the store open find out
            databases.rename("notes", "other")
            with pytest.raises(Exception, match="is another store now, or missing"):
                level.put("b", 2)
        else:
            for move in (lambda: databases.rename("notes", "other"), lambda: databases.drop("notes")):
                with pytest.raises(LockedError):
                    move()
            level.put("b", 2)
    assert databases.names() == ["other" if is_shared else "notes"]


async def test_another_server_of_a_renamed_store_tells_no_client_to_start_over(
    postgres_url: str, tmp_path: Path
) -> None:
    """A missing store looks like an empty one, whose clients would drop their data."""
    options = {"backend": "postgres", "table": f"life_{uuid4().hex[:12]}"}
    databases = Administrator(create_catalog(postgres_url, {**options, "prefix": "!"}))
    databases.create("notes")
    async with (
        Hub(postgres_url, **options) as hub,  # type: ignore[arg-type]
        Level(tmp_path / "client", mode=Level.CLIENT) as level,
    ):
        client = httpx.AsyncClient(transport=httpx.ASGITransport(create_app(hub)), base_url="http://localhost")
        assert (await client.put("/v1/notes/entries/a", json=1)).status_code == 204
        async with hub.use("notes") as server:
            await level.sync(server)
            databases.rename("notes", "other")
            with pytest.raises(StorageError, match="is another store now, or missing"):
                await level.sync(server)
        assert await level.get("a") == 1
        response = await client.get("/v1/notes/entries/a")
        assert (response.status_code, response.json()["code"]) == (404, "LEVEL_DATABASE_NOT_FOUND")
        assert (await client.get("/v1/other/entries/a")).json() == 1


def test_a_damaged_database_can_be_dropped(tmp_path: Path) -> None:
    catalog = create_catalog(tmp_path, {"backend": "leveldb", "prefix": "!"})
    databases = Administrator(catalog)
    databases.create("notes")
    (tmp_path / "notes" / "CURRENT").write_text("garbage\n")
    assert databases.drop("notes").name == "notes"
    assert databases.names() == []


def test_files_of_others_beside_dropped_databases_stay(tmp_path: Path) -> None:
    catalog = create_catalog(tmp_path, {"backend": "leveldb", "prefix": "!"})
    databases = Administrator(catalog)
    for name in ("20260231T000000.000000Z-notes", "notes", "20200101T000000.000000Z-../x"):
        assert DroppedDatabase.parse(name) is None
    (tmp_path / ".dropped" / "README").mkdir(parents=True)
    assert (databases.remove_expired(), databases.dropped()) == ([], [])
    assert (tmp_path / ".dropped" / "README").exists()


# -------------------------------------------------------------------------------------- over HTTP


@pytest.fixture(params=["leveldb", "sqlite"])
def backend(request: pytest.FixtureRequest) -> str:
    """A backend whose stores are files."""
    return str(request.param)


@pytest.fixture
def server(tmp_path: Path, backend: str) -> Iterator[RunningServer]:
    """A server process with a file of tokens."""
    Tokens(tmp_path / "tokens").add(databases=["*"])
    with running(tmp_path, "--tokens", str(tmp_path / "tokens"), "--backend", backend) as server:
        yield server


def test_an_operator_administers_a_running_server(server: RunningServer, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens")
    operator = tokens.add(databases=["*"], operator=True, prefix="none/", name="ops")
    client = tokens.add(databases=["*"], write=True, name="alice")
    run("create", server.url, "more", token=operator)
    assert "there is a store 'more' already" in run("create", server.url, "more", token=operator, code=1).stderr
    with RemoteServer(f"{server.url}/v1/more", token=client) as remote:
        remote.put("a", 1)
        refused = run("drop", server.url, "more", token=client, code=1).stderr
        assert "this request is for operators: use a token that was made with" in refused
        run("rename", server.url, "more", "renamed", token=operator)
        with pytest.raises(TransportError) as found:
            remote.get("a")
        assert found.value.status == 404
    assert run("list", server.url, token=operator).stdout == "notes\nrenamed\n"
    dropped = run("drop", server.url, "renamed", token=operator).stdout
    assert f"treehub-level undrop {server.url} renamed" in dropped
    assert run("list", server.url, "--dropped", token=operator).stdout.startswith("renamed\tdropped 20")
    run("undrop", server.url, "renamed", "--as", "more", token=operator)
    with RemoteServer(f"{server.url}/v1/more", token=client) as remote:
        assert remote.get("a") == 1
    run("drop", server.url, "more", "--now", token=operator)
    assert run("list", server.url, "--dropped", token=operator).stdout == ""
    assert "treehub-level list" in run("drop", server.url, "more", token=operator, code=1).stderr


def test_a_live_session_is_told_that_its_database_is_gone(server: RunningServer, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens")
    operator = tokens.add(databases=["notes"], operator=True)
    client = tokens.add(databases=["notes"], write=True)
    with blocking.Level(tmp_path / "client", mode=blocking.Level.CLIENT) as level:
        level.put("a", 1)
        with RemoteServer(f"{server.url}/v1/notes", token=client) as remote, level.live(remote) as session:
            session.pushed(within=60)
            run("drop", server.url, "notes", token=operator)
            until(lambda: session.state == "offline")
            assert "there is no such database on this server" in str(session.last_error)
            level.put("b", 2)
            run("undrop", server.url, "notes", token=operator)
            session.resume()
            session.pushed(within=60)
            assert remote.get("b") == 2


async def test_what_an_operator_asks_for_is_answered_clearly(tmp_path: Path) -> None:
    operator = Identity("ops", databases=["notes", "more", "ÄÖ"], operator=True)
    async with Hub(tmp_path, create=["notes", "other"]) as hub:
        transport = httpx.ASGITransport(create_app(hub, authenticate=lambda _: operator))
        client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        found = [
            await client.put("/v1/notes"),
            await client.put("/v1/absent"),
            await client.delete("/v1/more"),
            await client.delete("/v1/notes?now=maybe"),
            await client.post("/v1/notes/rename", json={"to": "other"}),
            await client.post("/v1/notes/rename", json={"to": "Ä"}),
            await client.post("/v1/notes/rename", json={}),
            await client.post("/v1/notes/rename", json={"to": "more", "x": 1}),
            await client.post("/v1/notes/rename", json={"to": "notes"}),
            await client.post("/v1/more/undrop", json={}),
        ]
        statuses = [(response.status_code, response.json()["code"]) for response in found]
        assert statuses == [
            (409, "LEVEL_STATE"),
            (404, "LEVEL_DATABASE_NOT_FOUND"),
            (404, "LEVEL_DATABASE_NOT_FOUND"),
            (400, "LEVEL_PROTOCOL"),
            (403, "LEVEL_FORBIDDEN"),
            (403, "LEVEL_FORBIDDEN"),
            (400, "LEVEL_PROTOCOL"),
            (400, "LEVEL_PROTOCOL"),
            (400, "LEVEL_PROTOCOL"),
            (404, "LEVEL_DATABASE_NOT_FOUND"),
        ]
        assert (await client.get("/v1")).json() == {"databases": ["notes"], "dropped": []}, "others are not shown"
        assert (await client.put("/v1/more")).status_code == 201
        assert hub.names() == ["more", "notes", "other"]


async def test_levels_of_the_program_are_not_administered(served: Served) -> None:
    operator = await served.client_with(served.tokens.add(databases=["*"], operator=True))
    for response in (await operator.put("/v1/more"), await operator.delete("/v1/notes")):
        assert (response.status_code, response.json()["code"]) == (400, "LEVEL_PROTOCOL")
        assert "administers it itself" in response.json()["message"]


async def test_a_dropped_database_is_not_created_again_by_its_clients(tmp_path: Path) -> None:
    user = Identity("alice", databases=["user-alice"], write=True)
    async with Hub(tmp_path, create_on_demand=True) as hub:
        transport = httpx.ASGITransport(create_app(hub, authenticate=lambda _: user))
        client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        assert (await client.put("/v1/user-alice/entries/a", json=1)).status_code == 204
        await hub.drop("user-alice")
        assert (await client.put("/v1/user-alice/entries/a", json=1)).status_code == 404
        await hub.undrop("user-alice")
        assert (await client.get("/v1/user-alice/entries/a")).json() == 1


async def test_a_hub_removes_what_was_dropped_a_day_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Hub(tmp_path, create=["notes"]) as hub:
        await hub.drop("notes")
    now = clock.unix_ms()
    monkeypatch.setattr(clock, "unix_ms", lambda: now + 2 * int(KEEP / timedelta(milliseconds=1)))
    async with Hub(tmp_path) as hub:
        assert hub.names() == []
        await waiting.until(lambda: os.listdir(tmp_path / ".dropped") == [])


def test_a_directory_is_administered_without_a_server(tmp_path: Path, backend: str) -> None:
    root = str(tmp_path / "stores")
    options = ("--backend", backend)
    run("create", root, "notes", *options)
    run("rename", root, "notes", "more", *options)
    run("drop", root, "more", *options)
    listed = run("list", root, "--dropped", "--json", *options).stdout
    assert '"name":"more"' in listed
    run("undrop", root, "more", *options)
    assert run("list", root, *options).stdout == "more\n"
    run("drop", root, "more", "--now", *options)
    assert "treehub-level list" in run("drop", root, "more", *options, code=1).stderr
    assert "not a valid database name" in run("create", root, "../x", *options, code=2).output
    assert "give the URL of the server" in run("list", "http://localhost:1/v1/notes", code=2).output
