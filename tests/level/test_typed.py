"""Typed views: `typed()`, and `sublevel()` with ``type`` and ``key``."""

from __future__ import annotations

import enum
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest
from stores import Stores

from treehub_level import (
    MISSING,
    ConditionError,
    DecodeError,
    Delete,
    InvalidKeyError,
    InvalidValueError,
    Level,
    Mode,
    NotOpenError,
    Put,
    Typed,
    blocking,
    ordered,
)

NOW = datetime(2026, 11, 30, 20, 52, 55, 123456, tzinfo=timezone.utc)


NIL = UUID(int=5)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Place:
    name: str
    meters: float = 0.0


@dataclass
class Note:
    """One field of each type that JSON lacks, and containers."""

    title: str
    at: datetime = NOW
    day: date = date(2026, 11, 30)
    id: UUID = NIL
    price: Decimal = Decimal("1.50")
    raw: bytes = b"\x00\xff"
    color: Color = Color.RED
    tags: list[str] = field(default_factory=list)
    place: Place | None = None
    counts: dict[int, float] = field(default_factory=dict)


class Struct(msgspec.Struct):
    title: str
    at: datetime = NOW


class Model(pydantic.BaseModel):
    title: str
    at: datetime = NOW
    alias: int = pydantic.Field(0, alias="alias-name")
    place: Place | None = None


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    title: str
    at: datetime = NOW

    @pydantic.computed_field
    def length(self) -> int:
        return len(self.title)


class Record(TypedDict, total=False):
    title: str
    at: datetime


NOTE = Note("a", tags=["x", "y"], place=Place("here", 3), counts={1: 2.5})
INSTANCES: list[tuple[Any, Any]] = [
    (Note, NOTE),
    (Struct, Struct("a")),
    (Model, Model.model_validate({"title": "a", "place": Place("here")})),
    (Strict, Strict(title="a")),
    (Record, {"title": "a", "at": NOW}),
    (list[int], [1, 2]),
    (datetime, NOW),
    (float, 3),
    (Place | int, Place("there")),
]


@pytest.fixture
async def store(stores: Stores, mode: Mode) -> Any:
    """An open level of each mode."""
    return await stores.open("store", mode=mode)


@pytest.fixture
def memory() -> Iterator[Any]:
    """An open level, for the tests of the conversion, which both APIs share."""
    with blocking.Level("store", backend="memory") as level:
        yield level


@pytest.mark.once
@pytest.mark.parametrize(("kind", "instance"), INSTANCES, ids=range(len(INSTANCES)))
def test_an_instance_comes_back_equal(memory: Any, kind: Any, instance: Any) -> None:
    view = memory.typed(kind, prefix="x/")
    view.put("a", instance)
    read = view.get("a")
    assert read == instance
    assert isinstance(read, type(instance)) or kind is float
    assert view.get("b") is None
    assert view.get("b", MISSING) is MISSING


async def test_the_store_holds_plain_json(store: Any) -> None:
    await store.sublevel("note", type=Note).put("a", NOTE)
    assert await store.get("note/a") == {
        "title": "a",
        "at": "2026-11-30T20:52:55.123456Z",
        "day": "2026-11-30",
        "id": "00000000-0000-0000-0000-000000000005",
        "price": "1.50",
        "raw": "AP8=",
        "color": "red",
        "tags": ["x", "y"],
        "place": {"name": "here", "meters": 3},
        "counts": {"1": 2.5},
    }


async def test_typed_with_a_prefix_and_a_sublevel_with_a_type_are_the_same_view(store: Any) -> None:
    await store.typed(Struct, prefix="note/").put("a", Struct("one"))
    assert await store.sublevel("note", type=Struct).query() == [("a", Struct("one"))]
    inner = store.sublevel("deep").sublevel("er", type=Struct)
    await inner.put("a", Struct("two"))
    assert await store.sublevel("deep").typed(Struct, prefix="er/").get("a") == Struct("two")
    assert await store.get("deep/er/a") == {"title": "two", "at": "2026-11-30T20:52:55.123456Z"}


