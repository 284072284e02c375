"""Opening, closing, opening again; and each verb in each of these states.

The verbs are taken from the class itself: a new one is covered as soon as it exists, or fails here for want of
arguments.
"""

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
from stores import Stores

from treehub_level import Change, Conflict, Level, LevelError, Mode, ModeError, NotOpenError, StateError, blocking

pytestmark = pytest.mark.shared

#: What the verbs are called with, by the names of their parameters.
ARGUMENTS = {
    "batch_size": 10,
    "changes": [],
    "cid": 0,
    "conflict": Conflict("a", Change("a", 1), None, 1),
    "items": [("a", 1)],
    "key": "a",
    "keys": ["a"],
    "ops": [{"type": "put", "key": "a", "value": 1}],
    "request": {},
    "since": 0,
    "value": 1,
}
#: No verbs: what makes, opens and closes levels, which has tests of its own.
NOT_VERBS = {"adopt", "close", "open"}
#: Verbs whose result is entered; other results that cannot be awaited are iterated over.
CONTEXTS = {"live", "snapshot", "write_batch"}
VERBS = sorted(
    name
    for name, member in inspect.getmembers(Level, callable)
    if not name.startswith("_") and not inspect.isclass(member) and name not in NOT_VERBS
)


@pytest.fixture(params=VERBS, ids="verb={}".format)
def verb(request: pytest.FixtureRequest) -> Any:
    """Each public verb."""
    return request.param


async def call(level: Any, verb: str, other: Any) -> Any:
    """Call a verb and use what it gives just enough to make it do its work."""
    arguments = {**ARGUMENTS, "server": other, "name": "sub"}
    parameters = inspect.signature(getattr(Level, verb)).parameters.values()
    needed = [p for p in parameters if p.name != "self" and (p.default is p.empty or p.name == "since")]
    args = [arguments[p.name] for p in needed if p.kind is not p.KEYWORD_ONLY]
    options = {p.name: arguments[p.name] for p in needed if p.kind is p.KEYWORD_ONLY}
    result = getattr(level, verb)(*args, **options)
    if inspect.isawaitable(result):
        return await result
    if verb == "sublevel":
        return await result.get("a")
    if verb in CONTEXTS:
        async with result:
            return None
    async for item in result:
        return item
    return None


async def outcome(level: Any, verb: str, other: Any) -> Any:
    """What kind of end a call comes to: "done", or the class of the error."""
    try:
        await call(level, verb, other)
    except LevelError as error:
        return type(error)
    return "done"


async def test_each_verb_needs_an_open_level(stores: Stores, server: Any, verb: str, mode: Mode) -> None:
    never = stores.level("never", mode=mode)
    closed = await stores.open("closed", mode=mode)
    if mode is Level.SERVER:
        await closed.put("a", 1)
    opened_with = await outcome(closed, verb, server)
    await closed.close()

    for level in (never, closed):
        refused_with = await outcome(level, verb, server)
        assert refused_with is NotOpenError or (refused_with is ModeError and opened_with is ModeError)


async def test_each_verb_does_the_same_once_reopened(stores: Stores, server: Any, verb: str, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)
    if mode is Level.SERVER:
        await level.put("a", 1)
    other = await stores.open("other", mode=mode)
    if mode is Level.SERVER:
        await other.put("a", 1)
    await other.close()
    await other.open()

    assert await outcome(other, verb, server) == await outcome(level, verb, server)


async def test_each_verb_belongs_to_some_mode(stores: Stores, server: Any, verb: str) -> None:
    outcomes = []
    for mode in type(Level.NORMAL):
        level = await stores.open(f"in mode {mode.value}", mode=mode)
        await level.put("a", 1)
        outcomes.append(await outcome(level, verb, server))

    assert any(end is not ModeError for end in outcomes)


@pytest.mark.parametrize("attribute", ["cid", "CID"])
async def test_the_cid_of_a_level_that_is_not_open_is_refused(stores: Stores, attribute: Any) -> None:
    level = stores.level("server", mode=Level.SERVER)
    with pytest.raises(NotOpenError):
        getattr(level, attribute)

    await level.open()
    assert getattr(level, attribute) == 0
    await level.close()
    with pytest.raises(NotOpenError):
        getattr(level, attribute)


async def test_opening_an_open_level_is_refused(stores: Stores, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)

    with pytest.raises(StateError) as caught:
        await level.open()

    assert caught.value.code == "LEVEL_STATE"
    await level.put("still", "open")


async def test_closing_a_closed_level_is_refused(stores: Stores) -> None:
    level = stores.level("store")
    with pytest.raises(StateError):
        await level.close()

    await level.open()
    await level.close()
    with pytest.raises(StateError):
        await level.close()


async def test_a_reopened_level_holds_what_it_held(stores: Stores, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)
    await level.put("a", [1, "é", None])
    before = None if mode is Level.NORMAL else level.cid

    for _ in range(3):
        await level.close()
        await level.open()

    assert await level.query() == [("a", [1, "é", None])]
    assert before is None or level.cid == before


async def test_a_context_opens_and_closes(stores: Stores) -> None:
    level = stores.level("store")
    async with level as entered:
        await entered.put("a", 1)
    with pytest.raises(NotOpenError):
        await level.get("a")
    async with level:
        assert await level.get("a") == 1


async def test_a_context_that_raises_closes_too(stores: Stores) -> None:
    level = stores.level("store")
    with pytest.raises(ZeroDivisionError):
        async with level:
            raise ZeroDivisionError
    with pytest.raises(NotOpenError):
        await level.get("a")


async def test_a_level_may_be_closed_within_its_context(stores: Stores) -> None:
    async with stores.level("store") as level:
        await level.close()
    assert not level.is_open


def test_closing_from_within_a_filter_is_refused_and_not_a_deadlock() -> None:
    with blocking.Level("store", backend="memory") as level:
        level.put("a", 1)

        with pytest.raises(StateError, match="filter"):
            level.query(filter=lambda key, value: level.close())

        assert level.get("a") == 1


async def test_of_those_who_open_at_once_one_succeeds(stores: Stores) -> None:
    level = stores.level("store")
    ends = await asyncio.gather(*(level.open() for _ in range(5)), return_exceptions=True)
    assert ends.count(None) == 1
    assert sum(isinstance(end, StateError) for end in ends) == 4
    await level.put("a", 1)


async def test_of_those_who_close_at_once_one_succeeds(stores: Stores, level: Any) -> None:
    await level.put("a", 1)
    ends = await asyncio.gather(*(level.close() for _ in range(5)), return_exceptions=True)
    assert ends.count(None) == 1
    assert sum(isinstance(end, StateError) for end in ends) == 4
    await level.open()
    assert await level.get("a") == 1


def test_a_level_may_be_opened_in_one_event_loop_after_the_other(tmp_path: Path, backend: str) -> None:
    client = Level(str(tmp_path / "client"), backend=backend, mode=Level.CLIENT)
    server = Level(str(tmp_path / "server"), backend=backend, mode=Level.SERVER)

    async def use() -> None:
        async with client, server:
            await client.put("a", client.cid)
            await asyncio.gather(*(client.sync(server) for _ in range(4)))
            assert await server.get("a") == client.cid - 1

    for _ in range(3):
        asyncio.run(use())
