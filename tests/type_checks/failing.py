"""Uses of the public API that type checkers must refuse.

The comment of a line names the expected errors: the codes of mypy, a bar, and the rules of pyright.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from treehub_level import JSON, Level, Operation, Typed, blocking, ordered


@dataclass
class Note:
    title: str


def plain(level: blocking.Level) -> None:
    level.put("a", {1, 2})  # arg-type | reportArgumentType
    level.put("a", object())  # arg-type | reportArgumentType
    level.put("a", {"x": datetime.now()})  # dict-item | reportArgumentType
    level.put("a", {1: "x"})  # dict-item | reportArgumentType
    level.put("a", Note("x"))  # arg-type | reportArgumentType
    level.put(5, 1)  # arg-type | reportArgumentType
    level.put("a", 1, True)  # call-arg | reportCallIssue
    level.get(5)  # call-overload | reportArgumentType
    text: str = level.get("a", 5)  # arg-type | reportAssignmentType
    level.keys(gt=5)  # arg-type | reportArgumentType
    level.query(limit="5")  # arg-type | reportArgumentType
    level.query(foo=1)  # call-arg | reportCallIssue
    level.keys(filter=lambda key: key + 1)  # operator | reportOperatorIssue
    level.load([("a",)])  # list-item | reportArgumentType
    value: JSON = {"a": {1}}  # dict-item | reportAssignmentType
    del text, value


def operations(level: blocking.Level) -> None:
    level.batch([{"type": "putt", "key": "a", "value": 1}])  # list-item | reportArgumentType
    level.batch([{"type": "put", "key": "a"}])  # list-item | reportArgumentType
    level.batch([{"type": "del", "kye": "a"}])  # list-item | reportArgumentType
    level.batch([("a", 1)])  # list-item | reportArgumentType
    operation: Operation = {"type": "del"}  # assignment | reportAssignmentType
    del operation


def literals(server: blocking.Level) -> None:
    level = blocking.Level("x", key_encoding="utf-8")  # arg-type | reportArgumentType
    blocking.Level("x", value_encoding="text")  # arg-type | reportArgumentType
    level.sync(server, on_reset="restet")  # arg-type | reportArgumentType
    level.live(server, on_reset="no")  # arg-type | reportArgumentType


def decisions(level: blocking.Level) -> None:
    level.update("n")  # arg-type | reportArgumentType
    level.update({"a": {1}})  # arg-type | reportArgumentType
    level.put("a", 1, if_value={1})  # arg-type | reportArgumentType
    level.put("a", 1, if_absent=5)  # arg-type | reportArgumentType
    level.transact(lambda: 1)  # arg-type, misc | reportArgumentType
    level.transact(lambda tx: tx.put("a", {1}))  # arg-type | reportArgumentType
    level.typed(Note).update("a", lambda note: 5)  # arg-type, return-value | reportArgumentType, reportCallIssue
    level.typed(Note).update("a", lambda note: Note(note.title))  # union-attr | reportOptionalMemberAccess


def typed(level: blocking.Level) -> None:
    notes = level.typed(Note, prefix="note/")
    print(notes.get("a").title)  # union-attr | reportOptionalMemberAccess
    notes.put("a", {"title": "x"})  # arg-type | reportArgumentType
    notes.put(("a", 1), Note("x"))  # arg-type | reportArgumentType
    notes["a"] = "text"  # assignment | reportArgumentType
    notes.load([("a", 5)])  # list-item | reportArgumentType
    print(notes.values()[0].name)  # attr-defined | reportAttributeAccessIssue
    notes.sublevel("x")  # attr-defined | reportAttributeAccessIssue
    wrong: blocking.Typed[str] = notes  # assignment | reportAssignmentType
    orders = level.sublevel("orders", key=ordered.Tuple[str, int])
    orders.put("JP", 1)  # arg-type | reportArgumentType
    orders.put(("JP", "1"), 1)  # arg-type | reportArgumentType
    orders.get(("JP",))  # arg-type | reportArgumentType
    level.sublevel("orders", key=str)  # arg-type | reportArgumentType, reportCallIssue
    level.typed(Note, pefix="x")  # call-overload | reportCallIssue
    del wrong


async def asynchronous(level: Level, notes: Typed[Note]) -> None:
    await level.put("a", {1, 2})  # arg-type | reportArgumentType
    await level.get(5)  # call-overload | reportArgumentType
    await level.batch([{"type": "putt", "key": "a"}])  # list-item | reportArgumentType
    print((await notes.get("a")).title)  # union-attr | reportOptionalMemberAccess
    await notes.put("a", 5)  # arg-type | reportArgumentType
    async for _, note in notes.scan():
        print(note.name)  # attr-defined | reportAttributeAccessIssue
    level.get("a")["x"]  # index | reportIndexIssue
    await level.sync(level, on_reset="no")  # arg-type | reportArgumentType


def keys() -> None:
    ordered.encode("JP")  # arg-type | reportArgumentType
    ordered.encode(["JP"])  # arg-type | reportArgumentType
    ordered.decode(b"x")  # arg-type | reportArgumentType
