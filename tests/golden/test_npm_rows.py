"""Stores of the npm package @treehub/level on LevelDB, made here byte by byte."""

import json
from pathlib import Path
from typing import Any

import pytest
from stores import Stores

from treehub_level import Level, ModeMismatchError, StateError, blocking


def javascript_json(value: Any) -> Any:
    """The JSON of a value, as JavaScript's JSON.stringify writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def server_rows(count: int, prefix: str = "!") -> Any:
    """The rows and the data of a server with ``count`` changes.

    The changes put keys k1, k2, …; every fourth change deletes the key of the change before it.
    """
    data: dict[str, Any] = {}
    rows: dict[str, Any] = {}
    for cid in range(1, count + 1):
        key = f"k{cid}" if cid % 4 else f"k{cid - 1}"
        rows[f"{prefix}{cid}"] = [key, {"n": cid}] if cid % 4 else [key]
        if cid % 4:
            data[key] = {"n": cid}
        else:
            del data[key]
    rows |= data
    rows[prefix] = count
    return {key.encode(): javascript_json(value) for key, value in rows.items()}, data


CLIENT = {b"!": b"5", b"a": b"1", b"foo": b'"bar"', b"!foo": b'["foo","bar"]', b"!gone": b'["gone"]'}


async def test_a_client_store_opens_unaltered(stores: Stores) -> None:
    stores.seed("client", CLIENT.items())
    client = await stores.open("client", mode=Level.CLIENT)

    assert client.cid == 5
    assert await client.query() == [("a", 1), ("foo", "bar")]
    assert await client.dirty() == [["foo", "bar"], ["gone"]]
    stored = await stores.bytes_of(client)
    assert {key: stored[key] for key in CLIENT} == CLIENT


async def test_a_client_store_that_never_synchronised_opens_unaltered(stores: Stores) -> None:
    stores.seed("client", [(b"10", b"1"), (b"!10", b'["10",1]'), (b"2", b"2"), (b"!2", b'["2",2]')])
    client = await stores.open("client", mode=Level.CLIENT)
    assert client.cid == 0
    assert await client.dirty() == [["10", 1], ["2", 2]]


@pytest.mark.parametrize("count", [1, 8, 9])
async def test_a_server_store_with_up_to_nine_changes_opens_unaltered(stores: Stores, count: int) -> None:
    rows, data = server_rows(count)
    stores.seed("server", rows.items())
    server = await stores.open("server", mode=Level.SERVER)

    assert server.cid == count
    assert dict(await server.query()) == data
    assert [change.cid for change in (await server.changes(0)).changes] == list(range(1, count + 1))
    await server.load((f"new{n}", n) for n in range(5))
    assert server.cid == count + 5
    assert (await server.changes(count)).changes == [[f"new{n}", n] for n in range(5)]


@pytest.mark.parametrize("count", [10, 11, 99, 101, 1234])
@pytest.mark.parametrize("prefix", ["!", "#/"])
async def test_a_server_store_with_more_changes_is_refused_then_upgraded(
    stores: Stores, count: int, prefix: str
) -> None:
    rows, data = server_rows(count, prefix)
    stores.seed("server", rows.items())

    with pytest.raises(StateError, match=r"treehub-level upgrade .*server"):
        await stores.open("server", mode=Level.SERVER, prefix=prefix)
    assert stores.raw("server") == rows

    assert stores.upgrade("server", prefix=prefix) == count - 9
    assert stores.upgrade("server", prefix=prefix) == 0
    server = await stores.open("server", mode=Level.SERVER, prefix=prefix)
    assert server.cid == count
    assert dict(await server.query()) == data
    page = await server.changes(0, limit=None)
    assert [change.cid for change in page.changes] == list(range(1, count + 1))
    assert page.changes == [json.loads(rows[f"{prefix}{cid}".encode()]) for cid in range(1, count + 1)]


@pytest.mark.parametrize("done", [1, 13, 89])
async def test_an_upgrade_that_was_interrupted_is_finished_by_the_next(stores: Stores, done: int) -> None:
    rows, data = server_rows(98)
    for cid in range(10, 10 + done):
        rows[f"!:{cid}".encode()] = rows.pop(f"!{cid}".encode())
    stores.seed("server", rows.items())

    if done < 89:
        with pytest.raises(StateError, match="upgrade"):
            await stores.open("server", mode=Level.SERVER)
    assert stores.upgrade("server") == 89 - done
    server = await stores.open("server", mode=Level.SERVER)
    assert server.cid == 98
    assert dict(await server.query()) == data


async def test_an_upgrade_reports_progress_and_leaves_other_stores_alone(stores: Stores) -> None:
    rows, _ = server_rows(2500)
    stores.seed("server", rows.items())
    seen: list[int] = []
    assert stores.upgrade("server", progress=seen.append) == 2491
    assert seen[-1] == 2491
    assert seen == sorted(seen)

    stores.seed("client", CLIENT.items())
    assert stores.upgrade("client") == 0
    assert stores.raw("client") == CLIENT
    level = await stores.open("ours", mode=Level.SERVER)
    await level.load((f"k{n}", n) for n in range(20))
    ours = await stores.bytes_of(level)
    await level.close()
    assert stores.upgrade("ours") == 0
    assert stores.raw("ours") == ours


def test_an_upgrade_of_a_missing_store_is_refused_and_creates_no_store(tmp_path: Path) -> None:
    with pytest.raises(StateError):
        blocking.upgrade(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


async def test_a_client_opened_as_a_server_is_refused(stores: Stores) -> None:
    """The npm package opened it, and served dirty changes under keys that were not numbers."""
    stores.seed("client", CLIENT.items())
    with pytest.raises(ModeMismatchError):
        await stores.open("client", mode=Level.SERVER)
    assert stores.raw("client") == CLIENT


@pytest.mark.parametrize("count", [9, 30])
async def test_a_server_opened_as_a_client_is_refused(stores: Stores, count: int) -> None:
    rows, _ = server_rows(count)
    stores.seed("server", rows.items())
    with pytest.raises(ModeMismatchError):
        await stores.open("server", mode=Level.CLIENT)
    assert stores.raw("server") == rows


async def test_white_space_and_escapes_in_its_records_are_read(stores: Stores) -> None:
    stores.seed(
        "client",
        [(b"!", b" 5 "), ("é".encode(), b'{ "x" : 1 }'), ("!é".encode(), b'[ "\\u00e9" , { "x" : 1 } ]')],
    )
    client = await stores.open("client", mode=Level.CLIENT)
    assert client.cid == 5
    assert await client.dirty() == [["é", {"x": 1}]]
    await client.clean(6, await client.dirty())
    assert await client.pending() == 0


async def test_stores_of_the_npm_package_synchronise(stores: Stores) -> None:
    rows, _ = server_rows(30)
    stores.seed("server", rows.items())
    stores.upgrade("server")
    stores.seed("client", CLIENT.items())
    server = await stores.open("server", mode=Level.SERVER)
    client = await stores.open("client", mode=Level.CLIENT)

    report = await client.sync(server)

    assert report.pushed == 2
    assert await server.get("foo") == "bar"
    assert client.cid == server.cid
    assert await client.pending() == 0
