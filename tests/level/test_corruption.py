"""Bytes that treehub-level cannot have written: each raises an error that names the record."""

from typing import Any

import pytest
from stores import Stores

from treehub_level import (
    CorruptionError,
    DecodeError,
    Level,
    MemoryBackend,
    Mode,
    ModeMismatchError,
    StateError,
    blocking,
)

STORE_ID = b"0123456789abcdef0123456789abcdef"
SERVER = {
    b"!!store": b'{"id":"%s","mode":"server","format":1}' % STORE_ID,
    b"!!epochs": b'[["%s",0]]' % STORE_ID,
    b"!": b"2",
    b"!1": b'["a",1]',
    b"!2": b'["b"]',
    b"a": b"1",
}
CLIENT = {
    b"!!store": b'{"id":"%s","mode":"client","format":1}' % STORE_ID,
    b"!!id": b'["%s",0]' % STORE_ID,
    b"!": b"2",
    b"!a": b'["a",1]',
    b"a": b"1",
}


async def opened(stores: Stores, rows: Any, changed: Any, **options: Any) -> Any:
    """Open a store of these rows, with some of them changed, or removed (``None``)."""
    merged = {key: value for key, value in (rows | changed).items() if value is not None}
    stores.seed("store", merged.items())
    return await stores.open("store", **options)


async def test_an_intact_store_opens(stores: Stores) -> None:
    server = await opened(stores, SERVER, {}, mode=Level.SERVER)
    assert (await server.changes(0)).changes == [["a", 1], ["b"]]


@pytest.mark.parametrize(
    "changed",
    [
        {b"!!store": b"nonsense"},
        {b"!!store": b"[]"},
        {b"!!store": b"{}"},
        {b"!!store": b'{"id":"zz","mode":"server","format":1}'},
        {b"!!store": b'{"id":"%s","mode":"master","format":1}' % STORE_ID},
        {b"!": b"x"},
        {b"!": b"-1"},
        {b"!": b"1.5"},
        {b"!": b"true"},
        {b"!": b'"2"'},
        {b"!": b"9007199254740992"},
        {b"!": None},
        {b"!": b"3"},
        {b"!2": None},
        {b"!1": None, b"!2": None},
        {b"!3": b'["c",1]'},
        {b"!4x": b'["c",1]'},
        {b"!!epochs": b"x"},
        {b"!!epochs": b"5"},
        {b"!!epochs": b"[1,2]"},
        {b"!!epochs": b'[["a"]]'},
        {b"!!epochs": b'[["%s",2]]' % STORE_ID},
        {b"!!epochs": b'[["%s",1],["%s",1]]' % (STORE_ID, STORE_ID[::-1])},
        {b"!!epochs": b'[["%s",1e99]]' % STORE_ID},
        {b"!!floor": b"x"},
        {b"!!floor": b"5"},
        {b"!!floor": b"[1]"},
        {b"!!floor": b'["x","y"]'},
        {b"!!floor": b"[1,3]"},
        {b"!!floor": b"[3,1]"},
        {b"!!floor": b"[true,false]"},
        {b"!!store": None},
    ],
    ids=repr,
)
async def test_a_server_whose_records_contradict_each_other_is_not_opened(stores: Stores, changed: Any) -> None:
    with pytest.raises(CorruptionError) as caught:
        await opened(stores, SERVER, changed, mode=Level.SERVER)
    assert caught.value.code == "LEVEL_CORRUPTION"


@pytest.mark.parametrize("changed", [{b"!!store": b"{"}, {b"!": b"-1"}, {b"!": b"true"}, {b"!": b"{"}], ids=repr)
async def test_a_client_whose_records_cannot_be_read_is_not_opened(stores: Stores, changed: Any) -> None:
    with pytest.raises(CorruptionError):
        await opened(stores, CLIENT, changed, mode=Level.CLIENT)


@pytest.mark.parametrize("mode", [Level.SERVER, Level.CLIENT], ids=["mode=server", "mode=client"])
async def test_a_store_of_a_later_format_is_not_opened(stores: Stores, mode: Mode) -> None:
    record = b'{"id":"%s","mode":"%s","format":2}' % (STORE_ID, mode.value.encode())
    with pytest.raises(StateError, match="format 2"):
        await opened(stores, SERVER if mode is Level.SERVER else CLIENT, {b"!!store": record}, mode=mode)


