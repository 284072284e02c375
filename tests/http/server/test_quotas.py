"""Quotas of databases and tokens: refusals, and clients of a database that is full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner

from treehub_level import Delete, Level, MemoryBackend, Put, TransportError
from treehub_level.cli.application import app
from treehub_level.cli.quotas import parse_quotas
from treehub_level.http import Hub, Identity, Quota, RemoteServer, Tokens, create_app
from treehub_level.http.server import quotas as quotas_module

pytestmark = pytest.mark.once


@asynccontextmanager
async def served(
    tmp_path: Path, quota: Any, authenticate: Any = None
) -> AsyncIterator[tuple[Hub, httpx.AsyncClient, RemoteServer]]:
    """A hub with the database ``notes``, an HTTP client, and the database for clients."""
    async with Hub(tmp_path, create=["notes"], quota=quota) as hub:
        application = create_app(hub, hosts=["*"], authenticate=authenticate)
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield hub, http, Exchanging(http)  # type: ignore[misc]


class Exchanging:
    """The database ``notes`` by its exchanges alone, with the errors of `RemoteServer`."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def exchange(self, request: Any, wait: float = 0) -> Any:
        response = await self._http.post("/v1/notes/exchange", json=request)
        if response.status_code not in (200, 409):
            retry_after = response.headers.get("retry-after")
            raise TransportError(
                response.json()["message"],
                status=response.status_code,
                retry_after=None if retry_after is None else float(retry_after),
            )
        return response.json()


def client_of(name: str) -> Level:
    return Level(name, backend=MemoryBackend, mode=Level.CLIENT)


async def test_a_full_database_refuses_puts_and_takes_deletes(tmp_path: Path) -> None:
    async with served(tmp_path, Quota(keys=2)) as (_, http, _):
        for key in "ab":
            assert (await http.put(f"/v1/notes/entries/{key}", json=1)).status_code == 204
        refused = await http.put("/v1/notes/entries/c", json=1)
        assert (refused.status_code, refused.json()["code"]) == (507, "LEVEL_QUOTA")
        assert refused.json()["quota"] == {"keys": 2}
        assert refused.json()["used"] == {"keys": 2, "bytes": 4}
        assert refused.headers["retry-after"] == "60"
        assert "the database notes is full: it may have 2 keys, and has 4 bytes in 2 keys" in refused.json()["message"]
        assert (await http.get("/v1/notes/entries/a")).json() == 1
        ops = [{"type": "put", "key": "d", "value": 1}, {"type": "del", "key": "a"}]
        assert (await http.post("/v1/notes/batch", json={"ops": ops})).status_code == 507
        assert (await http.delete("/v1/notes/entries/a")).status_code == 204
        assert (await http.put("/v1/notes/entries/c", json=1)).status_code == 204
        text = (await http.get("/metrics")).text
        assert 'treehub_level_quota_limit{database="notes",unit="keys"} 2.0' in text
        assert 'treehub_level_quota_used{database="notes",unit="keys"} 2.0' in text
        assert 'treehub_level_http_refused_total{reason="LEVEL_QUOTA"} 2.0' in text


async def test_bytes_are_those_of_keys_and_values(tmp_path: Path) -> None:
    async with served(tmp_path, {"notes": Quota(bytes=1000)}) as (_, http, _):
        assert (await http.put("/v1/notes/entries/a", json="x" * 900)).status_code == 204
        assert (await http.put("/v1/notes/entries/a", json="x" * 990)).status_code == 507  # may add to it
        assert (await http.put("/v1/notes/entries/b", json="x" * 50)).status_code == 204
        assert (await http.delete("/v1/notes/entries/a")).status_code == 204
        assert (await http.put("/v1/notes/entries/a", json="x" * 900)).status_code == 204


async def test_a_client_of_a_full_database_pulls_pushes_deletes_and_keeps_the_rest(tmp_path: Path) -> None:
    async with served(tmp_path, Quota(keys=3)) as (hub, _, server), client_of("phone") as phone:
        async with hub.use("notes") as level:
            await level.put("a", 1)
            await level.put("b", 1)
        await phone.sync(server)
        await phone.put("c", 1)
        await phone.sync(server)
        await phone.put("d", 1)
        await phone.batch([Put("e", 1), Delete("a")])
        await phone.delete("b")
        async with hub.use("notes") as level:
            await level.put("from the office", 1)
        with pytest.raises(TransportError) as caught:
            await phone.sync(server)
        assert caught.value.status == 507
        assert caught.value.keys == ["a", "d", "e"]  # a batch stays together
        assert "these local changes stay dirty until there is room: 'a', 'd', 'e'" in str(caught.value)
        assert await phone.get("from the office") == 1
        assert await phone.conflicts() == []
        async with hub.use("notes") as level:
            assert await level.keys() == ["a", "c", "from the office"]
            await level.delete("c")
            await level.delete("from the office")
        # There is room: the next sync pushes everything.
        hub.quotas = Quota(keys=4)
        report = await phone.sync(server)
        assert report.pushed == 3
        assert await phone.pending() == 0
        assert await phone.query() == [("d", 1), ("e", 1)]
        assert await phone.conflicts() == []


