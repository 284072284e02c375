"""Cases of get, has and get_many, and of the options of query, keys, values, count and scan."""

from typing import Any

import pytest
from stores import Stores

from treehub_level import MISSING, InvalidKeyError, Level, Mode


@pytest.fixture
async def store(stores: Stores, mode: Mode) -> Any:
    """An open level of each mode."""
    return await stores.open("store", mode=mode)


async def fill(store: Any, keys: Any) -> None:
    await store.load([(key, key.upper()) for key in keys])


# -------------------------------------------------------------------------------------- single keys


async def test_an_absent_key_returns_the_default(store: Any) -> None:
    assert await store.get("nothing") is None
    assert await store.get("nothing", 5) == 5
    assert await store.get("nothing", default=MISSING) is MISSING


async def test_a_stored_none_differs_from_an_absent_key(store: Any) -> None:
    await store.put("none", None)
    assert await store.get("none", MISSING) is None
    assert await store.has("none") is True
    assert await store.has("nothing") is False


async def test_has_is_true_for_stored_falsy_values(store: Any) -> None:
    for key, value in {"f": False, "z": 0, "e": "", "l": []}.items():
        await store.put(key, value)
        assert await store.has(key) is True


async def test_get_many_returns_values_in_the_order_of_the_keys(store: Any) -> None:
    await fill(store, "abc")
    assert await store.get_many(["c", "nothing", "a", "c"]) == ["C", None, "A", "C"]
    assert await store.get_many(["x", "a"], MISSING) == [MISSING, "A"]
    assert await store.get_many(key for key in "ba") == ["B", "A"]
    assert await store.get_many([]) == []


@pytest.mark.parametrize("keys", ["ab", b"ab", 5, None], ids=repr)
async def test_get_many_refuses_arguments_that_are_not_keys(store: Any, keys: Any) -> None:
    with pytest.raises(TypeError):
        await store.get_many(keys)


@pytest.mark.parametrize("key", [None, 5, b"a", True, ["a"]], ids=repr)
async def test_reading_a_key_that_is_not_a_str_is_refused(store: Any, key: Any) -> None:
    for verb in (store.get, store.has):
        with pytest.raises(TypeError):
            await verb(key)
    with pytest.raises(TypeError):
        await store.get_many(["a", key])


async def test_reading_a_lone_surrogate_is_refused(store: Any) -> None:
    with pytest.raises(InvalidKeyError):
        await store.get("\ud800")
    with pytest.raises(InvalidKeyError):
        await store.query(gt="\ud800")


# ----------------------------------------------------------------------------------------- metadata


async def test_get_reads_the_metadata_of_a_server_by_the_names_of_the_npm_package(server: Any) -> None:
    await server.put("foo", "bar")
    for n in range(11):
        await server.put("n", n)
    await server.delete("foo")

    assert await server.get("!") == 13
    assert await server.get("!1") == ["foo", "bar"]
    assert await server.get("!12") == ["n", 10]
    assert await server.get("!13") == ["foo"]
    assert await server.get("!14") is None
    assert await server.get_many(["!", "!2", "n"]) == [13, ["n", 0], 10]
    assert await server.has("!13")
    assert not await server.has("!14")


async def test_get_reads_the_metadata_of_a_client_by_the_names_of_the_npm_package(client: Any) -> None:
    await client.put("foo", "bar")
    await client.delete("10")

    assert await client.get("!foo") == ["foo", "bar"]
    assert await client.get("!10") == ["10"]
    assert await client.get("!") is None
    await client.apply(7, [])
    assert await client.get("!") == 7


async def test_a_snapshot_reads_the_metadata_of_its_state(server: Any) -> None:
    await server.put("a", 1)
    async with server.snapshot() as snapshot:
        await server.put("b", 2)
        assert await snapshot.get("!") == 1
        assert await snapshot.get("!2") is None


@pytest.mark.parametrize(
    "bounds",
    [
        {},
        {"gte": ""},
        {"gt": ""},
        {"gte": "!"},
        {"gt": "!"},
        {"gte": "!!"},
        {"gte": "\x00"},
        {"lt": "\U0010ffff"},
        {"gte": "!", "lt": "\U0010ffff"},
        {"reverse": True},
        {"gt": "", "reverse": True},
        {"prefix": ""},
    ],
    ids=repr,
)
@pytest.mark.parametrize("sync_mode", [Level.SERVER, Level.CLIENT], ids=["mode=server", "mode=client"])
async def test_metadata_never_appears_for_any_bounds(stores: Stores, sync_mode: Mode, bounds: Any) -> None:
    store = await stores.open("store", mode=sync_mode)
    keys = ['"', "a", "\uffff", "😀", "😀😀"]
    await fill(store, keys)
    await store.delete("nothing")
    expected = keys[::-1] if bounds.get("reverse") else keys

    assert await store.keys(**bounds) == expected
    assert [key for key, _ in await store.query(**bounds)] == expected
    assert await store.values(**bounds) == [key.upper() for key in expected]
    assert await store.count(**bounds) == len(keys)
    assert [key async for key, _ in store.scan(**bounds)] == expected


