"""Backups of the databases of a server: for operators, and in turns."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from waiting import until

from treehub_level import ForbiddenError, Level, StateError, TransportError, blocking, restore
from treehub_level.http import Hub, RemoteServer, Tokens, create_app
from treehub_level.http.server.refusals import RefusedError

pytestmark = pytest.mark.once


def backups_in(folder: Path) -> list[Path]:
    """Return the complete backups in a folder, the oldest first."""
    return sorted(path for path in folder.iterdir() if path.name[0].isdigit()) if folder.exists() else []


def served(tmp_path: Path, **options: Any) -> Hub:
    """Return a hub with the databases ``notes`` and ``shop``."""
    return Hub(tmp_path / "stores", create=["notes", "shop"], **options)


async def test_a_hub_backs_up_a_database_to_any_path(tmp_path: Path) -> None:
    async with served(tmp_path) as hub:
        async with hub.use("notes") as level:
            await level.put("a", 1)
        report = await hub.backup("notes", tmp_path / "backup")
        assert (report.path, report.cid) == (str(tmp_path / "backup"), 1)
        with pytest.raises(StateError):
            await hub.backup("notes", tmp_path / "backup")
        with pytest.raises(RefusedError):
            await hub.backup("absent", tmp_path / "other")
    restore(tmp_path / "backup", tmp_path / "restored")
    with blocking.Level(tmp_path / "restored", mode=Level.SERVER) as restored:
        assert restored["a"] == 1


async def test_only_operators_have_a_server_back_up_and_never_choose_the_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens(tmp_path / "tokens")
    operator = tokens.add(databases=["notes"], operator=True, name="operator")
    writer = tokens.add(databases=["*"], write=True, name="writer")
    hub = served(tmp_path, backup_to=tmp_path / "backups", keep_backups=2)
    transport = httpx.ASGITransport(create_app(hub, tokens=tokens, hosts=["test"]))
    async with hub, httpx.AsyncClient(transport=transport, base_url="http://test") as client:

        async def post(token: str, name: str = "notes", **options: Any) -> httpx.Response:
            headers = {"authorization": f"Bearer {token}"}
            return await client.post(f"/v1/{name}/backup", headers=headers, **options)

        answers = [await post(operator, json={"path": "/etc"}, params={"path": "/etc"}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        kept = backups_in(tmp_path / "backups" / "notes")
        assert [path.name for path in kept] == [answer.json()["name"] for answer in answers[1:]]
        assert answers[0].json().keys() == {"name", "cid", "bytes", "new_bytes"}
        assert (await post(writer)).json()["code"] == "LEVEL_FORBIDDEN"
        assert (await post(operator, "shop")).status_code == 404
        assert os.listdir(tmp_path / "backups") == ["notes"]
        # A failure is explained to the administrator, in the log, and names no path to the caller.
        (tmp_path / "backups" / "notes" / "next.partial").mkdir()
        (tmp_path / "backups" / "notes" / "next.partial" / "mine").write_text("")
        with caplog.at_level(logging.ERROR):
            failed = await post(operator)
        assert (failed.status_code, failed.json()["code"]) == (500, "LEVEL_BACKUP_FAILED")
        assert str(tmp_path) not in failed.text
        assert "holds other files than an unfinished store" in caplog.text
        assert backups_in(tmp_path / "backups" / "notes") == kept


async def test_a_remote_server_backs_up_itself(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens")
    operator, writer = (
        tokens.add(databases=["*"], write=True, operator=operator, name="caller") for operator in (True, False)
    )
    for backup_to in (tmp_path / "backups", None):
        hub = served(tmp_path, backup_to=backup_to)
        app = create_app(hub, tokens=tokens, hosts=["test"])
        transport = httpx.ASGITransport(app)
        async with hub:
            async with RemoteServer(
                "http://test/v1/notes", token=operator, transport=transport, insecure=True
            ) as remote:
                await remote.put("a", 1)
                if backup_to is None:
                    with pytest.raises(TransportError, match="no folder for backups"):
                        await remote.backup()
                else:
                    backup = await remote.backup()
                    assert backup["cid"] == 1
                    assert [path.name for path in backups_in(backup_to / "notes")] == [backup["name"]]
            async with RemoteServer("http://test/v1/notes", token=writer, transport=transport, insecure=True) as remote:
                with pytest.raises(ForbiddenError):
                    await remote.backup()


async def test_each_database_is_backed_up_in_turns_and_the_newest_are_kept(tmp_path: Path) -> None:
    hub = served(tmp_path, backup_to=tmp_path / "backups", keep_backups=2)
    hub.back_up_every(0.05)
    async with hub:
        folders = [tmp_path / "backups" / name for name in ("notes", "shop")]
        await until(lambda: backups_in(folders[0]))
        first = backups_in(folders[0])[0]
        await until(lambda: first not in backups_in(folders[0]))
        await until(lambda: len(backups_in(folders[1])) == 2)
    for folder in folders:
        assert 1 <= len(backups_in(folder)) <= 3
        for path in backups_in(folder):
            assert blocking.verify(path).ok
    with pytest.raises(ValueError, match="no folder"):
        served(tmp_path).back_up_every(1)


async def test_a_hub_that_stops_ends_a_backup(tmp_path: Path) -> None:
    async with served(tmp_path) as hub:
        async with hub.use("notes") as level:
            await level.load([(f"key {number}", "x" * 1000) for number in range(8000)])
        taking = asyncio.ensure_future(hub.backup("notes", tmp_path / "backup"))
        await until(lambda: (tmp_path / "backup.partial").exists())
        hub.stop()
        with pytest.raises(RefusedError, match="about to stop"):
            await taking
    assert not (tmp_path / "backup").exists()
    async with served(tmp_path) as hub:
        report = await hub.backup("notes", tmp_path / "backup")
        assert report.cid == 8000


@pytest.mark.parametrize("where", ["", "within", "within/deep"])
def test_backups_are_not_put_among_the_stores(tmp_path: Path, where: str) -> None:
    with pytest.raises(ValueError, match="among the stores"):
        served(tmp_path, backup_to=tmp_path / "stores" / where)