async def test_every_verb_takes_and_returns_instances(store: Any) -> None:
    await store.load([("n", 0), ("n0", 0), ("z", 0)])
    view = store.typed(Struct, prefix="n/")
    a, b, c, d, e = map(Struct, "abcde")
    await view.put("a", a)
    await view.batch([Put("b", b), {"type": "put", "key": "c", "value": c}, Delete("a"), {"type": "del", "key": "x"}])
    async with view.write_batch() as batch:
        batch.put("d", d)
        batch.delete("b")
    assert await view.load([("e", e), ("a", a)]) == 2

    assert await view.get_many(["a", "b", "e"]) == [a, None, e]
    assert await view.keys() == ["a", "c", "d", "e"]
    assert await view.values(gt="a", reverse=True) == [e, d, c]
    assert await view.query(filter=lambda key, value: value.title > "c") == [("d", d), ("e", e)]
    assert await view.count(filter=lambda key, value: value == a) == 1
    assert [pair async for pair in view.scan(limit=2)] == [("a", a), ("c", c)]
    assert await view.has("a")
    async with view.snapshot() as snapshot:
        await view.delete("a")
        assert await snapshot.get("a") == a
    await view.del_("c")
    assert await view.clear() == 2
    assert await store.keys() == ["n", "n0", "z"]


UNFIT: list[tuple[Any, Any, str]] = [
    (Note, {"title": "a"}, "$"),
    (Note, Struct("a"), "$"),
    (Note, None, "$"),
    (Note, Note(5), "$.title"),  # type: ignore[arg-type]
    (Note, Note("a", tags=["x", 5]), "$.tags[1]"),  # type: ignore[list-item]
    (Note, Note("a", tags=("x",)), "$.tags"),  # type: ignore[arg-type]
    (Note, Note("a", place={"name": "here"}), "$.place"),  # type: ignore[arg-type]
    (Note, Note("a", place=Place("here", float("nan"))), "$.place.meters"),
    (Note, Note("a", place=Place("here", float("inf"))), "$.place.meters"),
    (Note, Note("a", price=1.5), "$.price"),  # type: ignore[arg-type]
    (Note, Note("a", at="2026-11-30T00:00:00Z"), "$.at"),  # type: ignore[arg-type]
    (Struct, Note("a"), "$"),
    (Model, Model.model_construct(title=5), "$.title"),
    (Model, Model.model_construct(title="a", place={"name": "here"}), "$.place"),
    (Model, {"title": "a"}, "$"),
    (Strict, Strict.model_construct(title="a", at="2026-11-30T00:00:00Z"), "$.at"),
    (Record, {"title": 5}, "$.title"),
    (Record, {"title": "a", "other": 1}, "$.other"),
    (list[int], [1, "2"], "$[1]"),
    (list[int], (1, 2), "$"),
    (int, True, "$"),
    (dict[str, object], {"a": object()}, "$"),
]


@pytest.mark.once
@pytest.mark.parametrize(("kind", "value", "path"), UNFIT, ids=range(len(UNFIT)))
def test_another_value_is_refused_with_key_and_path(memory: Any, kind: Any, value: Any, path: str) -> None:
    view = memory.sublevel("x", type=kind)
    writes: Any = (
        lambda: view.put("the key", value),
        lambda: view.batch([Put("the key", value)]),
        lambda: view.batch([{"type": "put", "key": "the key", "value": value}]),
        lambda: view.load([("the key", value)]),
        lambda: view.update({"the key": value}),
        lambda: view.setdefault("the key", value),
    )
    for write in writes:
        with pytest.raises(InvalidValueError, match="'the key'") as caught:
            write()
        assert (caught.value.key, caught.value.path) == ("the key", path)
        assert path in str(caught.value)
        assert pickle.loads(pickle.dumps(caught.value)).path == path
    assert memory.query() == []


STORED: list[tuple[Any, Any, str]] = [
    (Note, {"title": 5}, "$.title"),
    (Note, {}, "$"),
    (Note, [], "$"),
    (Note, {"title": "a", "tags": ["x", None]}, "$.tags[1]"),
    (Note, {"title": "a", "at": "yesterday"}, "$.at"),
    (Note, {"title": "a", "raw": "?"}, "$.raw"),
    (Note, {"title": "a", "color": "green"}, "$.color"),
    (Note, {"title": "a", "counts": {"1": "x"}}, "$.counts[...]"),
    (Struct, {"title": "a", "at": 5.5}, "$.at"),
    (Model, {"title": "a", "place": {"name": 5}}, "$.place.name"),
    (Model, {"title": "a", "alias-name": "x"}, "$['alias-name']"),
    (Strict, {"title": "a", "extra": 1}, "$.extra"),
    (Record, {"title": None}, "$.title"),
]


