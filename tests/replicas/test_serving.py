"""Hubs over shared stores, mostly in a table of PostgreSQL: lookup, creation, and outages."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import invoke
from databases import Database, open_folder
from waiting import until

from treehub_level import Level, blocking
from treehub_level.http import Hub, create_app
from treehub_level.http.server.refusals import RefusedError

from .processes import Replica

pytestmark = pytest.mark.once

SECRET = "s3cr3t"
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A running database."""
    with open_folder() as path:
        running = Database(path, "fsync=off")
        running.start()
        yield running
        running.stop()


@pytest.fixture
def table() -> dict[str, Any]:
    """The options of a hub over a table of its own."""
    return {"backend": "postgres", "table": f"table_{next(NUMBERS)}"}


def client_of(hub: Hub) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(hub)), base_url="http://localhost", timeout=60)


def make(database: Database, table: dict[str, Any], store: str, mode: Any, **values: Any) -> None:
    with blocking.Level(database.url, **table, store=store, mode=mode) as level:
        for key, value in values.items():
            level.put(key, value)


async def test_the_server_stores_of_a_table_are_served_under_their_names(
    database: Database, table: dict[str, Any]
) -> None:
    make(database, table, "notes", Level.SERVER, a=1)
    async with Hub(database.url, create=["made"], **table) as hub, hub.use("notes") as notes, hub.use("made") as made:
        assert await notes.get("a") == 1
        assert await made.get("a") is None
        make(database, table, "late", Level.SERVER, a=2)
        assert hub.names() == ["late", "made", "notes"]
        async with hub.use("late") as late:
            assert await late.get("a") == 2


@pytest.mark.parametrize("name", ["plain", "client", "absent", "NOTES", "..", "a b", "\0"])
async def test_stores_of_other_modes_and_invalid_names_are_absent(
    database: Database, table: dict[str, Any], name: str
) -> None:
    make(database, table, "plain", Level.NORMAL, a=1)
    make(database, table, "client", Level.CLIENT, a=1)
    async with Hub(database.url, **table) as hub:
        before = hub.names()
        with pytest.raises(RefusedError) as caught:
            async with hub.use(name):
                pass
        assert caught.value.status == 404
        assert hub.names() == before


async def test_a_missing_table_has_no_stores(database: Database, table: dict[str, Any]) -> None:
    async with Hub(database.url, **table) as hub:
        assert hub.names() == []


@pytest.mark.parametrize("backend", ["postgres", "sqlite"])
async def test_a_write_through_one_hub_wakes_a_long_poll_at_another(
    database: Database, table: dict[str, Any], tmp_path: Path, backend: str
) -> None:
    root, options = (database.url, table) if backend == "postgres" else (tmp_path, {"backend": "sqlite"})
    async with (
        Hub(root, create=["notes"], **options) as one,
        Hub(root, **options) as two,
        client_of(one) as writer,
        client_of(two) as reader,
    ):
        waiting = asyncio.ensure_future(reader.get("/v1/notes/changes?since=0&wait=60"))
        await until(lambda: two.open_count == 1)
        assert (await writer.put("/v1/notes/entries/a", json=1)).status_code == 204
        assert (await asyncio.wait_for(waiting, 30)).json()["changes"] == [["a", 1]]
        assert (await reader.put("/v1/notes/entries/b", json=2)).status_code == 204
        assert (await writer.get("/v1/notes")).json()["cid"] == 2


async def test_a_hub_answers_503_while_the_database_is_stopped_and_then_recovers() -> None:
    with open_folder() as path:
        database = Database(path, "fsync=off")
        database.start()
        async with Hub(database.url, create=["notes"], backend="postgres") as hub, client_of(hub) as client:
            assert (await client.put("/v1/notes/entries/a", json=1)).status_code == 204
            assert (await client.get("/readyz")).status_code == 200
            database.stop()
            for response in (
                await client.get("/v1/notes/entries/a"),
                await client.put("/v1/notes/entries/a", json=2),
                await client.get("/v1/other"),
            ):
                assert (response.status_code, response.json()["code"]) == (503, "LEVEL_UNAVAILABLE")
                assert int(response.headers["retry-after"]) > 0
            await until(lambda: status_of(client, "/readyz", 503))
            assert (await client.get("/healthz")).status_code == 200
            database.start()
            await until(lambda: status_of(client, "/readyz", 200))
            assert (await client.get("/v1/notes/entries/a")).json() == 1
            assert (await client.put("/v1/notes/entries/a", json=3)).status_code == 204
        database.stop()


async def status_of(client: httpx.AsyncClient, path: str, status: int) -> bool:
    return (await client.get(path)).status_code == status


def test_replicas_that_start_together_create_a_store_once(database: Database) -> None:
    program = "from treehub_level.cli import main; main()"
    serve = ["serve", "--backend", "postgres", database.url, "--create", "together", "--port", "0"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, *serve], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for _ in range(3)
    ]
    servers = set()
    for process in processes:
        with process:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            servers.add(httpx.get(f"{url}/v1/together").json()["server"])
            process.terminate()
    assert len(servers) == 1


def test_a_replica_reads_the_database_url_from_the_environment(database: Database) -> None:
    replica = Replica(database.url)
    assert httpx.get(replica.url).json()["cid"] == 0
    replica.kill()


@pytest.mark.parametrize("url", [f"postgresql://alice:{SECRET}@127.0.0.1:1/x", f"nonsense://alice:{SECRET}@x"])
def test_the_error_for_an_unreachable_database_omits_the_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREEHUB_LEVEL_ROOT", url)
    result = invoke("serve", "--backend", "postgres", "--port", "0")
    assert result.exit_code == 1
    assert "error: " in result.stderr
    assert SECRET not in result.output