async def test_a_normal_store_may_hold_rows_that_look_like_damaged_metadata(stores: Stores) -> None:
    level = await opened(stores, {}, {b"!!store": b"{", b"!": b"x", b"!!adopting": b"{"})
    assert await level.count(gt="!!store") == 0
    assert await level.keys() == ["!", "!!adopting", "!!store"]


@pytest.mark.parametrize("record", [b"x", b"{}", b"[]", b"[1]", b'["c",', b'"c"'], ids=repr)
async def test_a_change_that_cannot_be_read_is_an_error_and_not_skipped(stores: Stores, record: Any) -> None:
    server = await opened(stores, SERVER, {b"!2": record}, mode=Level.SERVER)
    with pytest.raises(CorruptionError):
        await server.changes(0)
    assert (await server.changes(0, limit=1)).changes == [["a", 1]]
    with pytest.raises(CorruptionError):
        await server.compact_log()
    with pytest.raises(CorruptionError):
        async for _ in server.watch(since=1):
            pass


@pytest.mark.parametrize("record", [b"x", b"{}", b"[]", b"[1]", b"[[1],2]"], ids=repr)
async def test_a_dirty_change_that_cannot_be_read_is_an_error_and_not_skipped(
    stores: Stores, server: Any, record: Any
) -> None:
    client = await opened(stores, CLIENT, {b"!a": record, b"!": None}, mode=Level.CLIENT)
    with pytest.raises(CorruptionError):
        await client.dirty()
    with pytest.raises(CorruptionError):
        await client.sync(server)
    assert await client.query() == [("a", 1)]
    assert server.cid == 0


@pytest.mark.parametrize("record", [b"x", b"[1,2]", b'[["a"]]', b"5"], ids=repr)
def test_epochs_that_are_damaged_while_the_server_is_open_stop_writing(record: Any) -> None:
    memory = MemoryBackend("store")
    with blocking.Level("store", backend=lambda _: memory, mode=Level.SERVER) as server:
        memory.write([*SERVER.items(), (b"!!epochs", record)])
        with pytest.raises(CorruptionError, match="'store' is damaged: the record b'!!epochs'"):
            server.put("b", 1)
        assert server.cid == 2
        assert server.query() == [("a", 1)]


@pytest.mark.parametrize("record", [b"x", b"5", b"[1]", b'["x","y"]', b"[2,3]", b"[1e1,0]"], ids=repr)
def test_a_floor_that_is_damaged_while_the_server_is_open_stops_what_needs_it(record: Any) -> None:
    memory = MemoryBackend("store")
    memory.open()
    memory.write([*SERVER.items()])
    memory.close()
    with blocking.Level("store", backend=lambda _: memory, mode=Level.SERVER) as server:
        memory.write([(b"!!floor", record)])
        with pytest.raises(CorruptionError, match="'store' is damaged: the record b'!!floor'"):
            server.changes(1)
        with pytest.raises(CorruptionError, match="`treehub-level repair store`"):
            server.compact_log()


@pytest.mark.parametrize("name", [b"id", b"server", b"push", b"own", b"reset", b"follow"])
@pytest.mark.parametrize("record", [b"x", b'["x"]', b'{"x":1}'], ids=repr)
async def test_a_clients_record_that_cannot_be_read_stops_its_sync(
    stores: Stores, server: Any, name: bytes, record: Any
) -> None:
    client = await opened(stores, CLIENT, {b"!!" + name: record, b"!": None}, mode=Level.CLIENT)
    with pytest.raises(CorruptionError):
        await client.sync(server)
    assert await client.query() == [("a", 1)]
    assert server.cid == 0


@pytest.mark.parametrize("record", [b"x", b"5", b"{}", b'{"key":1}'], ids=repr)
async def test_a_conflict_that_cannot_be_read_is_an_error(stores: Stores, record: Any) -> None:
    client = await opened(stores, CLIENT, {b"!!conflict/1": record}, mode=Level.CLIENT)
    with pytest.raises(CorruptionError):
        await client.conflicts()


async def test_reading_metadata_that_is_not_json_is_a_decode_error(stores: Stores) -> None:
    server = await opened(stores, SERVER, {b"!2": b"x"}, mode=Level.SERVER)
    with pytest.raises(DecodeError, match="2"):
        await server.get("!2")


@pytest.mark.parametrize("mode", [Level.SERVER, Level.CLIENT], ids=["mode=server", "mode=client"])
async def test_a_store_with_data_below_the_prefix_is_refused(stores: Stores, mode: Mode) -> None:
    with pytest.raises(ModeMismatchError):
        await opened(stores, {}, {b"\x01": b"1"}, mode=mode)
