"""Bad input raises the documented error, writes nothing, and leaves the CID unchanged.

Each case compares the bytes of the complete store before and after the call.
"""

import math
from contextlib import asynccontextmanager
from typing import Any

import pytest
from stores import Stores

from treehub_level import Change, CIDMismatchError, InvalidKeyError, InvalidValueError, Level, Mode, ProtocolError, Put


@pytest.fixture
def refusal(stores: Stores) -> Any:
    """A context whose block must raise an error and write nothing."""

    @asynccontextmanager
    async def refused(level: Any, *errors: Any) -> Any:
        before, cid = await stores.bytes_of(level), None if level.mode is Level.NORMAL else level.cid
        with pytest.raises(errors) as caught:
            yield caught
        assert cid is None or level.cid == cid
        assert await stores.bytes_of(level) == before

    return refused


# --------------------------------------------------------------------------------------------- keys

WRONG_TYPE_KEYS = [None, 5, 1.5, True, b"a", ["a"], ("a",), object]
SYNC_KEYS = {
    "empty": "",
    "the prefix": "!",
    "a log key": "!1",
    "a dirty key": "!foo",
    "an own record": "!!store",
    "a space": " a",
    "NUL": "\x00",
    "a tab": "\tx",
    "1025 bytes": "k" * 1025,
    "1026 bytes of two-byte characters": "é" * 513,
    "a lone surrogate": "a\ud800",
}


def writes(level: Any, key: Any) -> Any:
    """Return a call of each method that writes a key."""
    return (
        level.put(key, 1),
        level.delete(key),
        level.batch([Put("ok", 1), Put(key, 1)]),
        level.batch([{"type": "del", "key": key}]),
        level.load([(key, 1)]),
    )


@pytest.mark.parametrize("what", SYNC_KEYS)
@pytest.mark.parametrize("sync_mode", [Level.SERVER, Level.CLIENT], ids=["mode=server", "mode=client"])
async def test_a_key_that_the_mode_cannot_hold(stores: Stores, refusal: Any, sync_mode: Mode, what: str) -> None:
    level = await stores.open("store", mode=sync_mode)
    await level.put("a", 1)
    async with refusal(level, InvalidKeyError) as caught:
        for write in writes(level, SYNC_KEYS[what]):
            with pytest.raises(InvalidKeyError):
                await write
        with pytest.raises(InvalidKeyError):
            async with level.write_batch() as batch:
                batch.put("ok", 1)
                batch.put(SYNC_KEYS[what], 1)
        await level.put(SYNC_KEYS[what], 1)
    assert caught.value.code == "LEVEL_INVALID_KEY"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("key", WRONG_TYPE_KEYS, ids=repr)
async def test_a_key_of_a_wrong_type(stores: Stores, refusal: Any, mode: Mode, key: Any) -> None:
    level = await stores.open("store", mode=mode)
    await level.put("a", 1)
    async with refusal(level, TypeError):
        for write in writes(level, key):
            with pytest.raises(TypeError):
                await write
        await level.put(key, 1)


@pytest.mark.parametrize("key", [chr(0xD800), chr(0xDFFF), f"a{chr(0xDC80)}b"], ids=ascii)
async def test_a_lone_surrogate_in_a_plain_store(level: Any, refusal: Any, key: Any) -> None:
    async with refusal(level, InvalidKeyError):
        for write in writes(level, key):
            with pytest.raises(InvalidKeyError):
                await write
        await level.put(key, 1)


# ------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("value", [math.nan, 2**64, {1}, {1: 2}, b"x"], ids=repr)
async def test_every_writing_method_refuses_a_value_that_json_cannot_round_trip(
    stores: Stores, refusal: Any, mode: Mode, value: Any
) -> None:
    level = await stores.open("store", mode=mode)
    await level.put("a", 1)
    async with refusal(level, InvalidValueError):
        for write in (
            level.put("a", value),
            level.batch([Put("a", 2), Put("b", value)]),
            level.load([("a", 2), ("b", value)]),
        ):
            with pytest.raises(InvalidValueError):
                await write
        async with level.write_batch() as batch:
            batch.put("a", 2)
            batch.put("b", value)


# --------------------------------------------------------------------------------------------- CIDs

NO_INTS = ["x", "1", None, True, False, 1.5, 3.0, [3]]


@pytest.mark.parametrize("cid", NO_INTS, ids=repr)
async def test_a_cid_that_is_not_an_int(server: Any, client: Any, refusal: Any, cid: Any) -> None:
    """`@treehub/level` accepted "x", true, 1.5 and -1."""
    await server.load([("a", 1), ("b", 1), ("c", 1)])
    await client.apply(3, [["a", 1]])
    async with refusal(server, TypeError):
        await server.change(cid, [["d", 1]])
    async with refusal(client, TypeError):
        await client.apply(cid, [["d", 1]])
    async with refusal(client, TypeError):
        await client.clean(cid, ["d"])


