"""The option ``wait``: a server without changes for the client answers when it has some."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from stores import Stores

from treehub_level import Level, ModeError, NotOpenError, Put

pytestmark = pytest.mark.shared

PATIENCE = 20
LONG = 60


def ask(**fields: Any) -> Any:
    """Return the request of a new client, with these fields replaced."""
    return {
        "protocol": 2,
        "server": None,
        "client": "c" * 32,
        "cid": 0,
        "hi": 0,
        "epochs": [],
        "nonce": "0" * 32,
        "seq": 1,
        "push": "1" * 32 if fields.get("changes") or fields.get("withdraw") else None,
        "changes": [],
        "limit": 1000,
        **fields,
    }


async def waiting(asked: Any) -> Any:
    """Return a task for a call after it has begun to wait."""
    task = asyncio.ensure_future(asked)
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done, "it was answered at once"
    return task


async def test_changes_waits_for_a_change(server: Any) -> None:
    task = await waiting(server.changes(0, wait=LONG))
    await server.put("a", 1)
    assert await asyncio.wait_for(task, PATIENCE) == (1, [["a", 1]], False)


async def test_exchange_waits_for_a_change(server: Any) -> None:
    task = await waiting(server.exchange(ask(), wait=LONG))
    await server.put("a", 1)
    assert (await asyncio.wait_for(task, PATIENCE))["page"] == [[1, ["a", 1]]]


async def test_a_push_of_another_client_ends_the_wait(server: Any) -> None:
    task = await waiting(server.exchange(ask(), wait=LONG))
    await server.exchange(ask(client="d" * 32, changes=[["a", 1]]))
    assert (await asyncio.wait_for(task, PATIENCE))["page"] == [[1, ["a", 1]]]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"changes": [["b", 1]]},
        {"changes": [["a", 1]]},
        {"withdraw": ["b"]},
        {"cid": 2, "hi": 2},
        {"cid": 1, "hi": 1, "complete": [], "fill": ["", ""]},
        {"cid": 1, "hi": 1, "read": ["a"]},
    ],
    ids=["a page", "a push", "a push that is refused", "a push taken back", "a reset", "a part of a range", "values"],
)
async def test_exchange_answers_at_once_if_the_reply_is_not_empty(server: Any, fields: Any) -> None:
    await server.put("a", 0)
    assert await asyncio.wait_for(server.exchange(ask(**fields), wait=LONG), PATIENCE)


async def test_changes_answers_at_once_if_there_are_changes(server: Any) -> None:
    await server.batch([Put("a", 1), Put("b", 2)])
    assert (await asyncio.wait_for(server.changes(1, wait=LONG), PATIENCE)).cid == 2
    assert (await asyncio.wait_for(server.changes(1, 0, wait=LONG), PATIENCE)).has_more


async def test_a_wait_ends_after_its_time_without_a_change(server: Any) -> None:
    started = time.monotonic()
    assert await asyncio.wait_for(server.changes(0, wait=0.05), PATIENCE) == (0, [], False)
    reply = await asyncio.wait_for(server.exchange(ask(), wait=0.05), PATIENCE)
    assert (reply["count"], reply["more"], reply["ack"]) == (0, False, None)
    assert time.monotonic() - started >= 0.1


async def test_closing_the_level_ends_waits(server: Any) -> None:
    tasks = [await waiting(server.changes(0, wait=LONG)), await waiting(server.exchange(ask(), wait=LONG))]
    await server.close()
    changes, reply = await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    assert changes.changes == reply["page"] == []
    with pytest.raises(NotOpenError):
        await server.exchange(ask(), wait=LONG)


async def test_each_of_many_waiting_calls_is_answered(server: Any) -> None:
    tasks = [await waiting(server.changes(0, wait=LONG)) for _ in range(2)]
    tasks += [await waiting(server.exchange(ask(client=f"{n}" * 32), wait=LONG)) for n in range(2)]
    await server.put("a", 1)
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)


@pytest.mark.parametrize("wait", [-1, -0.001, 60.1, float("nan"), float("inf")])
async def test_a_wait_out_of_bounds_is_refused(server: Any, wait: float) -> None:
    with pytest.raises(ValueError, match="wait is 0 to 60 seconds"):
        await server.changes(0, wait=wait)
    with pytest.raises(ValueError, match="wait is 0 to 60 seconds"):
        await server.exchange(ask(), wait=wait)


@pytest.mark.parametrize("wait", [True, "1", None])
async def test_a_wait_that_is_not_a_number_is_refused(server: Any, wait: Any) -> None:
    with pytest.raises(TypeError, match="wait is a number of seconds"):
        await server.exchange(ask(), wait=wait)


async def test_only_a_server_waits(client: Any) -> None:
    with pytest.raises(ModeError):
        await client.exchange(ask(), wait=LONG)
    with pytest.raises(ModeError):
        await client.changes(0, wait=LONG)


# ------------------------------------------------------------------------------------------ asyncio


@pytest.fixture
async def asyncio_server(stores_of: Callable[[str], Stores]) -> Any:
    made = stores_of("async")
    yield await made.open("server", mode=Level.SERVER)
    await made.close_all()


async def test_waiting_holds_no_thread(asyncio_server: Any) -> None:
    before = threading.active_count()
    tasks = [asyncio.ensure_future(asyncio_server.exchange(ask(client=f"{n:032}"), wait=LONG)) for n in range(50)]
    await asyncio.wait(tasks, timeout=0.2)
    assert threading.active_count() <= before + 4  # the reading threads, for 50 requests
    await asyncio_server.put("a", 1)
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)


async def test_a_cancelled_wait_leaves_no_listener_behind(asyncio_server: Any) -> None:
    server = asyncio_server
    tasks = [await waiting(server.changes(0, wait=LONG)), await waiting(server.exchange(ask(), wait=LONG))]
    listeners = server._store.listeners
    assert len(listeners) == 2
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert not listeners
    await asyncio_server.put("a", 1)
