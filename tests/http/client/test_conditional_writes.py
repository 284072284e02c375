"""Entity tags, conditional writes and batches of a `RemoteServer`, against the real application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import Served

from treehub_level import MISSING, ConditionError, Delete, ForbiddenError, InvalidValueError, ProtocolError, Put
from treehub_level.http import RemoteServer


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A server in this process, with tokens."""
    server = Served(tmp_path)
    await server.start()
    yield server
    await server.stop()


def connect(served: Served, **rights: Any) -> RemoteServer:
    """Return a client with a new token."""
    token = served.tokens.add(databases=["notes"], **{"write": True, **rights})
    return RemoteServer("http://localhost/v1/notes", token=token, transport=httpx.ASGITransport(served.app))


async def test_a_value_is_replaced_only_if_it_is_the_one_that_was_read(served: Served) -> None:
    async with connect(served) as remote:
        assert await remote.get_with_etag("a", "none") == ("none", None)
        await remote.put("a", 1, if_absent=True)
        value, etag = await remote.get_with_etag("a")
        assert value == 1
        assert etag is not None
        await remote.put("a", 2, if_match=etag)
        with pytest.raises(ConditionError, match="'a' has another value") as caught:
            await remote.put("a", 3, if_match=etag)
        assert (caught.value.key, caught.value.found) == ("a", 2)
        with pytest.raises(ConditionError):
            await remote.put("a", 3, if_absent=True)
        with pytest.raises(ConditionError):
            await remote.delete("a", if_match=etag)
        await remote.delete("a", if_match=(await remote.get_with_etag("a")).etag)
        with pytest.raises(ConditionError) as caught:
            await remote.put("a", 3, if_match=etag)
        assert caught.value.found is MISSING
        # The tag of an absent key is None, and asks for an absent key.
        _, etag = await remote.get_with_etag("a")
        await remote.put("a", 4, if_match=etag)
        with pytest.raises(ConditionError):
            await remote.put("a", 5, if_match=etag)
        assert await remote.get("a") == 4


async def test_a_large_value_has_a_tag_also_if_it_is_compressed(served: Served) -> None:
    async with connect(served) as remote:
        await remote.put("a", "x" * 100_000)
        await remote.put("a", 1, if_match=(await remote.get_with_etag("a")).etag)


async def test_invalid_conditions_are_not_sent(served: Served) -> None:
    async with connect(served) as remote:
        for tag in ("abc", 'W/"abc"', '"a\r\nX: 1"', '"ü"', "*", ""):
            with pytest.raises(ValueError, match="is not an ETag"):
                await remote.put("a", 1, if_match=tag)
        wrong: Any = 1
        with pytest.raises(TypeError):
            await remote.put("a", 1, if_match=wrong)
        with pytest.raises(TypeError):
            await remote.put("a", 1, if_absent=wrong)
        with pytest.raises(ValueError, match="not both"):
            await remote.put("a", 1, if_match='"a"', if_absent=True)
        assert served.levels["notes"].cid == 0


async def test_a_batch_is_written_as_a_whole_or_not_at_all(served: Served) -> None:
    async with connect(served, prefix="own/") as remote:
        await remote.batch([Put("own/a", {"x": "ü"}), {"type": "put", "key": "own/b", "value": None}])
        await remote.batch([Delete("own/a"), Put("own/c", 1)], together=False)
        await remote.batch([])
        assert await remote.query(reverse=True) == [("own/c", 1), ("own/b", None)]
        with pytest.raises(ForbiddenError):
            await remote.batch([Put("own/d", 1), Put("other", 1)])
        with pytest.raises(InvalidValueError, match="operation 1"):
            await remote.batch([Put("own/d", 1), Put("own/e", float("nan"))])
        with pytest.raises(ProtocolError, match="16,384"):
            await remote.batch(Put(f"own/{n}", n) for n in range(16_385))
        assert served.levels["notes"].cid == 4


async def test_reverse_pages_are_followed_to_the_first_key(served: Served) -> None:
    await served.levels["notes"].load((f"k{n:04}", n) for n in range(2500))
    async with connect(served) as remote:
        found = await remote.query(reverse=True, lte="k2399", gt="k0009")
        assert [value for _, value in found] == [*range(2399, 9, -1)]
        assert await remote.query(reverse=True, limit=2) == [("k2499", 2499), ("k2498", 2498)]
