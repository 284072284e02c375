"""``backup`` and ``restore``; ``dump --all`` and ``load``, which keep the identity of a store."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from backups.test_backup import filled
from stores import dump

from treehub_level import Level, Mode, blocking
from treehub_level.backends import create
from treehub_level.cli import whole_dumps

from .conftest import Cli


def stored(name: str, backend: str = "leveldb") -> dict[bytes, bytes]:
    """Return all rows of a closed store."""
    return dump(create(backend, name, {}))


def test_a_store_that_is_open_is_backed_up_and_restored(cli: Cli) -> None:
    with filled(Path("store"), backend="leveldb") as level:
        level.put("last", 1)
        made = cli("backup", "store", "one", "--json").json
        assert (made["path"], made["mode"], made["cid"]) == (os.path.abspath("one"), "server", 1001)
        for _ in range(3):
            assert "and verified it" in cli("backup", "store", "several", "--keep", "2").out
    assert len(os.listdir("several")) == 2
    assert "is the same server" in cli("restore", "several", "restored").out
    assert cli("restore", "one", "restored.sqlite", "--backend", "sqlite", "--json").json["cid"] == 1001
    assert stored("restored") == stored("store") == stored("restored.sqlite", "sqlite")


def test_what_cannot_be_done_is_told_with_the_way_out(cli: Cli) -> None:
    filled(Path("store"), backend="leveldb")
    cli("backup", "store", "backup")
    for command, message in [
        (("backup", "store", "backup"), "--keep N"),
        (("backup", "absent", "other"), "there is no store"),
        (("restore", "absent", "other"), "there is no backup"),
        (("restore", "backup", "store"), "move it away first"),
    ]:
        assert message in cli(*command, code=1).err
    assert not os.path.exists("other")
    assert "name the backup" in cli("backup", "store", code=2).err
    assert "leave out DIR" in cli("backup", "http://127.0.0.1:1/v1/notes", "backup", code=2).err


# -------------------------------------------------------------------------------------- whole dumps


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("backend", ["leveldb", "sqlite"])
def test_load_makes_the_same_store_of_a_whole_dump(cli: Cli, mode: Mode, backend: str) -> None:
    with blocking.Level("store", backend=backend, mode=mode) as level:
        level.load([(f"key {number} é😀", [number, "\x00\u2028", 1.0]) for number in range(1200)])
        level.delete("key 7 é😀")
    cli("dump", "--all", "store", "dump.jsonl", "--backend", backend)
    assert cli("load", "copy", "dump.jsonl", "--json").json["mode"] == mode.value
    piped = cli("dump", "--all", "store", "--backend", backend).out
    assert cli("load", "piped", "--backend", "sqlite", stdin=piped).code == 0
    assert stored("copy") == stored("store", backend) == stored("piped", "sqlite")


def test_rows_that_are_not_text_come_back_too(cli: Cli) -> None:
    level: Any = blocking.Level("store", key_encoding="bytes", value_encoding="bytes")
    with level:
        level.put(b"\xff\x00", b"\xfe")
        level.put(b"text", b"\xfe")
    cli("dump", "--all", "store", "dump.jsonl")
    cli("load", "copy", "dump.jsonl")
    assert stored("copy") == {b"\xff\x00": b"\xfe", b"text": b"\xfe"}


def test_a_whole_dump_that_is_cut_off_or_changed_makes_no_store(cli: Cli) -> None:
    with blocking.Level("store", mode=Level.SERVER) as level:
        level.put("a", 1)
    text = cli("dump", "--all", "store").out
    lines = text.splitlines(keepends=True)
    broken = ["".join(lines[:count]) for count in range(1, len(lines))]
    broken += [text.replace('["a","1"]', '["a","2"]'), text.replace('"prefix":"!"', '"prefix":"#"'), text[:-20]]
    for part in broken:
        assert cli("load", "copy", stdin=part, code=1).err.startswith("error: stdin")
        assert not os.path.exists("copy")
    cli("load", "copy", stdin=text)
    assert "into a new store only" in cli("load", "copy", stdin=text, code=1).err
    assert stored("copy") == stored("store")
    for arguments in (("--mode", "server"), ("--key", "id")):
        assert "leave out" in cli("load", "other", *arguments, stdin=text, code=2).err
    assert "leave out" in cli("dump", "--all", "store", "--limit", "1", code=2).err


def test_a_whole_dump_is_recognised_in_a_pipe() -> None:
    class Pipe(io.BufferedReader):
        def seekable(self) -> bool:
            return False

    for text, is_whole in ((b'{"treehub-level dump":1}', True), (b'{"key":"a","value":1}', False), (b"", False)):
        stream: Any = Pipe(io.BytesIO(text))
        assert whole_dumps.is_whole_dump(stream) is is_whole
        assert stream.read() == text
