"""No command plants a store: reading creates none, and a command that fails removes its own."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from treehub_level import Level, blocking
from treehub_level.backends import create
from treehub_level.backends.leveldb import directory, lock
from treehub_level.cli import transfer
from treehub_level.engine.records import COPYING_KEY

from .conftest import Cli

pytestmark = pytest.mark.once

READING = [
    ("dump", "R"),
    ("info", "R"),
    ("get", "R", "k"),
    ("query", "R"),
    ("keys", "R"),
    ("count", "R"),
    ("conflicts", "R"),
    ("changes", "R"),
    ("history", "R", "k"),
    ("dirty", "R"),
    ("verify", "R"),
    ("followed", "R"),
    ("copy", "R", "target"),
]
CHANGING = [
    ("compact", "R"),
    ("follow", "R", "a/"),
    ("unfollow", "R", "a/"),
    ("delete", "R", "k"),
    ("conflicts", "R", "--dismiss", "k"),
    ("adopt", "R", "--mode", "server"),
    ("upgrade", "R"),
    ("repair", "R"),
]
CREATING = [("put", "R", "k", "1"), ("load", "R"), ("sync", "R", "server"), ("copy", "server", "R")]


def tree() -> dict[str, bytes]:
    """Return the files and folders below R."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(Path("R").rglob("*"))}


def with_stores() -> None:
    for name in ("notes", "phone"):
        with blocking.Level(f"R/{name}", mode=Level.SERVER) as level:
            level.put("k", 1)


def with_other_folders() -> None:
    Path("R/photos").mkdir(parents=True)


def with_other_files() -> None:
    Path("R").mkdir()
    Path("R/letter.txt").write_text("precious")


@pytest.mark.parametrize("fill", [with_stores, with_other_folders, with_other_files], ids=lambda fill: fill.__name__)
def test_a_directory_that_is_no_store_is_left_as_it_is(cli: Cli, fill: Callable[[], None]) -> None:
    cli("put", "server", "k", "1", "--mode", "server")
    fill()
    before = tree()
    for command in (*READING, *CHANGING, *CREATING):
        run = cli(*command, code=1)
        assert run.err.startswith("error: "), command
        assert tree() == before, command
    assert not Path("target").exists()
    if fill is with_stores:
        assert "'R/notes'" in cli("put", "R", "k", "1", code=1).err.replace(str(Path.cwd()) + "/", "")


def test_control_without_the_check_of_its_files_a_store_is_planted(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with_stores()
    monkeypatch.setattr(directory, "check_files", lambda path, repaired: None)
    cli("put", "R", "k", "1")
    assert Path("R/CURRENT").exists()


@pytest.mark.parametrize("present", [False, True], ids=["absent", "empty"])
@pytest.mark.parametrize("backend", ["leveldb", "sqlite"])
def test_reading_and_changing_create_no_store(cli: Cli, backend: str, present: bool) -> None:
    if present and backend == "leveldb":
        Path("R").mkdir()
        for name in ("LOCK", "LOG", ".hidden"):  # of an opening that failed
            Path("R", name).touch()
    elif present:
        Path("R").touch()
    before = tree()
    for command in (*READING, *CHANGING):
        options = ["--backend", backend] if command[0] != "copy" else ["--from-backend", backend]
        assert cli(*command, *options, code=1).err.startswith("error: "), command
        assert tree() == before, command
        assert Path("R").exists() == present


def test_an_sqlite_database_without_tables_is_no_store(cli: Cli) -> None:
    import sqlite3

    with sqlite3.connect("R") as connection:
        connection.executescript("CREATE TABLE t(x); DROP TABLE t; VACUUM")
    connection.close()
    before = Path("R").read_bytes()
    assert "no store" in cli("count", "R", "--backend", "sqlite", code=1).err
    assert Path("R").read_bytes() == before


@pytest.mark.parametrize("backend", ["leveldb", "plyvel", "sqlite"])
def test_a_refused_load_put_or_sync_leaves_nothing_behind(cli: Cli, backend: str) -> None:
    options = ["--backend", backend]
    target = "new/deeper/R" if backend != "sqlite" else "R"
    Path("bad.jsonl").write_text('{"key": "a", "value": 1}\n{oops')
    cli("load", target, "bad.jsonl", *options, code=1)
    cli("load", target, *options, stdin="{oops", code=1)
    cli("put", target, "!k", "1", "--mode", "server", *options, code=1)
    cli("sync", target, "http://127.0.0.1:1/v1/notes", *options, code=1)
    assert sorted(path.name for path in Path().iterdir()) == ["bad.jsonl"]


def test_a_refused_load_put_or_sync_leaves_no_store_in_postgres(cli: Cli, postgres_url: str) -> None:
    store = f"planted-{uuid4().hex}"
    target, options = f"{postgres_url}?store={store}", ["--backend", "postgres"]
    for command in READING:
        if command[0] not in ("copy", "verify"):
            cli(command[0], target, *command[2:], *options, code=1)
    cli("load", target, *options, stdin="{oops", code=1)
    cli("put", target, "!k", "1", "--mode", "server", *options, code=1)
    cli("sync", target, "http://127.0.0.1:1/v1/notes", *options, code=1)
    stored_names = import_module("treehub_level.backends.postgres").stored_names
    assert store not in stored_names(postgres_url)
    cli("put", target, "k", "1", "--mode", "server", *options)
    assert store in stored_names(postgres_url)


@pytest.mark.parametrize("backend", ["leveldb", "sqlite"])
def test_a_refused_copy_leaves_no_target_behind(cli: Cli, backend: str) -> None:
    half_made = create("leveldb", "source", {})
    half_made.open()
    half_made.write([(COPYING_KEY, b'{"from": "elsewhere", "store": null, "run": "1"}'), (b"k", b"1")])
    half_made.close()
    assert "half-made copy" in cli("copy", "source", "target", "--to-backend", backend, code=1).err
    assert [path.name for path in Path().iterdir()] == ["source"]


def test_a_load_that_stored_a_batch_before_it_failed_keeps_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_bytes_left", lambda stream: None)  # as for a pipe
    cli("load", "R", "--batch-size", "1", stdin='{"key": "a", "value": 1}\n{oops', code=1)
    assert cli("count", "R").out == "1\n"


@pytest.mark.parametrize("backend", ["leveldb", "sqlite"])
def test_a_store_that_was_there_stays_after_a_refused_command(cli: Cli, backend: str) -> None:
    options = ["--backend", backend]
    cli("load", "R", *options, stdin="")
    cli("load", "R", *options, stdin="{oops", code=1)
    assert cli("count", "R", *options).out == "0\n"


def test_a_sync_that_fails_keeps_a_store_that_was_there(cli: Cli) -> None:
    with blocking.Level("R", mode=Level.CLIENT):
        pass
    cli("sync", "R", "http://127.0.0.1:1/v1/notes", code=1)
    assert cli("info", "R", "--json").json["mode"] == "client"


def test_an_opening_that_fails_leaves_no_directory_behind(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock.DirectoryLock, "replace_file", fail)
    with pytest.raises(OSError, match="No space"):
        blocking.Level(tmp_path / "new" / "store", backend=engine).open()
    assert list(tmp_path.iterdir()) == []
