"""Each command and method that writes, and its counterpart that reads: nothing is refused."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from example_counts import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treehub_level import blocking
from treehub_level.cli import lines, transfer
from treehub_level.cli.remote import _read_token

from .conftest import Cli

#: Characters that formats of text treat in a special way.
SPECIAL = "\0\t\n\r\x1b\"'\\/{}[]:, \x7f\x85\x9b\xad\u2028\u202e\ufeff\ufffd\uffff😀\U0010ffff"
TEXTS = st.text(st.sampled_from(SPECIAL) | st.characters(exclude_categories=["Cs"]), max_size=20)
KEYS = TEXTS.map("k".__add__)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=5)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Any]:
    """A function that makes a new folder the current one: each example has its own stores."""

    def enter() -> None:
        os.chdir(tempfile.mkdtemp(dir=tmp_path))

    yield enter
    os.chdir(tmp_path)


def contents(name: str, mode: Any = blocking.Level.NORMAL, **options: Any) -> str:
    """Return the records of a store; as text, which tells 0.0 from -0.0 and 1 from True."""
    with blocking.Level(name, mode=mode, **options) as level:
        return repr(level.query())


@settings(max_examples=examples(4), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=RECORDS)
def test_each_reader_accepts_all_that_its_writer_writes(cli: Cli, folder: Any, records: dict[str, Any]) -> None:
    folder()
    check_counterparts(cli, records)


def check_counterparts(cli: Cli, records: dict[str, Any]) -> None:
    """Write records by each command, and read them by its counterpart, in an empty folder."""
    with blocking.Level("normal") as level:
        level.load(records.items())
    expected = contents("normal")
    assert expected == repr(sorted(records.items(), key=lambda record: record[0].encode()))

    cli("dump", "normal", "out.jsonl")
    cli("load", "from a file", "out.jsonl")
    assert contents("from a file") == expected
    cli("load", "from a pipe", stdin=cli("dump", "normal").out)
    assert contents("from a pipe") == expected
    cli("load", "from a query", stdin=cli("query", "normal", "--json").out)
    assert contents("from a query") == expected

    cli("copy", "normal", "there.sqlite", "--to-backend", "sqlite")
    cli("copy", "there.sqlite", "back", "--from-backend", "sqlite")
    assert contents("back") == expected

    for key, value in records.items():
        cli("put", "one by one", key, "-", stdin=cli("get", "normal", key).out)
        if isinstance(value, str) and "\x00" not in value:
            cli("put", "one by one", "--string", "--", key, value if value != "-" else "--")


@pytest.mark.parametrize("fault", ["other line ends", "escapes"])
def test_control_a_reader_that_refuses_or_changes_a_record_is_found(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    records = {"k" + SPECIAL: [SPECIAL, -0.0, 2**63]}
    check_counterparts(cli, records)
    read = lines.read_records

    def faulty(stream: BinaryIO, source: str, key_field: str | None) -> Iterator[lines.InputRecord]:
        text = stream.read().decode()
        text = "\n".join(text.splitlines()) + "\n" if fault == "other line ends" else text.replace("\\u0085", "\x85")
        return read(io.BytesIO(text.encode()), source, key_field)

    monkeypatch.setattr(transfer, "read_records", faulty)
    with pytest.raises(AssertionError):
        check_counterparts(cli, records)


@settings(max_examples=examples(15), deadline=None)
@given(records=RECORDS, gone=st.integers(0, 3))
def test_apply_and_change_accept_all_changes(records: dict[str, Any], gone: int) -> None:
    check_changes(records, [*records][:gone])


def check_changes(records: dict[str, Any], gone: list[str]) -> None:
    """Carry changes from a server to a client and back by hand."""
    with (
        blocking.Level("server", backend="memory", mode=blocking.Level.SERVER) as server,
        blocking.Level("client", backend="memory", mode=blocking.Level.CLIENT) as client,
        blocking.Level("second", backend="memory", mode=blocking.Level.SERVER) as second,
        blocking.Level("writer", backend="memory", mode=blocking.Level.CLIENT) as writer,
    ):
        for level in (server, writer):
            level.load(records.items())
        client.apply(server.changes(0, limit=None))
        for level in (server, writer):
            for key in gone:
                level.delete(key)
        client.apply(server.changes(client.cid, limit=None))
        assert repr(client.query()) == repr(server.query())
        dirty = writer.dirty()
        writer.clean(second.change(0, dirty), dirty)
        assert repr(second.query()) == repr(writer.query()) == repr(server.query())
        assert writer.pending() == 0


def test_control_changes_that_are_not_applied_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    check_changes({"a": 1, "b": 2}, ["a"])
    changes = blocking.Level.changes

    def without_deletes(level: blocking.Level, since: int, limit: int | None) -> Any:
        page = changes(level, since, limit)
        return page._replace(changes=[change for change in page.changes if not change.deleted])

    monkeypatch.setattr(blocking.Level, "changes", without_deletes)
    with pytest.raises(AssertionError):
        check_changes({"a": 1, "b": 2}, ["a"])


def test_a_value_longer_than_a_line_of_other_files_is_dumped_and_loaded(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1 << 20)
    value = "x" * lines.MAX_LINE_BYTES
    with blocking.Level("normal") as level:
        level.put("large", value)
        level.put("small", 1)
    cli("dump", "normal", "out.jsonl")
    assert cli("load", "loaded", "out.jsonl", "--json").json["loaded"] == 2
    with blocking.Level("loaded") as level:
        assert level.get("large") == value
        assert level.get("small") == 1


def test_control_a_long_line_that_is_refused_like_any_other_is_found(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_RECORD_START", b"nothing begins so")
    with pytest.raises(AssertionError, match="is this JSON Lines"):
        test_a_value_longer_than_a_line_of_other_files_is_dumped_and_loaded(cli, monkeypatch)


@pytest.mark.parametrize("text", [b"[" + b"1," * 600, b"x" * 1200, b'{"id": "' + b"x" * 1200 + b'"}\n'])
def test_a_long_line_that_dump_did_not_write_is_refused(cli: Cli, monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1000)
    assert "is this JSON Lines?" in cli("load", "store", "-", stdin=text, code=1).err


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file modes")
def test_sync_reads_the_token_file_that_token_add_writes(cli: Cli) -> None:
    cli("token", "add", "tokens", "--database", "*", "--output", "token")
    assert _read_token("token") == Path("token").read_text().strip()
