"""Servers over shared stores: lookup, readiness, and the responses during outages."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from treehub_level import CommitUnknownError, Level, MemoryBackend, UnavailableError, blocking
from treehub_level.backends.base import Transaction
from treehub_level.errors import StorageError
from treehub_level.http import Hub, create_app
from treehub_level.http.server.catalog import DirectoryCatalog

pytestmark = pytest.mark.once

SECRET = "postgresql://alice:s3cr3t@example.org"


class FailingBackend(MemoryBackend):
    """A backend whose transactions fail while ``error`` is set."""

    error: StorageError | None = None

    def exclusive(self) -> AbstractContextManager[Transaction]:
        """See `Backend.exclusive`."""
        if self.error is not None:
            raise self.error
        return super().exclusive()


def client_of(hub: Hub) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(hub)), base_url="http://localhost")


def make(path: Path, mode: Any = Level.SERVER, **values: Any) -> None:
    """Create a store in a file with these entries."""
    with blocking.Level(path, backend="sqlite", mode=mode) as level:
        for key, value in values.items():
            level.put(key, value)


async def test_the_server_stores_in_files_are_served_under_their_names(tmp_path: Path) -> None:
    make(tmp_path / "notes.sqlite", a=1)
    make(tmp_path / "plain.sqlite", Level.NORMAL)
    make(tmp_path / "UPPER.sqlite")
    make(tmp_path / "other.db")
    (tmp_path / "folder.sqlite").mkdir()
    async with Hub(tmp_path, backend="sqlite", create=["made"]) as hub, client_of(hub) as client:
        assert hub.names() == ["made", "notes", "plain"]
        assert (await client.get("/v1/notes/entries/a")).json() == 1
        assert (await client.get("/v1/made")).json()["cid"] == 0
        for name in ("plain", "UPPER", "other", "folder", "absent", "notes.sqlite"):
            assert (await client.get(f"/v1/{name}")).status_code == 404
    assert not (tmp_path / "absent.sqlite").exists()


async def test_a_file_that_is_a_store_is_served_under_its_own_name(tmp_path: Path) -> None:
    make(tmp_path / "notes.sqlite", a=1)
    make(tmp_path / "other.sqlite")
    async with Hub(tmp_path / "notes.sqlite", backend="sqlite") as hub, hub.use("notes") as level:
        assert hub.names() == ["notes"]
        assert await level.get("a") == 1


async def test_a_file_of_another_program_is_refused_and_unchanged(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "photos.sqlite")) as connection:
        connection.execute("CREATE TABLE photos (id)")
    before = (tmp_path / "photos.sqlite").read_bytes()
    async with Hub(tmp_path, backend="sqlite") as hub, client_of(hub) as client:
        assert (await client.get("/v1/photos")).status_code == 503
    assert (tmp_path / "photos.sqlite").read_bytes() == before


@pytest.mark.parametrize("error", [UnavailableError(SECRET), CommitUnknownError(SECRET)])
async def test_a_failing_database_is_503_with_retry_after(error: StorageError) -> None:
    backend = FailingBackend("notes")
    async with (
        Level("notes", backend=lambda _: backend, mode=Level.SERVER) as level,
        Hub(levels={"notes": level}) as hub,
        client_of(hub) as client,
    ):
        backend.error = error
        response = await client.put("/v1/notes/entries/a", json=1)
        assert (response.status_code, response.json()["code"]) == (503, error.code)
        assert int(response.headers["retry-after"]) > 0
        assert "s3cr3t" not in response.text
        backend.error = None
        assert (await client.put("/v1/notes/entries/a", json=1)).status_code == 204


async def test_a_server_without_its_stores_is_healthy_and_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("treehub_level.http.server.hub._PROBE_SECONDS", 0)
    folder = tmp_path / "stores"
    async with Hub(folder, create=["notes"]) as hub, client_of(hub) as client:
        assert (await client.get("/readyz")).status_code == 200
        folder.rename(tmp_path / "away")
        response = await client.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"status": "unavailable"})
        assert (await client.get("/healthz")).status_code == 200
        (tmp_path / "away").rename(folder)
        assert (await client.get("/readyz")).status_code == 200
    assert "the stores cannot be reached: LEVEL_STORAGE" in caplog.text


async def test_concurrent_readiness_checks_probe_the_stores_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes: list[Any] = []
    monkeypatch.setattr(DirectoryCatalog, "check", lambda catalog: probes.append(catalog))
    async with Hub(tmp_path) as hub, client_of(hub) as client:
        probes.clear()
        await asyncio.gather(*(client.get("/readyz") for _ in range(20)))
        await client.get("/readyz")
    assert len(probes) == 1
