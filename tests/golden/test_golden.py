"""The bytes on disk: vectors of the format, golden stores, and a store read with bare LevelDB."""

from pathlib import Path
from typing import Any

import pytest
from golden import golden_stores
from stores import Stores, plyvel

from treehub_level import Delete, Level, Put, blocking

VECTORS = {
    Level.SERVER: {
        "61": "31",
        "c3a9": "7b2278223a5b312c325d7d",
        "21": "33",
        "2131": "5b2261222c315d",
        "2132": "5b2262225d",
        "2133": "5b22c3a9222c7b2278223a5b312c325d7d5d",
    },
    Level.CLIENT: {
        "666f6f": "2262617222",
        "21666f6f": "5b22666f6f222c22626172225d",
        "21f09f9880": "5b22f09f9880225d",
    },
}


def rows(vectors: Any) -> Any:
    return {bytes.fromhex(key): bytes.fromhex(value) for key, value in vectors.items()}


def without_own_records(stored: Any, prefix: bytes = b"!") -> Any:
    """The rows without the store's own records, which the vectors leave out."""
    return {key: value for key, value in stored.items() if not key.startswith(prefix * 2)}


async def test_the_vectors_of_a_server(stores: Stores, server: Any) -> None:
    await server.batch([Put("a", 1), Delete("b"), Put("é", {"x": [1, 2]})])
    stored = await stores.bytes_of(server)
    assert without_own_records(stored) == rows(VECTORS[Level.SERVER])
    assert set(stored) - set(rows(VECTORS[Level.SERVER])) == {b"!!store", b"!!epochs", b"!!commit/3"}


async def test_the_vectors_of_a_client(stores: Stores, client: Any) -> None:
    await client.put("foo", "bar")
    await client.delete("😀")
    stored = await stores.bytes_of(client)
    assert without_own_records(stored) == rows(VECTORS[Level.CLIENT])
    assert set(stored) - set(rows(VECTORS[Level.CLIENT])) == {b"!!store", b"!!id"}


@pytest.mark.parametrize(
    ("cid", "key"),
    [
        (1, b"!1"),
        (9, b"!9"),
        (10, b"!:10"),
        (99, b"!:99"),
        (100, b"!;100"),
        (1000, b"!<1000"),
        (65535, b"!=65535"),
        (1000000, b"!?1000000"),
        (4294967296, b"!B4294967296"),
        (9007199254740991, b"!H9007199254740991"),
    ],
)
async def test_the_vectors_of_change_ids(stores: Stores, cid: Any, key: Any) -> None:
    before = [(b"!", b"%d" % (cid - 1)), *([(log_key(cid - 1), b'["x"]')] if cid > 1 else [])]
    stores.seed("server", [*before, (b"!!store", b'{"id":"%s","mode":"server","format":1}' % (b"0" * 32))])
    server = await stores.open("server", mode=Level.SERVER)

    await server.put("a", 1)

    assert server.cid == cid
    assert (await stores.bytes_of(server))[key] == b'["a",1]'
    assert (await server.changes(cid - 1)).changes == [["a", 1]]
    assert await server.get(f"!{cid}") == ["a", 1]


def log_key(cid: Any) -> Any:
    """The log key by the text of the format: the digits, with their count before two or more."""
    digits = str(cid)
    return b"!" + (chr(0x38 + len(digits)) if len(digits) > 1 else "").encode() + digits.encode()


def test_the_highest_change_id_can_be_applied() -> None:
    with blocking.Level("x", backend="memory", mode=Level.CLIENT) as client:
        client.apply(2**53 - 1, [["a", 1]])
        assert client.cid == 2**53 - 1


@pytest.mark.parametrize("name", golden_stores.MAKERS)
def test_a_new_store_has_the_golden_bytes(name: str) -> None:
    for rows, side in zip(golden_stores.MAKERS[name](), ("server", "client"), strict=True):
        assert golden_stores.without_ids(rows) == golden_stores.without_ids(golden_stores.read(name, side))


@pytest.mark.parametrize("keep_base", [False, True])
@pytest.mark.parametrize(
    ("name", "files"),
    [
        *((name, name) for name in golden_stores.KINDS if name != "ranges and groups"),
        *((name, f"earlier/{name}") for name in ("plain", "long prefix")),
    ],
)
async def test_golden_stores_open_and_synchronise(stores: Stores, name: str, files: str, keep_base: bool) -> None:
    prefix, is_earlier = golden_stores.KINDS[name]["prefix"], files.startswith("earlier")
    for side in ("server", "client"):
        stores.seed(side, golden_stores.read(files, side).items())
    server = await stores.open("server", mode=Level.SERVER, prefix=prefix)
    client = await stores.open("client", mode=Level.CLIENT, prefix=prefix, keep_base=keep_base)

    assert await server.query() == [
        ("a", 1),
        ("counter", 9),
        ("mine", ["😀", None, 1.5]),
        ("😀", '\u2028\x00"'),
    ]
    assert server.cid == 16
    assert client.cid == 14
    assert await client.dirty() == [["foo", "after the push was frozen"], ["😀"]]
    (conflict,) = await client.conflicts()
    assert (conflict.local, conflict.kind) == (["a", "loses"], "conflict")
    assert conflict.base == (["a"] if name == "base values" else None)
    assert (conflict.noticed_at is None) == is_earlier

    await client.sync(server)

    assert await client.query() == await server.query()
    assert await server.get("foo") == "after the push was frozen"
    assert await client.get("é") is None
    assert await client.get("😀") == '\u2028\x00"'
    assert client.cid == server.cid

    # The log goes on with records of commits, also after changes that have none.
    await server.batch([Put("x", 1), Put("y", 2)])
    changes = (await server.changes(0, None)).changes
    times = {change.key: change.at is not None for change in changes}
    assert (times["x"], times["foo"], times["mine"]) == (True, True, not is_earlier)
    await client.sync(server)
    assert await client.query() == await server.query()