@pytest.mark.parametrize("cid", [-1, 2, 4, 2**53, 2**64], ids=repr)
async def test_a_push_from_a_cid_that_is_not_the_servers(server: Any, refusal: Any, cid: Any) -> None:
    await server.load([("a", 1), ("b", 1), ("c", 1)])
    async with refusal(server, CIDMismatchError):
        await server.change(cid, [["d", 1]])


@pytest.mark.parametrize("cid", [-1, 0, 2], ids=repr)
async def test_a_page_or_an_acknowledgement_below_the_cid_of_the_client(client: Any, refusal: Any, cid: Any) -> None:
    await client.apply(3, [["a", 1]])
    async with refusal(client, CIDMismatchError):
        await client.apply(cid, [["d", 1]])
    async with refusal(client, CIDMismatchError):
        await client.clean(cid, ["d"])


@pytest.mark.parametrize("cid", [2**53, 2**64], ids=repr)
async def test_a_page_or_an_acknowledgement_above_the_highest_cid(client: Any, refusal: Any, cid: Any) -> None:
    await client.apply(3, [["a", 1]])
    async with refusal(client, ValueError, CIDMismatchError):
        await client.apply(cid, [["d", 1]])
    async with refusal(client, ValueError, CIDMismatchError):
        await client.clean(cid, ["d"])


# ------------------------------------------------------------------------------------------ changes

MALFORMED: dict[str, Any] = {
    "a str": "xy",
    "bytes": b"xy",
    "a dict": {"a": 1},
    "None": None,
    "an int": 5,
    "a change that is a str": ["ab"],
    "a change that is a dict": [{"type": "put", "key": "a", "value": 1}],
    "a change that is None": [None],
    "an empty change": [[]],
    "a change of three": [["a", 1, 2]],
    "a key that is no str": [[1, 2]],
    "a key that is None": [[None]],
    "an empty key": [["", 1]],
    "the CID's key": [["!", 1000]],
    "a log key": [["!1", ["a", 1]]],
    "an own record": [["!!store", {}]],
    "a key before the prefix": [[" ", 1]],
    "a key with a lone surrogate": [["\ud800", 1]],
    "a key of 1025 bytes": [["k" * 1025]],
    "NaN": [["a", math.nan]],
    "a set": [["a", {1}]],
    "an int of 65 bits": [["a", 2**64]],
    "a value of more than 4 MiB": [["a", "x" * (4 << 20)]],
    "a Change with a bad key": [Change("!", 1)],
    "a good one before a bad one": [["a", 1], ["!", 2]],
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_malformed_changes(server: Any, client: Any, refusal: Any, what: str) -> None:
    """`@treehub/level` accepted `change(1, "xy")`; pushed keys `!` and `!1` forged CID and log."""
    await server.put("a", 0)
    await client.apply(1, [["a", 0]])
    await client.put("b", 1)
    async with refusal(server, ProtocolError) as caught:
        await server.change(1, MALFORMED[what])
    assert caught.value.code == "LEVEL_PROTOCOL"
    async with refusal(client, ProtocolError):
        await client.apply(2, MALFORMED[what])


async def test_a_page_with_changes_that_ends_at_cid_0(client: Any, refusal: Any) -> None:
    async with refusal(client, ProtocolError):
        await client.apply(0, [["a", 1]])


async def test_a_push_that_holds_a_key_twice(server: Any, refusal: Any) -> None:
    async with refusal(server, ProtocolError):
        await server.change(0, [["a", 1], ["b", 1], ["a", 2]])


@pytest.mark.parametrize("keys", ["a", b"a", None, 5], ids=repr)
async def test_clean_with_an_argument_that_is_not_a_list(client: Any, refusal: Any, keys: Any) -> None:
    await client.put("a", 1)
    async with refusal(client, TypeError):
        await client.clean(1, keys)


@pytest.mark.parametrize("key", [5, None, [], ["a", 1, 2], {"a": 1}], ids=repr)
async def test_clean_with_an_item_that_is_neither_key_nor_change(client: Any, refusal: Any, key: Any) -> None:
    await client.put("a", 1)
    async with refusal(client, TypeError, ProtocolError):
        await client.clean(1, ["a", key])


@pytest.mark.parametrize("key", ["", "!", "!a", "\ud800"], ids=ascii)
async def test_clean_with_an_invalid_key(client: Any, refusal: Any, key: Any) -> None:
    await client.put("a", 1)
    async with refusal(client, InvalidKeyError):
        await client.clean(1, [key])


async def test_apply_without_changes(client: Any, refusal: Any) -> None:
    async with refusal(client, TypeError, ProtocolError):
        await client.apply(5)


@pytest.mark.parametrize("durable", [0, 1, "yes"], ids=repr)
async def test_durable_that_is_not_a_bool(level: Any, refusal: Any, durable: Any) -> None:
    async with refusal(level, TypeError):
        await level.put("a", 1, durable=durable)