@pytest.mark.once
@pytest.mark.parametrize(("kind", "value", "path"), STORED, ids=range(len(STORED)))
def test_a_stored_value_that_does_not_fit_is_an_error_with_key_and_path(
    memory: Any, kind: Any, value: Any, path: str
) -> None:
    memory.put("x/the key", value)
    view = memory.sublevel("x", type=kind)
    for read in (
        lambda: view.get("the key"),
        lambda: view.get_many(["the key"]),
        view.query,
        view.values,
        lambda: list(view.scan()),
        lambda: view.count(filter=lambda key, value: True),
        lambda: view["the key"],
        lambda: dict(view.items()),
    ):
        with pytest.raises(DecodeError, match="'the key'") as caught:
            read()
        assert (caught.value.key, caught.value.path) == ("the key", path)
        assert path in str(caught.value)
    assert view.keys() == ["the key"]
    assert view.has("the key")


async def test_the_keys_of_a_view_may_be_tuples(store: Any) -> None:
    orders = store.sublevel("orders", key=ordered.Tuple[str, int])
    rows = [(("JP", n), n) for n in (-5, 2, 10)] + [(("PE", 1), 1)]
    await orders.load(reversed(rows))

    assert await orders.query() == rows
    assert await orders.get(("JP", 10)) == 10
    assert await orders.keys(prefix=("JP",)) == [("JP", -5), ("JP", 2), ("JP", 10)]
    assert await orders.values(gte=("JP", 2), lt=("PE",)) == [2, 10]
    assert await orders.values(gt=("JP", 10)) == [1]
    assert await orders.keys(filter=lambda key: key[1] > 1, limit=1) == [("JP", 2)]
    assert await store.get("orders/sJP!ib10!") == 10
    async with orders.write_batch() as batch:
        batch.delete(("JP", 2))
    assert await orders.clear(prefix=("JP",)) == 2
    assert await orders.keys() == [("PE", 1)]


async def test_keys_and_values_may_both_have_types(store: Any) -> None:
    view = store.typed(Struct, prefix="n/", key=ordered.Tuple[str, datetime | None])
    await view.put(("a", NOW), Struct("one"))
    await view.put(("a", None), Struct("two"))
    assert await view.query() == [(("a", None), Struct("two")), (("a", NOW), Struct("one"))]
    await store.put(f"n/{ordered.encode(('a', NOW))}", 5)
    with pytest.raises(DecodeError) as caught:
        await view.get(("a", NOW))
    assert caught.value.key == ("a", NOW)


#: Keys that are no tuples of a str and an int.
FOREIGN: list[Any] = ["JP", ("JP",), ("JP", 1, 2), ("JP", "1"), ("JP", True), ("JP", 1.5), (1, "JP"), None]
FOREIGN.append(("JP", 1, 1 << 50000))


@pytest.mark.parametrize("key", FOREIGN, ids=range(len(FOREIGN)))
async def test_a_key_of_another_type_is_refused(store: Any, key: Any) -> None:
    orders = store.sublevel("orders", key=ordered.Tuple[str, int])
    calls: Any = (lambda: orders.put(key, 1), lambda: orders.get(key), lambda: orders.batch([Delete(key)]))
    for call in calls:
        with pytest.raises(TypeError):
            await call()


async def test_an_int_where_a_float_belongs_is_converted_if_it_is_one(store: Any) -> None:
    view = store.sublevel("x", key=ordered.Tuple[float])
    for number in (2, 1.5, -3, 10):
        await view.put((number,), number)
    assert await view.values() == [-3, 1.5, 2, 10]
    for number in (2**53 + 1, 10**400):
        with pytest.raises(InvalidKeyError):
            await view.put((number,), 1)


@pytest.mark.parametrize("key", ["plain", "sJP!", "sJP!s1!", "ib10!sJP!"])
async def test_a_stored_key_of_another_type_is_an_error(store: Any, key: str) -> None:
    await store.put(f"orders/{key}", 1)
    with pytest.raises(DecodeError, match=key):
        await store.sublevel("orders", key=ordered.Tuple[str, int]).keys()


async def test_decisions_take_and_return_instances(store: Any) -> None:
    view = store.typed(Struct, prefix="n/")
    assert await view.update("a", lambda old: Struct("one") if old is None else old) == Struct("one")
    assert await view.update("a", lambda old: Struct(old.title + "!")) == Struct("one!")
    with pytest.raises(InvalidValueError, match="'a'"):
        await view.update("a", lambda old: "text")
    with pytest.raises(ConditionError) as caught:
        await view.put("a", Struct("two"), if_absent=True)
    assert caught.value.found == Struct("one!")
    await view.put("a", Struct("two"), if_value=Struct("one!"))

    def rename(tx: Any) -> Any:
        tx.put("b", tx.get("a"))
        tx.delete("a")
        return tx.query()

    assert await view.transact(rename) == [("b", Struct("two"))]
    await view.delete("b", if_value=Struct("two"))
    orders = store.sublevel("orders", key=ordered.Tuple[str, int])
    assert await orders.update(("JP", 1), lambda n: (n or 0) + 1) == 1
    assert await orders.transact(lambda tx: tx.keys(prefix=("JP",))) == [("JP", 1)]


