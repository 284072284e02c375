"""The data after put, delete, batch and write_batch, in every mode."""

from typing import Any

import pytest
from stores import Stores

from treehub_level import Delete, Level, MemoryBackend, Mode, Put, blocking


@pytest.fixture
async def store(stores: Stores, mode: Mode) -> Any:
    """An open level of each mode."""
    return await stores.open("store", mode=mode)


async def test_get_returns_the_value_that_was_put(store: Any) -> None:
    await store.put("foo", "bar")
    await store.put("obj", {"foo": "bar"})

    assert await store.get("foo") == "bar"
    assert await store.get("obj") == {"foo": "bar"}


async def test_a_second_put_replaces_the_first(store: Any) -> None:
    await store.put("a", 1)
    await store.put("a", [2])
    assert await store.query() == [("a", [2])]


async def test_a_deleted_key_is_absent(store: Any) -> None:
    await store.put("a", 1)
    await store.put("b", 2)
    await store.delete("a")
    await store.del_("b")
    assert await store.get("a") is None
    assert await store.query() == []


async def test_deleting_an_absent_key_is_no_error(store: Any) -> None:
    await store.delete("nothing")
    assert await store.query() == []


async def test_writing_methods_return_none(store: Any) -> None:
    assert await store.put("a", 1) is None
    assert await store.delete("a") is None
    assert await store.batch([Put("a", 1)]) is None


async def test_options_are_keyword_only(store: Any) -> None:
    with pytest.raises(TypeError):
        await store.put("a", 1, True)
    with pytest.raises(TypeError):
        await store.query("a")


# -------------------------------------------------------------------------------------------- batch


async def test_the_batch_of_the_readme(store: Any) -> None:
    await store.put("deleteMe", "Never!")
    await store.batch(
        [
            {"type": "put", "key": "bool", "value": True},
            {"type": "put", "key": "array", "value": [1, 2, 3, 4]},
            {"type": "del", "key": "deleteMe"},
        ]
    )
    assert await store.query() == [("array", [1, 2, 3, 4]), ("bool", True)]


async def test_operations_may_be_objects_and_dicts_in_one_batch(store: Any) -> None:
    await store.put("b", 0)
    await store.batch([Put("a", 1), Delete("b"), {"type": "put", "key": "c", "value": 3}])
    assert await store.query() == [("a", 1), ("c", 3)]


async def test_a_batch_is_applied_in_order(store: Any) -> None:
    await store.batch([Put("a", 1), Delete("a"), Put("b", 1), Put("b", 2), Delete("c"), Put("c", 3)])
    assert await store.query() == [("b", 2), ("c", 3)]


async def test_a_batch_may_be_any_iterable(store: Any) -> None:
    await store.batch(Put(f"k{n}", n) for n in range(3))
    assert await store.count() == 3


async def test_a_large_batch_is_written_as_one(store: Any) -> None:
    await store.batch([Put(f"k{n:05}", n) for n in range(25_000)])
    assert await store.count() == 25_000


async def test_an_empty_batch_does_nothing(stores: Stores, store: Any) -> None:
    before = await stores.bytes_of(store)
    await store.batch([])
    async with store.write_batch():
        pass
    assert await stores.bytes_of(store) == before


async def test_fields_that_an_operation_does_not_need_are_ignored(store: Any) -> None:
    await store.batch(
        [{"type": "put", "key": "a", "value": 1, "x": object()}, {"type": "del", "key": "b", "value": object()}]
    )
    assert await store.query() == [("a", 1)]


async def test_the_callers_objects_are_not_changed(store: Any) -> None:
    value = {"list": [1, (2, 3)], "deep": {"a": None}}
    ops: list[dict[str, Any]] = [{"type": "put", "key": "a", "value": value}, {"type": "del", "key": "b"}]
    await store.batch(ops)
    assert ops == [
        {"type": "put", "key": "a", "value": {"list": [1, (2, 3)], "deep": {"a": None}}},
        {"type": "del", "key": "b"},
    ]
    assert ops[0]["value"] is value


async def test_the_callers_objects_are_not_kept(store: Any) -> None:
    value = {"list": [1]}
    ops = [Put("a", value)]
    await store.batch(ops)
    await store.put("b", value)
    ops.clear()
    value["list"].append(2)

    assert await store.query() == [("a", {"list": [1]}), ("b", {"list": [1]})]


async def test_changing_a_returned_value_does_not_change_the_store(store: Any) -> None:
    await store.put("a", {"list": [1]})
    (await store.get("a"))["list"].append(2)
    assert await store.get("a") == {"list": [1]}


