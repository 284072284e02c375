"""The encodings ``value_encoding="bytes"`` and ``key_encoding="bytes"`` store bytes unchanged."""

from typing import Any

import pytest
from stores import Stores

from treehub_level import Put

BLOBS = [b"", b"\x00", b"\xff\xfe", b"null", bytes(range(256)), b"x" * 100_000]


async def test_bytes_values_are_stored_unchanged(stores: Stores) -> None:
    level = await stores.open("store", value_encoding="bytes")
    for n, blob in enumerate(BLOBS):
        await level.put(f"k{n}", blob)

    assert await level.values() == BLOBS
    assert await level.get("k2") == b"\xff\xfe"
    assert await stores.bytes_of(level) == {b"k%d" % n: blob for n, blob in enumerate(BLOBS)}


async def test_bytes_keys_are_stored_unchanged(stores: Stores) -> None:
    level = await stores.open("store", key_encoding="bytes")
    keys = [b"", b"\x00", b"!", b"a", b"\x80", b"\xff", b"\xff\xff"]
    await level.load((key, n) for n, key in enumerate(keys))

    assert await level.keys() == keys
    assert await level.query(gt=b"a", lte=b"\xff") == [(b"\x80", 4), (b"\xff", 5)]
    assert await level.query(prefix=b"\xff") == [(b"\xff", 5), (b"\xff\xff", 6)]
    assert await level.keys(gte=b"", limit=2) == [b"", b"\x00"]
    assert await level.get_many([b"!", b"?"]) == [2, None]
    assert await level.clear(prefix=b"\xff") == 2


async def test_bytes_keys_and_values_together(stores: Stores) -> None:
    level = await stores.open("store", key_encoding="bytes", value_encoding="bytes")
    await level.batch([Put(b"\xff", b"\xfe"), {"type": "put", "key": b"a", "value": b""}, {"type": "del", "key": b"b"}])
    assert await level.query() == [(b"a", b""), (b"\xff", b"\xfe")]
    assert [pair async for pair in level.scan(reverse=True)] == [(b"\xff", b"\xfe"), (b"a", b"")]
    assert await level.query(filter=lambda key, value: value == b"") == [(b"a", b"")]


@pytest.mark.parametrize("value", [None, "str", 1, [b"a"], bytearray(b"a")], ids=repr)
async def test_a_value_that_is_not_bytes_is_refused(stores: Stores, value: Any) -> None:
    level = await stores.open("store", value_encoding="bytes")
    with pytest.raises(TypeError):
        await level.put("a", value)
    assert await level.count() == 0


@pytest.mark.parametrize("key", [None, "str", 1], ids=repr)
async def test_a_key_that_is_not_bytes_is_refused(stores: Stores, key: Any) -> None:
    level = await stores.open("store", key_encoding="bytes")
    for call in (level.put(key, 1), level.get(key), level.delete(key), level.has(key)):
        with pytest.raises(TypeError):
            await call
    if key is not None:
        with pytest.raises(TypeError):
            await level.query(gt=key)
    assert await level.count() == 0


async def test_sublevels_work_with_bytes_values(stores: Stores) -> None:
    level = await stores.open("store", value_encoding="bytes")
    await level.sublevel("sub").put("a", b"\xff")
    assert await level.query() == [("sub/a", b"\xff")]