async def test_a_watch_of_a_view_yields_tuples_and_instances(store: Any) -> None:
    view = store.typed(Struct, prefix="n/", key=ordered.Tuple[str, int])
    await view.put(("a", 1), Struct("one"))
    await store.put("other", 1)
    changes = aiter(view.watch(initial=True, prefix=("a",)))
    assert await anext(changes) == [("a", 1), Struct("one")]
    await view.put(("b", 1), Struct("two"))
    await view.put(("a", 2), Struct("three"))
    assert await anext(changes) == [("a", 2), Struct("three")]
    await view.delete(("a", 1))
    change = await anext(changes)
    assert (change.key, change.deleted) == (("a", 1), True)


async def test_metadata_is_not_part_of_a_view_of_the_whole_level(stores: Stores) -> None:
    store: Any = await stores.open("store", mode=Level.CLIENT)
    view = store.typed(int)
    await view.put("a", 1)
    assert await view.query() == [("a", 1)]
    for key in ("!", "!a"):
        with pytest.raises(InvalidKeyError):
            await view.get(key)


async def test_a_view_synchronises_like_its_level(stores: Stores) -> None:
    server: Any = await stores.open("server", mode=Level.SERVER)
    client: Any = await stores.open("client", mode=Level.CLIENT)
    await client.typed(Struct, prefix="n/").put("a", Struct("one"))
    await client.sync(server)
    assert await server.typed(Struct, prefix="n/").get("a") == Struct("one")


async def test_arguments_of_other_types_are_refused(store: Any) -> None:
    for call in (
        lambda: store.typed(None),
        lambda: store.typed(5),
        lambda: store.typed(Note, prefix=5),
        lambda: store.typed(Note, key=str),
        lambda: store.typed(Note, key=("a",)),
        lambda: store.sublevel("x", key=int),
        lambda: ordered.Tuple[Decimal],
        lambda: ordered.Tuple[str, Any],
        lambda: store.typed(Note, prefix="\ud800"),
    ):
        with pytest.raises((TypeError, InvalidKeyError)):
            call()


async def test_a_prefix_that_no_key_can_begin_with_is_refused(stores: Stores) -> None:
    store: Any = await stores.open("store", mode=Level.SERVER)
    with pytest.raises(InvalidKeyError):
        store.typed(int, prefix="!x")


async def test_a_level_of_bytes_has_no_views(stores: Stores) -> None:
    for encoding in ({"key_encoding": "bytes"}, {"value_encoding": "bytes"}):
        store: Any = stores.level("raw", **encoding)
        with pytest.raises(TypeError):
            store.typed(int)


async def test_a_view_of_a_closed_level_is_closed(store: Any) -> None:
    view = store.typed(int, prefix="n/")
    await store.close()
    with pytest.raises(NotOpenError):
        await view.get("a")
    with pytest.raises(NotOpenError):
        await view.put("a", 1)


@pytest.mark.once
def test_a_view_is_generic_at_run_time() -> None:
    assert "Note" in repr(Typed[Note])
    assert "tuple" in repr(blocking.Typed[Note, tuple[str, int]])


WITHOUT_MSGSPEC = """
import sys

sys.modules["msgspec"] = None
from dataclasses import dataclass
from treehub_level import blocking, ordered
assert "pydantic" not in sys.modules

@dataclass
class Note:
    title: str

level = blocking.Level("x", backend="memory")
level.sublevel("x", key=ordered.Tuple[str])
try:
    level.typed(Note)
except ModuleNotFoundError as error:
    print(error)
import pydantic

class Model(pydantic.BaseModel):
    title: str

with level:
    level.typed(Model).put("a", Model(title="x"))
    print(level["a"])
"""


@pytest.mark.once
def test_without_the_extra_one_sentence_says_how_to_install_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_MSGSPEC], capture_output=True, text=True, check=True)
    message, value = done.stdout.splitlines()
    assert message.startswith("a typed view needs msgspec, which is not installed: run pip install '.[typed]'")
    assert value == "{'title': 'x'}"