async def test_a_rate_admits_a_large_push_and_then_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("treehub_level.http.server.quotas.time.monotonic", lambda: now[0])
    async with served(tmp_path, Quota(writes_per_minute=60)) as (hub, http, server), client_of("phone") as phone:
        for number in range(180):
            await phone.put(f"k{number:03}", number)
        assert (await phone.sync(server)).pushed == 180
        refused = await http.put("/v1/notes/entries/a", json=1)
        assert (refused.status_code, refused.json()["code"]) == (429, "LEVEL_RATE")
        assert refused.headers["retry-after"] == "121"
        assert refused.json()["message"] == "this database may write 60 changes a minute: try again in 121 seconds"
        assert (await http.get("/v1/notes/entries/k001")).json() == 1
        now[0] += 121
        assert (await http.put("/v1/notes/entries/a", json=1)).status_code == 204
        await phone.put("b", 1)
        with pytest.raises(TransportError) as caught:
            await phone.sync(server)
        assert (caught.value.status, caught.value.retry_after) == (429, 1.0)
        assert await phone.pending() == 1
        now[0] += 60
        await phone.sync(server)
        assert await phone.pending() == 0
        del hub


async def test_a_rate_of_a_token_is_its_own(tmp_path: Path) -> None:
    def authenticate(request: Any) -> Identity:
        name = request.headers["x-name"]
        return Identity(name, databases=["*"], write=True, max_writes_per_minute=1 if name == "slow" else None)

    async with served(tmp_path, None, authenticate) as (_, http, _):
        statuses = [
            (await http.put("/v1/notes/entries/a", json=1, headers={"x-name": name})).status_code
            for name in ("slow", "slow", "fast", "fast")
        ]
        assert statuses == [204, 429, 204, 204]


async def test_a_large_database_is_counted_while_writes_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas_module, "_FIRST_COUNT_SECONDS", 0.001)
    counted = quotas_module.count_entries
    may_count = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(*args: Any) -> Any:
        asyncio.run_coroutine_threadsafe(may_count.wait(), loop).result()
        return counted(*args)

    monkeypatch.setattr(quotas_module, "count_entries", slow)
    async with served(tmp_path, Quota(keys=2)) as (_, http, _):
        for key in "abc":  # the size is not known yet
            assert (await http.put(f"/v1/notes/entries/{key}", json=1)).status_code == 204
        may_count.set()
        for _ in range(200):
            if (await http.put("/v1/notes/entries/d", json=1)).status_code == 507:
                break
            await asyncio.sleep(0.01)
        assert (await http.put("/v1/notes/entries/e", json=1)).status_code == 507


def test_tokens_have_a_rate(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    runner = CliRunner()
    options = ["token", "add", str(file), "--database", "notes", "--write", "--name", "alice"]
    assert runner.invoke(app, [*options, "--max-writes-per-minute", "100"]).exit_code == 0
    assert runner.invoke(app, [*options, "--max-writes-per-minute", "0"]).exit_code == 2
    tokens = Tokens(file)
    tokens.add(databases=["notes"])
    assert [token.max_writes_per_minute for token in tokens.all()] == [100, None]
    assert file.read_text().count("max_writes_per_minute") == 1  # earlier versions read the others
    for wrong in (0, -1, 1.5, True, "1"):
        with pytest.raises(ValueError, match="max_writes_per_minute"):
            tokens.add(databases=["notes"], max_writes_per_minute=wrong)  # type: ignore[arg-type]


def test_quotas_on_the_command_line() -> None:
    assert parse_quotas(["notes=10GB", "notes=5 keys", "*=1.5KiB", "a=6000/min"]) == {
        "notes": Quota(bytes=10**10, keys=5),
        "*": Quota(bytes=1536),
        "a": Quota(writes_per_minute=6000),
    }
    for wrong in ("notes", "Notes=1", "notes=", "notes=ten", "notes=-1", "notes=1XB"):
        with pytest.raises(typer.BadParameter):
            parse_quotas([wrong])
    with pytest.raises(typer.BadParameter, match="that another --quota has set"):
        parse_quotas(["notes=1GB", "notes=2GB"])
    with pytest.raises(ValueError, match="keys is a number or None, not -1"):
        Quota(keys=-1)
