"""The methods of each mode."""

from typing import Any

import pytest
from stores import Stores

from treehub_level import Level, Mode, ModeError

SERVER_VERBS: dict[str, tuple[Any, ...]] = {
    "change": (0, []),
    "changes": (0,),
    "compact_log": (),
    "exchange": ({},),
}
CLIENT_VERBS: dict[str, tuple[Any, ...]] = {
    "apply": (0, []),
    "clean": (0, []),
    "conflicts": (),
    "dirty": (),
    "dismiss": (None,),
    "pending": (),
    "rebind": (None,),
    "restore": (None,),
    "sync": (None,),
}


async def use(level: Any, verb: str, args: Any) -> None:
    result = getattr(level, verb)(*args)
    if hasattr(result, "__await__"):
        await result
    else:
        async for _ in result:
            pass


@pytest.mark.parametrize("verb", SERVER_VERBS)
@pytest.mark.parametrize("mode", [Level.NORMAL, Level.CLIENT], ids=["mode=normal", "mode=client"])
async def test_methods_of_a_server_are_refused_in_other_modes(stores: Stores, mode: Mode, verb: str) -> None:
    level = await stores.open("store", mode=mode)
    with pytest.raises(ModeError, match="SERVER") as caught:
        await use(level, verb, SERVER_VERBS[verb])
    assert caught.value.code == "LEVEL_MODE"


@pytest.mark.parametrize("verb", CLIENT_VERBS)
@pytest.mark.parametrize("mode", [Level.NORMAL, Level.SERVER], ids=["mode=normal", "mode=server"])
async def test_methods_of_a_client_are_refused_in_other_modes(stores: Stores, mode: Mode, verb: str) -> None:
    level = await stores.open("store", mode=mode)
    with pytest.raises(ModeError, match="CLIENT") as caught:
        await use(level, verb, CLIENT_VERBS[verb])
    assert caught.value.code == "LEVEL_MODE"


@pytest.mark.parametrize("attribute", ["cid", "CID"])
async def test_a_plain_store_has_no_cid(level: Any, attribute: Any) -> None:
    with pytest.raises(ModeError):
        getattr(level, attribute)


async def test_a_plain_store_holds_only_the_data(stores: Stores, level: Any) -> None:
    await level.put("a", 1)
    await level.put("!", "mine")
    await level.put("!!store", [2])

    assert await stores.bytes_of(level) == {b"a": b"1", b"!": b'"mine"', b"!!store": b"[2]"}
    assert await level.keys() == ["!", "!!store", "a"]
