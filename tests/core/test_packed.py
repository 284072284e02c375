"""Packed rows, as the compiled core and the native engine exchange them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from stores import NATIVE

from treehub_level import InvalidValueError
from treehub_level._core_py.packed import unpack

pytestmark = pytest.mark.once

ENTRIES = [(b"a", b"1"), (b"gone", None), (b"k", b""), ("é".encode(), b'{"x":[1]}')]


def test_a_packed_batch_is_a_sequence_of_its_entries(compiled: Any, pure: Any) -> None:
    batch = compiled.server_batch(compiled.KeySpace("!"), 7, ENTRIES)
    listed = pure.server_batch(pure.KeySpace("!"), 7, ENTRIES)
    assert unpack(batch.rows) == [*batch] == listed
    assert (len(batch), bool(batch), batch[-1], batch[0]) == (9, True, (b"!", b"11"), ENTRIES[0])
    batch.append((b"!!more", b"1"))
    listed.append((b"!!more", b"1"))
    assert batch == listed
    assert batch != [*listed, (b"k", None)]
    assert unpack(batch.rows) == listed[:-1]
    assert repr(batch) == repr(listed)


@pytest.mark.parametrize("key", [b'quote"', b"back\\slash", b"control\x01"], ids=repr)
def test_a_key_that_json_escapes_makes_the_batch_a_list(compiled: Any, pure: Any, key: bytes) -> None:
    batch = compiled.server_batch(compiled.KeySpace("!"), 7, [(b"a", b"1"), (key, b"2")])
    assert batch == pure.server_batch(pure.KeySpace("!"), 7, [(b"a", b"1"), (key, b"2")])
    assert type(batch) is list


def test_rows_that_end_within_one_are_refused(compiled: Any) -> None:
    whole = compiled.client_batch(compiled.KeySpace("!"), ENTRIES).rows
    ends = {len(whole[: -len(rest)]) for rest in _suffixes(whole)}
    for size in range(len(whole)):
        if size in ends or size == 0:
            unpack(whole[:size])
        else:
            with pytest.raises(ValueError, match="they end within one"):
                unpack(whole[:size])


def _suffixes(rows: bytes) -> list[bytes]:
    """The rest of packed rows after each row but the last."""
    suffixes = []
    while rows:
        key, value = struct.unpack_from("@NN", rows)
        rows = rows[struct.calcsize("@NN") + key + (0 if value == 2 ** (8 * struct.calcsize("@N")) - 1 else value) :]
        suffixes.append(rows)
    return suffixes[:-1]


@pytest.mark.skipif(not NATIVE, reason="LevelDB was not there when the package was built")
def test_the_engine_reads_no_byte_beyond_invalid_rows(tmp_path: Path, compiled: Any) -> None:
    from treehub_level._store_c import DB

    class Rows:
        more: tuple[()] = ()

        def __init__(self, rows: bytes) -> None:
            self.rows = rows

    database = DB(str(tmp_path / "store"), create_if_missing=True)
    whole = compiled.client_batch(compiled.KeySpace("!"), ENTRIES).rows
    for bad in (whole[:-1], whole[:5], struct.pack("@NN", 2**40, 1) + b"k", struct.pack("@NN", 1, 2**63) + b"k"):
        with pytest.raises(InvalidValueError):
            database.write(Rows(bad))  # type: ignore[arg-type]  # a private protocol of the two modules
    assert database.scan(None, None).fetch(9) == []
    database.write(Rows(whole))  # type: ignore[arg-type]  # a private protocol of the two modules
    cursor = database.scan(None, None)
    assert unpack(cursor.fetch_packed(99)) == sorted(unpack(whole)[:2] + unpack(whole)[3:], key=lambda row: row[0])
    database.close()
