"""``copy``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from databases import Database

from treehub_level import blocking

from .conftest import Cli


@pytest.fixture
def server(cli: Cli) -> str:
    """A server store with two changes, which is five rows with its metadata."""
    cli("put", "server", "a", "1", "--mode", "server")
    cli("put", "server", "b", '"é"')
    return "server"


def test_a_copied_store_is_the_same_store(cli: Cli, server: str) -> None:
    cli("copy", server, "target")
    source, copied = cli("info", server, "--json").json, cli("info", "target", "--json").json
    for fact in ("mode", "store", "cid", "records", "log"):
        assert copied[fact] == source[fact]
    assert cli("dump", "target").out == cli("dump", server).out


def test_the_report_has_the_number_of_rows_and_the_digest(cli: Cli, server: str) -> None:
    rows = cli("copy", server, "target", "--json").json["rows"]
    run = cli("copy", server, "another")
    copied, compared, identity = run.out.splitlines()
    assert copied == f"copied {rows} rows from server to another"
    assert re.fullmatch("compared both: they are equal, SHA-256 [0-9a-f]{64}", compared)
    assert identity == (
        "another has the identity of server, so clients take it for the same server: "
        "serve another instead of server, and do not write to server any more"
    )
    assert run.err == f"copy: {rows}\ncompare: {rows}\n"


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [("normal", "store is unchanged"), ("client", "sync target instead of store, and do not sync store any more")],
)
def test_the_report_ends_with_the_consequences_of_the_copied_identity(cli: Cli, mode: str, sentence: str) -> None:
    cli("put", "store", "a", "1", "--mode", mode)
    assert sentence in cli("copy", "store", "target").out


def test_the_json_output_has_the_fields_of_the_report(cli: Cli, server: str) -> None:
    run = cli("copy", server, "target", "--json")
    assert run.json.keys() == {"mode", "rows", "written", "sha256"}
    assert (run.json["mode"], run.json["written"]) == ("server", run.json["rows"])
    assert run.err == ""
    assert cli("copy", "target", "again", "--json").json == run.json


def test_it_copies_from_one_backend_to_another(cli: Cli, server: str) -> None:
    first = cli("copy", server, "target", "--from-backend", "plyvel", "--to-backend", "leveldb", "--json").json
    assert cli("copy", "target", "back", "--to-backend", "plyvel", "--json").json == first


@pytest.fixture
def url(postgres: Database) -> str:
    """Return the URL of PostgreSQL with a password, which the server ignores."""
    return postgres.url.replace("postgres@", "postgres:s3cr3t@")


def test_a_password_in_a_url_is_not_shown(cli: Cli, server: str, url: str) -> None:
    shown = cli("copy", server, url, "--to-backend", "postgres", "--to-store", "copied")
    assert "?store=copied" in shown.out
    assert "s3cr3t" not in shown.out + shown.err


def test_a_copy_in_a_database_is_a_store_for_every_command_under_the_url_that_is_shown(
    cli: Cli, server: str, url: str
) -> None:
    shown = cli("copy", server, f"{url}?store=shown", "--to-backend", "postgres").out
    there = re.search(r"to (postgresql://\S+)\n", shown)
    assert there is not None
    assert cli("dump", there[1], "--backend", "postgres").out == cli("dump", server).out
    assert cli("verify", there[1], "--backend", "postgres").out.startswith(f"{there[1]} is a server store\n")


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_a_password_in_the_url_of_a_store_that_is_not_there_is_not_shown(
    cli: Cli, url: str, form: tuple[str, ...]
) -> None:
    absent = f"{url}?store=absent"
    for verb, *rest in (("get", "a"), ("query",), ("verify",), ("upgrade",), ("adopt", "--mode", "client"), ("dirty",)):
        run = cli(verb, absent, *rest, "--backend", "postgres", *form, code=1)
        assert "?store=absent" in run.err
        assert "s3cr3t" not in run.out + run.err


def test_a_url_without_its_backend_is_an_error(cli: Cli, server: str, url: str, tmp_path: Path) -> None:
    for command in (("put", url, "a", "1"), ("copy", server, url), ("serve", url), ("serve", url, "--create", "notes")):
        run = cli(*command, code=1)
        assert "not a URL: pass the backend" in run.err
        assert "s3cr3t" not in run.err
    assert [path.name for path in tmp_path.iterdir()] == [server]


def test_a_store_of_another_prefix_is_copied(cli: Cli) -> None:
    cli("put", "store", "a", "1", "--mode", "server", "--metadata-prefix", "#")
    assert cli("copy", "store", "target", "--metadata-prefix", "#", "--json").json["mode"] == "server"
    assert cli("get", "target", "a", "--metadata-prefix", "#").out == "1\n"


def interrupt(source: str, target: str) -> None:
    """Interrupt a copy after its first step."""

    def stop(step: str, rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blocking.copy(source, target, progress=stop)


def test_opening_an_unfinished_copy_names_the_command_that_finishes_it(cli: Cli, server: str) -> None:
    interrupt(server, "target")
    refused = cli("dump", "target", code=1).err
    assert "run `treehub-level copy server target` again" in refused
    finished = cli("copy", "server", "target").out
    assert re.match(r"copied (\d+) rows from server to target, of which \1 were there already\n", finished)
    assert cli("dump", "target").out == cli("dump", server).out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("missing", "target"), "there is no store at 'missing' to copy"),
        (("server", "full"), "'full' holds data"),
        (("server", "half"), "'half' is a half-made copy of 'other', not of 'server'"),
        (("half", "target"), "'half' is a half-made copy itself"),
        (("server", "server"), "open already"),
        (("server", "target", "--to-backend", "nothing"), "no backend is called 'nothing'"),
    ],
)
def test_a_copy_that_is_refused_is_one_line_on_stderr(
    cli: Cli, server: str, arguments: tuple[str, ...], error: str
) -> None:
    cli("put", "full", "a", "1")
    cli("put", "other", "a", "1")
    interrupt("other", "half")
    run = cli("copy", *arguments, code=1)
    assert run.err.startswith("error: ")
    assert error in run.err
    assert run.err.count("\n") == 1


@pytest.mark.parametrize("option", [("--metadata-prefix", "a"), ("--to-store", "places")])
def test_an_invalid_option_is_a_usage_error(cli: Cli, server: str, option: tuple[str, str]) -> None:
    assert "Invalid value" in cli("copy", server, "target", *option, code=2).err


def test_a_long_copy_prints_lines_of_progress(cli: Cli, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treehub_level.cli.progress.LINE_EVERY", 2000)
    with blocking.Level("long") as level:
        level.load((f"{number:05}", number) for number in range(4500))
    assert cli("copy", "long", "target").err.splitlines() == [
        *["copy: 2,000", "copy: 4,000", "copy: 4,500"],
        *["compare: 2,000", "compare: 4,000", "compare: 4,500"],
    ]
