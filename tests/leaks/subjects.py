"""The calls to check: each function of the compiled core, and the native engine.

The arguments are valid and invalid.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import orjson

from treehub_level.types import Change, Delete, Put


class Subject:
    """Calls, and the objects whose reference counts they must not change."""

    def __init__(self, calls: list[Callable[[], object]], watched: list[object]) -> None:
        self.calls = calls
        self.watched = watched


#: Arguments of each kind: valid, edge cases, and of a wrong type.
_KEYS: Final = ["a", "é", "", "!", "a" * 1025, "\ud800", "k" * 300, 1, None]
_BYTES: Final = [b"a", b":10", b"!:10", b"\xff", b"", b"k" * 300, "a", None]
_VALUES: Final = [
    {"x": [1, 2.5, None]},
    "text",
    2**64,
    float("nan"),
    {1: 2},
    {"a": "\ud800"},
    object(),
    [[]],
    "v" * 5000,
]
_TEXTS: Final = [b'{"a":[1,2]}', b" [1, 2]", b'{"a":1,"a":2}', b"1e400", b"[", b"\xff", b"123456789012345678901", "1"]
_RECORDS: Final = [b'["a",1]', b'["a"]', b' [ "\\u00e9" , {"x":1} ] ', b'["a",]', b"[1]", b"\xff", b'["a",1,2]', 1]
_LINES: Final = [
    b'{"key":"a","value":1}\n',
    b'{"key":"\\u00e9","value":{"a":1}}',
    b'{"key":"a","value":NaN}',
    b"1",
    None,
]
_OPS: Final = [Put("a", 1), Delete("a"), {"type": "put", "key": "a", "value": 1}, {"type": "x"}, Put("a", object()), 1]
_ENTRIES: Final = [(b"a", b"1"), (b"b", None), (b'q"', b"2"), (b"a",), (1, 2), None]


_ARGUMENTS: Final[dict[str, list[list[Any]]]] = {
    "cid_key": [[cid] for cid in (1, 10, 2**53 - 1, 0, 2**53, True, "1")],
    "parse_cid_key": [[key] for key in _BYTES],
    "encode_key": [[key] for key in _KEYS],
    "decode_key": [[key] for key in _BYTES],
    "successor": [[key] for key in _BYTES],
    "range_bounds": [[one, None, other, None, one, None] for one in _BYTES for other in _BYTES[:3]],
    "KeySpace": [[key] for key in ["!", "!/", *_KEYS]],
    "encode_json_key": [[key] for key in _BYTES],
    "join_record": [[key, value] for key in _BYTES for value in (b"1", None, 1)],
    "split_record": [[record] for record in _RECORDS],
    "split_rows": [[[b"[1,2]", b'[3,["a"]]']], [[b"[0,1]"]], [[b"[1,2]", 1]], [None]],
    "check_value": [[value] for value in _VALUES],
    "encode_value": [[value, limit] for value in _VALUES for limit in (None, 3)],
    "json_value": [[text] for text in _TEXTS],
    "json_line": [[line] for line in _LINES],
    "decode_changes": [[_RECORDS[:3]], [_RECORDS], [[b"1"]], [None]],
    "collect": [[iter([[1], []]).__next__, list, None, None, 1], [None, None, None, None, 1], [None, list, None, 0, 1]],
}


def functions() -> dict[str, Subject]:
    """The subjects of the compiled core, by function."""
    core = import_module("treehub_level._core_c")
    space = core.KeySpace("!")
    subjects = {
        name: Subject(
            [partial(getattr(core, name), *arguments) for arguments in calls],
            [argument for arguments in calls for argument in arguments],
        )
        for name, calls in _ARGUMENTS.items()
    }
    encoders = {
        "SERVER": core.Encoder(space),
        "NORMAL": core.Encoder(key_prefix="sub/"),
        "raw": core.Encoder(key_prefix=b"\xff", raw_keys=True, raw_values=True),
    }
    for kind, encoder in encoders.items():
        calls = [partial(encoder.key, key) for key in (*_KEYS, *_BYTES)]
        calls += [partial(encoder.put, "a", value) for value in (*_VALUES, *_BYTES)]
        calls += [partial(encoder.ops, [_OPS[0], op]) for op in _OPS]
        calls += [partial(encoder.pairs, [("a", 1), ("b", value)]) for value in _VALUES]
        calls += [partial(encoder.changes, [Change("a", 1), ["b", value], ["c"]]) for value in _VALUES]
        calls += [partial(encoder.records, [_RECORDS[0], record]) for record in _RECORDS]
        subjects[f"Encoder, {kind}"] = Subject([*calls], [*_KEYS, *_BYTES, *_VALUES, *_OPS, *_RECORDS, encoder])
    calls = [partial(core.server_batch, space, 7, [_ENTRIES[0], entry]) for entry in _ENTRIES]
    calls += [partial(core.client_batch, space, [_ENTRIES[0], entry]) for entry in _ENTRIES]
    calls += [partial(core.apply_batch, space, 7, [_ENTRIES[0], entry]) for entry in _ENTRIES]
    calls += [partial(core.server_batch, space, core.MAX_CID, _ENTRIES[:1])]
    subjects["batches"] = Subject([*calls], [space, *_ENTRIES])
    records: list[Any] = [_RECORDS[:3], _RECORDS, [b"1"], [1], None]
    subjects["find_damaged"] = Subject([partial(core.find_damaged, space, some) for some in records], [space, *records])
    log_rows = [[(space.log_key(7), b'["a"]'), row] for row in ((b"!1", b"[]"), (b"!", b"[]"), (b"!1", 1), None)]
    subjects["parse_log_rows"] = Subject([partial(space.parse_log_rows, rows) for rows in log_rows], [space, *log_rows])
    packed = core.client_batch(space, [(b"a", b"1"), (b"b", b"{}")]).rows
    rows = [packed, packed[:-1], [(b"a", b"1"), (b"\xff", b"1")], [(b"a", b"[")], None]
    decoders = [core.Decoder(), core.Decoder(strip=1), core.Decoder(raw_keys=True, raw_values=True)]
    calls = [partial(decoder.items, some) for decoder in decoders for some in rows]
    calls += [partial(decoder.values, some) for decoder in decoders for some in rows]
    calls += [partial(decoder.keys, [b"a", b"\xff"]) for decoder in decoders]
    subjects["Decoder"] = Subject([*calls], [*rows, *decoders])
    return subjects


@contextmanager
def engine() -> Iterator[Subject]:
    """The native engine: reads, writes, closed and garbage-collected handles, missing stores."""
    store = import_module("treehub_level._store_c")
    with tempfile.TemporaryDirectory() as folder:
        db = store.DB(str(Path(folder) / "db"), create_if_missing=True)
        rows = [(b"k%03d" % n, orjson.dumps({"n": n})) for n in range(200)]
        db.write(rows)

        yield Subject(
            [
                lambda: db.get(b"k001"),
                lambda: db.get("k"),
                lambda: db.get_many([b"k001", b"none", 1]),
                lambda: db.get_many([b"k001", b"none"]),
                lambda: db.write(rows[:3]),
                lambda: db.write([(b"a", 1)]),
                lambda: db.scan(None, None).fetch(50),
                lambda: db.scan(b"k", None, reverse=True).fetch_packed(50),
                lambda: db.scan(b"k", "x"),
                lambda: db.snapshot().scan(None, b"k1").fetch_keys(50),
                lambda: db.snapshot().close(),
                lambda: store.DB(str(Path(folder) / "none")),
                lambda: db.property_value("leveldb.stats"),
                lambda: db.approximate_size(b"a", b"z"),
            ],
            [rows, rows[0][0], rows[0][1]],
        )
        db.close()
