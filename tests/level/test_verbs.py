"""Each public method on levels that are not open, open, and reopened.

The methods are read from the class: a new one is covered at once, or fails here until it has
arguments. A level checks its own state without the backend, so shared backends are left out.
"""

import inspect
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from stores import Stores

from treehub_level import Change, Conflict, Level, LevelError, Mode, ModeError, NotOpenError

#: The arguments of the methods, by parameter name.
ARGUMENTS = {
    "batch_size": 10,
    "callback": print,
    "changes": [],
    "cid": 0,
    "conflict": Conflict("a", Change("a", 1), None, 1),
    "fn": lambda _: 1,
    "id": "absent",
    "items": [("a", 1)],
    "key": "a",
    "keys": ["a"],
    "model": int,
    "prefix": "a",
    "ops": [{"type": "put", "key": "a", "value": 1}],
    "request": {},
    "since": 0,
    "value": 1,
}
#: Methods that create, open and close levels. They have tests of their own.
NOT_VERBS = {"adopt", "close", "open"}
#: Methods that return a context manager; other results that cannot be awaited are iterators.
CONTEXTS = {"live", "snapshot", "write_batch"}
VERBS = sorted(
    name
    for name, member in inspect.getmembers(Level, callable)
    if not name.startswith("_") and not inspect.isclass(member) and name not in NOT_VERBS
)


@pytest.fixture(params=VERBS, ids="verb={}".format)
def verb(request: pytest.FixtureRequest) -> Any:
    """The name of each public method."""
    return request.param


async def call(level: Any, verb: str, other: Any) -> Any:
    """Call a method and use its result enough to make it do its work."""
    with TemporaryDirectory() as folder:
        return await call_with({**ARGUMENTS, "server": other, "name": "sub", "path": f"{folder}/backup"}, level, verb)


async def call_with(arguments: Mapping[str, Any], level: Any, verb: str) -> Any:
    """Call a method with those of the arguments that it needs."""
    parameters = inspect.signature(getattr(Level, verb)).parameters.values()
    needed = [
        p
        for p in parameters
        if p.name != "self"
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and (p.default is p.empty or p.name == "since")
    ]
    args = [arguments[p.name] for p in needed if p.kind is not p.KEYWORD_ONLY]
    options = {p.name: arguments[p.name] for p in needed if p.kind is p.KEYWORD_ONLY}
    result = getattr(level, verb)(*args, **options)
    if inspect.isawaitable(result):
        return await result
    if verb in ("sublevel", "typed"):
        return await result.get("a")
    if verb == "on_change":
        return getattr(result, "blocking", result)()  # unsubscribes
    if verb in CONTEXTS:
        async with result:
            return None
    async for item in result:
        return item
    return None


async def outcome(level: Any, verb: str, other: Any) -> Any:
    """Return the outcome of a call: "done", or the name of the error class."""
    try:
        await call(level, verb, other)
    except LevelError as error:
        return type(error)
    return "done"


async def test_each_method_needs_an_open_level(stores: Stores, server: Any, verb: str, mode: Mode) -> None:
    never = stores.level("never", mode=mode)
    closed = await stores.open("closed", mode=mode)
    if mode is Level.SERVER:
        await closed.put("a", 1)
    opened_with = await outcome(closed, verb, server)
    await closed.close()

    for level in (never, closed):
        refused_with = await outcome(level, verb, server)
        assert refused_with is NotOpenError or (refused_with is ModeError and opened_with is ModeError)


async def test_each_method_does_the_same_after_a_reopening(stores: Stores, server: Any, verb: str, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)
    if mode is Level.SERVER:
        await level.put("a", 1)
    other = await stores.open("other", mode=mode)
    if mode is Level.SERVER:
        await other.put("a", 1)
    await other.close()
    await other.open()

    assert await outcome(other, verb, server) == await outcome(level, verb, server)


async def test_each_method_belongs_to_a_mode(stores: Stores, server: Any, verb: str) -> None:
    outcomes = []
    for mode in type(Level.NORMAL):
        level = await stores.open(f"in mode {mode.value}", mode=mode)
        await level.put("a", 1)
        outcomes.append(await outcome(level, verb, server))

    assert any(end is not ModeError for end in outcomes)
