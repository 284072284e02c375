"""Secrets stay with their owner: the modes of new files, and URLs in the output."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from treehub_level import blocking, redaction
from treehub_level.http import Hub

from .conftest import Cli

SECRET = "s3cr3t"
DATABASE = f"postgres://user:{SECRET}@127.0.0.1:1/db?store=a&sslpassword={SECRET}"

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX file modes")


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Set the umask that most systems have: others may read new files."""
    if os.name != "posix":
        yield
        return
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@posix
@pytest.mark.usefixtures("cli")
def test_a_new_store_is_for_its_owner_only() -> None:
    with blocking.Level("parent/store") as level:
        level.put("a", 1)
    with blocking.Level("store.sqlite", backend="sqlite") as level:
        level.put("a", 1)
        assert {mode_of(f"store.sqlite{suffix}") for suffix in ("", "-wal", "-shm")} == {0o600}
    assert (mode_of("parent"), mode_of("parent/store"), mode_of("store.sqlite")) == (0o755, 0o700, 0o600)
    Hub("served", create=["notes"]).prepare()
    assert (mode_of("served"), mode_of("served/notes")) == (0o700, 0o700)


@posix
def test_new_files_of_commands_are_for_their_owner_only(cli: Cli) -> None:
    cli("put", "store", "a", "1")
    cli("dump", "store", "out.jsonl")
    cli("copy", "store", "copied")
    cli("copy", "store", "copied.sqlite", "--to-backend", "sqlite")
    cli("token", "add", "tokens", "--database", "*", "--output", "token")
    assert {mode_of(name) for name in ("store", "copied")} == {0o700}
    assert {mode_of(name) for name in ("out.jsonl", "copied.sqlite", "tokens", "token")} == {0o600}


@posix
def test_an_existing_file_or_directory_keeps_its_mode(cli: Cli) -> None:
    os.mkdir("store", 0o750)
    Path("out.jsonl").touch(0o644)
    Path("store.sqlite").touch(0o644)
    cli("put", "store", "a", "1")
    cli("put", "store.sqlite", "a", "1", "--backend", "sqlite")
    cli("dump", "store", "out.jsonl")
    assert (mode_of("store"), mode_of("out.jsonl"), mode_of("store.sqlite")) == (0o750, 0o644, 0o644)


#: Commands with a URL in place of ``URL``.
COMMANDS = """
    get URL a
    put URL a 1
    load URL in
    load store URL
    dump URL
    dump store URL
    info URL
    sync URL server
    sync client URL
    compact URL
    copy URL to
    upgrade URL
    adopt URL --mode server
    verify URL
    repair URL
    serve URL
    token list URL
    URL
    get store a --mode URL
"""
URLS = [
    f"http://u:{SECRET}@127.0.0.1:1/v1/notes",
    f"https://{SECRET}@h/v1/x",
    f"http://u:p/{SECRET}@h/v1/x",
    f"http://127.0.0.1:1/v1/notes?token={SECRET}",
    f"http://127.0.0.1:1/v1/notes?{SECRET}",
    f"http://127.0.0.1:1/v1/notes#{SECRET}",
    f"http://h:{SECRET}/v1/x",
    f"http://u:a {SECRET}@h/v1/n",
]


@pytest.mark.parametrize("command", COMMANDS.strip().splitlines(), ids=str.strip)
def test_a_secret_in_a_database_url_is_not_repeated(cli: Cli, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("put", "store", "a", "1")
    monkeypatch.setenv("COLUMNS", "400")
    for options in ((), ("--json",), ("--backend", "sqlite"), ("--backend", "postgres")):
        run = cli(*command.replace("URL", DATABASE).split(), *options, code=None)
        assert run.code in (1, 2)
        assert run.err
        assert SECRET not in run.out + run.err


@pytest.mark.parametrize("url", URLS)
def test_a_secret_in_the_url_of_a_server_is_not_repeated(cli: Cli, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    for options in ((), ("--json",)):
        run = cli("sync", "client", url, *options, code=2)
        assert "URL" in run.err
        assert SECRET not in run.err


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://u@h:1,g:2/db?store=a", "postgres://u@h:1,g:2/db?store=a"),
        ("postgresql://u:p@h/db?store=a&password=x", "postgresql://u:***@h/db?store=a&password=***"),
        ("postgres://u:p@q@h/db", "postgres://u:***@h/db"),
        ("http://[::1]:80/v1/a:b", "http://[::1]:80/v1/a:b"),
        ("http://token@h/?a=1&flag#f", "http://***@h/?a=***&***#***"),
        ("no URL: a@b?c=d", "no URL: a@b?c=d"),
        ("", ""),
    ],
)
def test_a_redacted_url_keeps_all_but_its_secrets(url: str, shown: str) -> None:
    assert redaction.redact_url(url) == shown


def test_a_key_that_is_a_url_stays_readable_in_an_error(cli: Cli) -> None:
    cli("put", "store", "a", "1")
    assert "'https://example.org/?q=1#top'" in cli("get", "store", "https://example.org/?q=1#top", code=1).err
