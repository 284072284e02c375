"""Damaged records do not leave the server: the status is 500, never 200 with a broken body."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from served import Served

from treehub_level.engine.records import OwnRecords

pytestmark = pytest.mark.once

CLIENT_ID = "c" * 32
REQUEST: dict[str, Any] = {
    "protocol": 2,
    "server": None,
    "client": CLIENT_ID,
    "cid": 0,
    "hi": 0,
    "epochs": [],
    "nonce": "0" * 32,
    "seq": 0,
    "push": None,
    "changes": [],
    "limit": 1000,
}
#: A push: the server then reads its record of the client's last one.
PUSH: dict[str, Any] = {**REQUEST, "push": "1" * 32, "changes": [["d", 1]]}
VALUES: dict[str, Any] = {**REQUEST, "complete": [], "read": ["b"]}
FILL: dict[str, Any] = {**REQUEST, "complete": [], "fill": ["", ""]}
NDJSON = {"accept": "application/x-ndjson"}


@pytest.fixture
async def damaged(tmp_path: Path) -> AsyncIterator[Served]:
    """A server in which one bit of change 2, and of the value of ``b``, has flipped."""
    server = Served(tmp_path)
    await server.start()
    for key in "abc":
        await server.levels["notes"].put(key, {"n": key})
    server.memories["notes"].write([(b"!2", b'["b",{"n"2"b"}]'), (b"b", b'{"n"2"b"}')])
    yield server
    await server.stop()


async def answers(served: Served) -> dict[str, httpx.Response]:
    """Return the response to each request that sends the change or the value."""
    client = served.client
    return {
        "exchange": await client.post("/v1/notes/exchange", json=REQUEST),
        "exchange in lines": await client.post("/v1/notes/exchange", json=REQUEST, headers=NDJSON),
        "values": await client.post("/v1/notes/exchange", json=VALUES),
        "entries of a range": await client.post("/v1/notes/exchange", json=FILL, headers=NDJSON),
        "changes": await client.get("/v1/notes/changes"),
        "changes in lines": await client.get("/v1/notes/changes", headers=NDJSON),
        "get": await client.get("/v1/notes/entries/b"),
        "entries": await client.get("/v1/notes/entries"),
        "entries in lines": await client.get("/v1/notes/entries", headers=NDJSON),
    }


async def test_a_damaged_record_is_answered_with_500_and_a_code(damaged: Served) -> None:
    for name, response in (await answers(damaged)).items():
        code = "LEVEL_DECODE" if name.startswith(("get", "entries", "values")) else "LEVEL_CORRUPTION"
        assert (response.status_code, response.json()["code"]) == (500, code), name
    assert (await damaged.client.get("/v1/notes/changes?limit=1")).status_code == 200
    assert (await damaged.client.get("/v1/notes/entries/c")).json() == {"n": "c"}


@pytest.mark.parametrize("record", [b"!!floor", b"!!epochs", b"!!client/" + CLIENT_ID.encode()])
async def test_a_damaged_own_record_is_answered_with_500(damaged: Served, record: bytes) -> None:
    damaged.memories["notes"].write([(record, b"[9,9]")])
    response = await damaged.client.post("/v1/notes/exchange", json=PUSH)
    assert (response.status_code, response.json()["code"]) == (500, "LEVEL_CORRUPTION")


async def test_without_the_check_the_body_is_no_json(damaged: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OwnRecords, "check_outgoing", lambda *_: None)
    monkeypatch.setattr(OwnRecords, "check_outgoing_rows", lambda *_: None)
    for name, response in (await answers(damaged)).items():
        assert response.status_code == 200, name
        with pytest.raises(orjson.JSONDecodeError):
            _ = [orjson.loads(line) for line in response.content.splitlines()]