@pytest.mark.parametrize("bounds", [{"lt": "!\uffff"}, {"prefix": "!"}, {"lte": "!"}, {"lt": '"'}], ids=repr)
@pytest.mark.parametrize("sync_mode", [Level.SERVER, Level.CLIENT], ids=["mode=server", "mode=client"])
async def test_a_range_of_nothing_but_metadata_is_empty(stores: Stores, sync_mode: Mode, bounds: Any) -> None:
    store = await stores.open("store", mode=sync_mode)
    await fill(store, ["a", "😀"])
    assert await store.query(**bounds) == []
    assert await store.clear(**bounds) == 0


@pytest.mark.parametrize("prefix", ["!", "#", "!!", "/!"])
async def test_metadata_under_any_prefix_is_hidden(stores: Stores, prefix: str) -> None:
    for sync_mode in (Level.SERVER, Level.CLIENT):
        store = await stores.open(f"store {sync_mode.value}", mode=sync_mode, prefix=prefix)
        await fill(store, ["a", "😀"])
        assert await store.keys(gte="") == ["a", "😀"]
        assert await store.keys(prefix=prefix) == []


# ------------------------------------------------------------------------------------------ options


async def test_the_readme_of_the_npm_package(store: Any) -> None:
    await fill(store, ["bar", "foo", "hello world", "obj"])
    await store.put("obj", {"foo": "bar"})

    assert await store.query(gt="baz") == [("foo", "FOO"), ("hello world", "HELLO WORLD"), ("obj", {"foo": "bar"})]
    assert await store.keys(filter=lambda key: "world" in key) == ["hello world"]
    assert await store.values(filter=lambda value: isinstance(value, dict)) == [{"foo": "bar"}]


async def test_a_filter_gets_the_items_that_its_method_returns(store: Any) -> None:
    await fill(store, "abc")
    seen = []
    await store.query(filter=lambda key, value: seen.append((key, value)))
    await store.count(filter=lambda key, value: seen.append((key, value)))
    async for _ in store.scan(filter=lambda key, value: seen.append((key, value))):
        pass
    await store.keys(filter=lambda key: seen.append(key))
    await store.values(filter=lambda value: seen.append(value))
    pairs = [("a", "A"), ("b", "B"), ("c", "C")]
    assert seen == [*pairs, *pairs, *pairs, "a", "b", "c", "A", "B", "C"]


async def test_a_limit_counts_matches(store: Any) -> None:
    await fill(store, "abcdef")
    odd = "bdf"
    assert await store.keys(filter=lambda key: key in odd, limit=2) == ["b", "d"]
    assert await store.query(filter=lambda key, value: key in odd, limit=2, reverse=True) == [("f", "F"), ("d", "D")]
    assert await store.count(filter=lambda key, value: key in odd, limit=2) == 2
    assert await store.values(limit=0) == []
    assert await store.count(limit=0) == 0
    assert await store.keys(limit=100) == list("abcdef")
    assert [key async for key, _ in store.scan(limit=2, filter=lambda key, value: key in odd)] == ["b", "d"]


async def test_a_limit_counts_across_chunks(store: Any) -> None:
    await store.load([(f"{n:05}", n) for n in range(5000)])
    assert await store.count(limit=4999) == 4999
    assert await store.values(filter=lambda value: value % 2500 == 2499, limit=2) == [2499, 4999]
    assert len(await store.keys(limit=2001, reverse=True)) == 2001
    assert [value async for _, value in store.scan(limit=3333)] == list(range(3333))


async def test_a_filter_that_raises_makes_the_call_raise_and_leaves_the_level_usable(store: Any) -> None:
    await fill(store, "abc")
    for verb in (store.query, store.count):
        with pytest.raises(ZeroDivisionError):
            await verb(filter=lambda key, value: 1 / 0)
    for verb in (store.keys, store.values):
        with pytest.raises(ZeroDivisionError):
            await verb(filter=lambda item: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        async for _ in store.scan(filter=lambda key, value: 1 / 0):
            pass
    assert await store.keys() == ["a", "b", "c"]


BAD_OPTIONS: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "gt with gte": ({"gt": "a", "gte": "a"}, ValueError),
    "lt with lte": ({"lt": "a", "lte": "a"}, ValueError),
    "a negative limit": ({"limit": -1}, ValueError),
    "a limit of True": ({"limit": True}, TypeError),
    "a limit of 1.0": ({"limit": 1.0}, TypeError),
    "a limit that is a str": ({"limit": "1"}, TypeError),
    "a bound that is an int": ({"gt": 1}, TypeError),
    "a bound of bytes": ({"lte": b"a"}, TypeError),
    "a prefix of bytes": ({"prefix": b"a"}, TypeError),
    "a bound with a lone surrogate": ({"lt": "\udc00"}, InvalidKeyError),
    "a filter that cannot be called": ({"filter": "a"}, TypeError),
    "reverse that is no bool": ({"reverse": "yes"}, TypeError),
    "an unknown option": ({"start": "a"}, TypeError),
}


@pytest.mark.parametrize("what", BAD_OPTIONS)
async def test_an_invalid_option_is_refused_by_every_reading_method(store: Any, what: str) -> None:
    options, error = BAD_OPTIONS[what]
    await fill(store, "abc")
    for verb in (store.query, store.keys, store.values, store.count):
        with pytest.raises(error):
            await verb(**options)
    with pytest.raises(error):
        async for _ in store.scan(**options):
            pass