async def test_a_golden_client_follows_its_ranges_and_loses_its_group_as_a_whole(stores: Stores) -> None:
    for side in ("server", "client"):
        stores.seed(side, golden_stores.read("ranges and groups", side).items())
    server = await stores.open("server", mode=Level.SERVER)
    client = await stores.open("client", mode=Level.CLIENT)
    assert [followed.prefix for followed in await client.followed()] == ["", "é"]
    await client.sync(server)
    assert [conflict.key for conflict in await client.conflicts()] == ["a", "é", "foo", "😀"]  # "é" by a reset
    assert await client.query() == await server.query()
    assert not any(key.startswith(b"!!group/") for key in await stores.bytes_of(client))


async def test_golden_losses_are_healed_and_journaled_with_their_reasons(stores: Stores) -> None:
    for side in ("server", "client"):
        stores.seed(side, golden_stores.read("refusals", side).items())
    server = await stores.open("server", mode=Level.SERVER, check=golden_stores.refuse)
    client = await stores.open("client", mode=Level.CLIENT)
    rows = await stores.bytes_of(client)
    lost = {key for key in rows if key.startswith(b"!!lost/")}
    assert {key.removeprefix(b"!!lost/").decode() for key in lost} == {"no/1", "no/é", "pair/1", "pair/2", "pair/3"}
    assert rows["!!lost/no/é".encode()].endswith(b',"overtaken":true}')
    report = await client.sync(server)
    assert (report.pushed, report.consistent, await client.pending()) == (0, True, 0)
    assert await client.query() == await server.query() == [("no/é", "theirs"), ("pair/1", "changed"), ("yes", 2)]
    found = {conflict.key: (conflict.kind, conflict.reason) for conflict in await client.conflicts()}
    assert found == {
        "no/1": ("refused", "not these, 😀"),
        "pair/2": ("refused", "written together with a refused change: not these, 😀"),
        "no/é": ("conflict", None),  # overtaken, and written again
        "pair/1": ("conflict", None),
        "pair/3": ("conflict", None),
    }
    assert not any(key.startswith(b"!!lost/") for key in await stores.bytes_of(client))


async def test_golden_uncompared_changes_are_compared_by_the_fill(stores: Stores) -> None:
    for side in ("server", "client"):
        stores.seed(side, golden_stores.read("uncompared", side).items())
    server = await stores.open("server", mode=Level.SERVER)
    client = await stores.open("client", mode=Level.CLIENT)
    prefix = b"!!uncompared/"
    assert {key for key in await stores.bytes_of(client) if key.startswith(prefix)} == {
        prefix + b"k7",
        prefix + "new 😀".encode(),
    }
    report = await client.sync(server)
    assert [(conflict.key, conflict.kind, conflict.local.value) for conflict in report.conflicts] == [
        ("k1", "reset", 1),
        ("k7", "conflict", "written before the first fill"),
    ]
    assert (report.consistent, await client.pending()) == (True, 0)
    assert await client.query() == await server.query()
    assert not any(key.startswith(prefix) for key in await stores.bytes_of(client))


@pytest.mark.parametrize("phase", ["reset begun", "reset pulling", "reset sweeping", "reset swept in part"])
async def test_a_reset_that_an_earlier_version_has_begun_is_finished_as_a_fill(stores: Stores, phase: str) -> None:
    """The files were made before fills: a reset pulled the log from 0, and then swept the keys."""
    for side in ("server", "client"):
        stores.seed(side, golden_stores.read(f"earlier/{phase}", side).items())
    server = await stores.open("server", mode=Level.SERVER)
    client = await stores.open("client", mode=Level.CLIENT)
    report = await client.sync(server)
    assert (report.consistent, report.reset, await client.pending()) == (True, False, 0)
    assert await client.query() == await server.query()
    assert [await server.get(key) for key in ("mine", "later", "k1", "k2", "k7")] == [
        1,
        "written in the reset",
        "after the restore",
        "mine too",
        None,
    ]
    lost = {(conflict.key, conflict.kind) for conflict in await client.conflicts()}
    assert lost == {("k1", "conflict"), ("lost1", "reset"), ("lost2", "reset")}
    assert b"!!reset" not in await stores.bytes_of(client)


def test_a_store_on_disk_is_a_plain_leveldb_database(tmp_path: Path) -> None:
    with blocking.Level(tmp_path / "server", mode=Level.SERVER) as server:
        server.batch([Put("a", 1), Delete("b"), Put("é", {"x": [1, 2]})])
    with plyvel().DB(str(tmp_path / "server")) as db:
        assert without_own_records(dict(db)) == rows(VECTORS[Level.SERVER])