BAD_OPERATIONS: dict[str, tuple[Any, type[Exception]]] = {
    "no key": ({"type": "put", "value": 1}, TypeError),
    "no value": ({"type": "put", "key": "x"}, TypeError),
    "no type": ({"key": "x", "value": 1}, TypeError),
    "an unknown type": ({"type": "delete", "key": "x"}, ValueError),
    "a type that is no str": ({"type": 1, "key": "x"}, ValueError),
    "a key that is no str": (Put(1, 1), TypeError),
    "a key of bytes": (Delete(b"x"), TypeError),
    "a lone surrogate": (Put("\ud800", 1), ValueError),
    "NaN": (Put("x", float("nan")), ValueError),
    "a set": (Put("x", {1}), ValueError),
    "a bare tuple": (("x", 1), TypeError),
    "a str": ("x", TypeError),
    "None": (None, TypeError),
}


@pytest.mark.parametrize("what", BAD_OPERATIONS)
async def test_a_batch_with_an_invalid_operation_writes_nothing(stores: Stores, store: Any, what: str) -> None:
    await store.put("a", 1)
    before = await stores.bytes_of(store)
    bad, error = BAD_OPERATIONS[what]

    for place in range(3):
        ops: list[Any] = [Put("a", 2), Delete("b")]
        ops.insert(place, bad)
        with pytest.raises(error, match=f"operation {place}"):
            await store.batch(ops)

    assert await stores.bytes_of(store) == before


@pytest.mark.parametrize("ops", [None, 5, "ab", b"ab", {"type": "put", "key": "a", "value": 1}], ids=repr)
async def test_a_batch_that_is_not_a_list_of_operations_is_refused(store: Any, ops: Any) -> None:
    with pytest.raises(TypeError):
        await store.batch(ops)
    assert await store.query() == []


async def test_a_batch_whose_iterator_raises_writes_nothing(store: Any) -> None:
    def ops() -> Any:
        yield Put("a", 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.batch(ops())
    assert await store.query() == []


# -------------------------------------------------------------------------------------- write_batch


async def test_a_write_batch_is_written_on_leaving(store: Any) -> None:
    await store.put("c", 3)
    async with store.write_batch() as batch:
        batch.put("a", 1)
        batch.put("b", 2)
        batch.delete("b")
        batch.del_("c")
        assert len(batch) == 4
        assert await store.query() == [("c", 3)]
    assert await store.query() == [("a", 1)]


async def test_a_write_batch_is_discarded_when_its_block_raises(stores: Stores, store: Any) -> None:
    before = await stores.bytes_of(store)
    with pytest.raises(ZeroDivisionError):
        async with store.write_batch() as batch:
            batch.put("a", 1)
            raise ZeroDivisionError
    assert await stores.bytes_of(store) == before


async def test_a_write_batch_encodes_a_value_when_it_is_added(store: Any) -> None:
    value = [1]
    async with store.write_batch() as batch:
        batch.put("a", value)
        value.append(2)
    assert await store.get("a") == [1]


async def test_a_refused_operation_leaves_the_write_batch_unchanged(store: Any) -> None:
    async with store.write_batch() as batch:
        batch.put("a", 1)
        with pytest.raises(ValueError):
            batch.put("b", float("inf"))
        with pytest.raises(TypeError):
            batch.delete(5)
    assert await store.query() == [("a", 1)]


async def test_a_write_batch_on_a_server_takes_consecutive_cids(server: Any) -> None:
    await server.put("x", 0)
    async with server.write_batch() as batch:
        batch.put("a", 1)
        batch.delete("x")
    assert server.cid == 3
    assert (await server.changes(1)).changes == [["a", 1], ["x"]]


# ------------------------------------------------------------------------------------------ durable


class Recorder(MemoryBackend):
    """A backend that records the ``durable`` of each write."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.durable: list[bool] = []

    def write(self, batch: Any, *, durable: Any = False) -> None:
        self.durable.append(durable)
        super().write(batch, durable=durable)


@pytest.mark.parametrize("default", [False, True])
def test_durable_reaches_the_backend_and_defaults_to_the_option_of_the_level(default: Any) -> None:
    recorder = Recorder("x")
    with blocking.Level("x", backend=lambda name: recorder, mode=Level.SERVER, durable=default) as level:
        recorder.durable.clear()
        level.put("a", 1)
        level.put("a", 1, durable=True)
        level.put("a", 1, durable=False)
        level.delete("a")
        level.delete("a", durable=True)
        level.batch([Put("a", 1)], durable=True)
        level.batch([Put("a", 1)])
        with level.write_batch(durable=True) as batch:
            batch.put("a", 1)
    assert recorder.durable == [default, True, False, default, True, True, default, True]


@pytest.mark.parametrize("durable", [True, False, None])
async def test_a_durable_write_reads_back(store: Any, durable: Any) -> None:
    await store.put("a", 1, durable=durable)
    await store.batch([Put("b", 2)], durable=durable)
    await store.delete("a", durable=durable)
    assert await store.query() == [("b", 2)]
