"""Uses of the public API that type checkers must accept, with the types that they must infer."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from typing_extensions import assert_type

from treehub_level import (
    JSON,
    MISSING,
    Delete,
    KeyRange,
    Level,
    LevelTransaction,
    Mode,
    Operation,
    Put,
    RangeOptions,
    Typed,
    blocking,
    ordered,
)


@dataclass
class Note:
    title: str
    stars: int = 0


class Record(TypedDict):
    title: str


def values_of_every_type() -> None:
    with blocking.Level("x", backend="memory", mode=Level.CLIENT) as level:
        level.put("a", None)
        level.put("a", {"x": [1, 2.5, True, None, "text"], "y": {"z": (1, 2)}})
        counts: dict[str, int] = {"a": 1}
        level.put("a", counts)  # no cast, although a dict is invariant
        rows: list[dict[str, str]] = [{"a": "b"}]
        level.put("a", rows)
        value: JSON = {"a": [1, {"b": None}]}
        level.put("a", value)
        level.load([("a", 1), ("b", "x")])
        level.load((f"{n}", n) for n in range(5))


def reading() -> None:
    with blocking.Level("x") as level:
        name: str = level.get("a")["name"]  # stored JSON is Any
        assert_type(level.get("a", name), Any | str)
        assert_type(level.get_many(["a"], 0), list[Any | int])
        found = level.get("a", MISSING)
        if found is not MISSING:
            print(found["x"])
        assert_type(level.has("a"), bool)
        assert_type(level.keys(prefix="a", limit=5, reverse=True), list[str])
        assert_type(level.query(gt="a", lte="b"), list[tuple[str, Any]])
        assert_type(level.values(filter=lambda value: value["x"] > 1), list[Any])
        for key, item in level.scan(filter=lambda key, value: key < value["x"]):
            assert_type(key, str)
            print(item["x"])
        bounds: KeyRange = {"gte": "a", "lt": "b"}
        options: RangeOptions = {"prefix": "a", "limit": 5}
        assert_type(level.clear(**bounds), int)
        assert_type(level.count(**options), int)
        with level.snapshot() as snapshot:
            print(snapshot.get("a")["x"])
        assert_type(level.mode, Mode)


def writing(operations: list[Operation]) -> None:
    with blocking.Level("x", key_encoding="utf8", value_encoding="json") as level:
        level.batch(operations)
        level.batch([Put("a", 1), Delete("b"), {"type": "put", "key": "a", "value": 1}, {"type": "del", "key": "b"}])
        puts = [Put("a", 1), Put("b", 2)]
        level.batch(puts, together=True)
        with level.write_batch(durable=True) as batch:
            batch.put("a", [1])
            batch.delete("b")


def mapping() -> None:
    with blocking.Level("x") as level:
        as_mapping: MutableMapping[str, Any] = level
        as_mapping["a"] = 1
        level["a"] = {"x": 1}
        level.update({"a": 1}, b=2)
        level |= {"a": 1}
        assert_type([*level.items()], list[tuple[str, Any]])
        print(level["a"]["x"], level.pop("a"), level.setdefault("a", 1), *reversed(level))


def decisions() -> None:
    with blocking.Level("x") as level:
        count: int = level.update("n", lambda n: (n or 0) + 1)
        removed = level.update("n", lambda n: MISSING if n == count else 1)
        print(removed is MISSING)
        level.put("a", 1, if_absent=True)
        level.put("a", 1, if_value={"x": [1]})
        level.delete("a", if_value=None)

        def move(tx: LevelTransaction) -> int:
            tx.put("b", tx.get("a")["x"])
            tx.delete("a", if_value=MISSING)
            return len(tx.query())

        assert_type(level.transact(move), int)
        notes = level.typed(Note)

        def starred(note: Note | None) -> Note:
            return Note("x") if note is None else Note(note.title, note.stars + 1)

        assert_type(notes.update("a", starred), Note)
        notes.put("a", Note("x"), if_value=Note("y"))
        assert_type(notes.transact(lambda tx: tx.get("a")), Note | None)


def typed() -> None:
    with blocking.Level("x") as level:
        notes = level.typed(Note, prefix="note/")
        assert_type(notes, "blocking.Typed[Note, str]")
        assert_type(notes.get("a"), Note | None)
        assert_type(notes.get("a", 5), Note | int)
        assert_type(notes.get_many(["a"]), list[Note | None])
        assert_type(notes.query(filter=lambda key, note: note.stars > 1), list[tuple[str, Note]])
        assert_type(notes["a"], Note)
        notes.put("a", Note("x"))
        with notes.write_batch() as batch:
            batch.put("a", Note("x"))
        with notes.snapshot() as snapshot:
            assert_type(snapshot.get("a"), Note | None)
        same: blocking.Typed[Note] = level.sublevel("note", type=Note)
        print(same)
        assert_type(level.sublevel("x"), blocking.Sublevel)
        assert_type(level.sublevel("x").get("a", None), Any | None)
        assert_type(level.typed(Record).get("a"), Record | None)

        orders = level.sublevel("orders", key=ordered.Tuple[str, int])
        orders.put(("JP", 5), {"x": 1})
        assert_type(orders.keys(prefix=("JP",)), list[tuple[str, int]])
        both = level.sublevel("orders", type=Note, key=ordered.Tuple[str, datetime])
        assert_type(both.query(), list[tuple[tuple[str, datetime], Note]])


async def asynchronous(server: Level, remote: Typed[Note]) -> None:
    async with Level("x", mode=Level.CLIENT) as level:
        await level.put("a", {"x": [1]})
        print((await level.get("a"))["x"])
        assert_type(await level.get("a", 0), Any | int)
        notes = level.typed(Note, prefix="note/")
        assert_type(notes, "Typed[Note, str]")
        assert_type(await notes.get("a"), Note | None)
        async for key, note in notes.scan():
            assert_type(key, str)
            assert_type(note, Note)
        async with notes.write_batch() as batch:
            batch.put("a", Note("x"))
        orders = level.sublevel("orders", key=ordered.Tuple[str, int])
        assert_type(await orders.keys(), list[tuple[str, int]])
        await level.sync(server, on_reset="raise")
        async with level.live(server, on_reset="reset", interval=5):
            await remote.put("a", Note("x"))


def keys() -> None:
    key: str = ordered.encode(("JP", 42, None))
    assert_type(ordered.decode(key), tuple[Any, ...])
    assert_type(ordered.prefix(("JP",)), str)
