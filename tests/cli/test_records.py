"""``get put delete query keys count``."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from treehub_level import blocking
from treehub_level.cli import lines

from .conftest import Cli


@pytest.fixture
def fruit(cli: Cli) -> str:
    """A store with four records."""
    for key, value in {"apple": "1", "banana": '"yellow"', "cherry": "null", "🍇": '{"grapes": [1, 2]}'}.items():
        cli("put", "fruit", key, value)
    return "fruit"


def test_get_prints_the_value_that_put_stored(cli: Cli) -> None:
    cli("put", "store", "ключ", '{"é": [1, 2.5, null]}')
    assert cli("get", "store", "ключ").json == {"é": [1, 2.5, None]}
    assert cli("get", "store", "ключ", "--json").out == '{"é":[1,2.5,null]}\n'


def test_put_prints_nothing_unless_json_is_asked_for(cli: Cli) -> None:
    assert cli("put", "store", "a", "1", "--mode", "server").out == ""
    assert cli("put", "store", "b", "1", "--json").json == {"key": "b", "cid": 2}
    assert cli("put", "plain", "b", "1", "--json").json == {"key": "b", "cid": None}


def test_a_value_may_be_a_negative_number(cli: Cli) -> None:
    cli("put", "store", "cold", "-40")
    assert cli("get", "store", "cold").json == -40


def test_a_value_may_be_a_plain_string(cli: Cli) -> None:
    cli("put", "store", "a", "no JSON", "--string")
    assert cli("get", "store", "a").json == "no JSON"


def test_a_value_may_come_from_stdin(cli: Cli) -> None:
    cli("put", "store", "json", "-", stdin="[1, 2]")
    cli("put", "store", "text", "-", "--string", stdin="naïve\n")
    assert [cli("get", "store", key).json for key in ("json", "text")] == [[1, 2], "naïve\n"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("hello", "--string"),
        ("{'a': 1}", "--string"),
        ('{"a": 1', "not JSON"),
        ("NaN", "not JSON"),
        ("[1234567890123456789, NaN]", "NaN"),
        ("[1234567890123456789," + "[" * 100_000, "nested too deeply"),
        ("", "not JSON"),
        ("\udcff", "not JSON"),
    ],
)
def test_a_value_that_is_not_json_is_refused_and_no_store_is_made(cli: Cli, value: str, reason: str) -> None:
    run = cli("put", "store", "key", value, code=1)
    assert run.err.startswith("error: the value is not JSON")
    assert reason in run.err
    assert run.err.count("\n") == 1
    assert not Path("store").exists()


@pytest.mark.parametrize(
    "value",
    [
        '{"a": 1, "a": 2}',
        '[{"b": {"a": 1, "c": ":", "a": 1}}]',
        '{"a": 1, "\\u0061": 2}',
        '{"a": ":", "a": "\\u003a"}',
        '{"n": 1234567890123456789, "a": 1, "a": 2}',
        "[" * 60 + '{"a": 1, "a": 2}' + "]" * 60,
    ],
)
@pytest.mark.parametrize("stdin", [False, True])
def test_a_value_that_names_a_member_twice_is_refused(cli: Cli, value: str, stdin: bool) -> None:
    run = cli("put", "store", "key", "-" if stdin else value, stdin=value if stdin else None, code=1)
    assert run.err == "error: the value cannot be stored: an object names the member 'a' twice: remove one of them\n"
    assert not Path("store").exists()


def test_a_parser_that_keeps_the_last_of_two_members_is_detected(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_has_all_members", lambda document, text: True)
    with pytest.raises(AssertionError):
        test_a_value_that_names_a_member_twice_is_refused(cli, '{"a": 1, "a": 2}', False)


def test_a_string_from_stdin_that_is_not_utf8_is_refused(cli: Cli) -> None:
    assert "not UTF-8" in cli("put", "store", "key", "-", "--string", stdin=b"\xff", code=1).err


@pytest.mark.parametrize("value", [str(2**64), str(-(2**63) - 1), "[18446744073709551616]", '"\\ud800"', "1e999"])
def test_a_value_that_would_not_come_back_equal_is_refused(cli: Cli, value: str) -> None:
    cli("put", "store", "key", "1")
    run = cli("put", "store", "key", value, "--json", code=1)
    assert run.error["code"] in ("LEVEL_INVALID_VALUE", "CLI_BAD_VALUE")
    assert cli("get", "store", "key").json == 1


@pytest.mark.parametrize("value", [str(2**64 - 1), str(-(2**63)), "12345678901234567.5"])
def test_long_numbers_that_fit_are_stored(cli: Cli, value: str) -> None:
    cli("put", "store", "key", value)
    assert cli("get", "store", "key", "--json").json == json.loads(value)


@pytest.mark.parametrize("key", ["", "!", "!1", " x", "\udcff", "k" * 1025])
def test_a_key_that_the_mode_cannot_hold_is_refused(cli: Cli, key: str) -> None:
    cli("put", "server", "good", "1", "--mode", "server")
    run = cli("put", "server", "--json", "--", key, "1", code=1)
    assert run.error["code"] == "LEVEL_INVALID_KEY"
    assert cli("info", "server", "--json").json["cid"] == 1


def test_get_of_an_absent_key_is_an_error(cli: Cli, fruit: str) -> None:
    assert cli("get", fruit, "durian", code=1).err == "error: fruit has no key 'durian'\n"
    assert cli("get", fruit, "durian", "--json", code=1).error["code"] == "CLI_NO_KEY"
    assert cli("get", fruit, "cherry").out == "null\n"


def test_delete_removes_a_key_and_an_absent_one_is_no_error(cli: Cli, fruit: str) -> None:
    cli("delete", fruit, "apple")
    cli("delete", fruit, "apple", "--json")
    cli("get", fruit, "apple", code=1)


def test_query_prints_key_and_value_on_a_line(cli: Cli, fruit: str) -> None:
    assert cli("query", fruit).out == 'apple\t1\nbanana\t"yellow"\ncherry\tnull\n🍇\t{"grapes":[1,2]}\n'


def test_query_prints_json_lines(cli: Cli, fruit: str) -> None:
    assert cli("query", fruit, "--json", "--gte", "cherry").lines == [
        {"key": "cherry", "value": None},
        {"key": "🍇", "value": {"grapes": [1, 2]}},
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["apple", "banana", "cherry", "🍇"]),
        (("--gt", "apple", "--lt", "cherry"), ["banana"]),
        (("--gte", "apple", "--lte", "cherry"), ["apple", "banana", "cherry"]),
        (("--prefix", "b"), ["banana"]),
        (("--prefix", "🍇"), ["🍇"]),
        (("--reverse",), ["🍇", "cherry", "banana", "apple"]),
        (("--limit", "2"), ["apple", "banana"]),
        (("--limit", "0"), []),
        (("--gt", "x", "--lt", "a"), []),
    ],
)
def test_ranges_select_keys_in_query_keys_and_count(
    cli: Cli, fruit: str, options: tuple[str, ...], expected: list[str]
) -> None:
    assert cli("keys", fruit, *options).out.splitlines() == expected
    assert cli("keys", fruit, *options, "--json").lines == expected
    assert [record["key"] for record in cli("query", fruit, *options, "--json").lines] == expected
    if not {"--reverse", "--limit"} & set(options):
        assert cli("count", fruit, *options).out == f"{len(expected)}\n"
        assert cli("count", fruit, *options, "--json").json == {"count": len(expected)}


@pytest.mark.parametrize(
    "options",
    [("--gt", "a", "--gte", "a"), ("--lt", "a", "--lte", "a"), ("--limit", "-1"), ("--limit", "x"), ("--nonsense",)],
)
def test_options_that_make_no_sense_are_usage_errors(cli: Cli, fruit: str, options: tuple[str, ...]) -> None:
    assert cli("query", fruit, *options, code=2).out == ""


def test_control_characters_of_keys_do_not_reach_the_terminal(cli: Cli) -> None:
    key = "a\x1b[31m\n\tb\x9b"
    with blocking.Level("store") as level:
        level.put(key, "\x9b")
    assert cli("keys", "store").out == "a\\u001b[31m\\u000a\\u0009b\\u009b\n"
    assert cli("query", "store").out == 'a\\u001b[31m\\u000a\\u0009b\\u009b\t"\\u009b"\n'
    assert cli("query", "store", "--json").lines == [{"key": key, "value": "\x9b"}]


@pytest.mark.parametrize(
    "command",
    [
        ("get", "nothing", "key"),
        ("delete", "nothing", "key"),
        ("query", "nothing"),
        ("keys", "nothing"),
        ("count", "nothing"),
        ("dump", "nothing"),
        ("dump", "nothing", "out.jsonl"),
        ("info", "nothing"),
        ("changes", "nothing"),
        ("dirty", "nothing"),
        ("conflicts", "nothing"),
        ("compact", "nothing"),
        ("upgrade", "nothing"),
        ("adopt", "nothing", "--mode", "server"),
        ("sync", "client", "nothing"),
    ],
    ids=lambda command: command[0],
)
def test_a_mistyped_path_is_an_error_and_makes_no_store(cli: Cli, command: tuple[str, ...]) -> None:
    run = cli(*command, "--json", code=1)
    assert run.error["code"] == "CLI_NO_STORE"
    assert "nothing" in run.error["message"]
    assert list(Path().iterdir()) == []


def test_a_store_is_opened_in_the_mode_that_it_was_made_in(cli: Cli) -> None:
    for mode in ("normal", "server", "client"):
        cli("put", mode, "a", "1", "--mode", mode)
        cli("put", mode, "b", "2")
        assert cli("info", mode, "--json").json["mode"] == mode


def test_another_mode_than_that_of_the_store_is_an_error(cli: Cli) -> None:
    cli("put", "store", "a", "1", "--mode", "server")
    assert cli("get", "store", "a", "--mode", "client", "--json", code=1).error["code"] == "LEVEL_MODE_MISMATCH"
    assert "client" in cli("get", "store", "a", "--mode", "master", code=2).err


def test_the_prefix_of_the_metadata_can_be_chosen(cli: Cli) -> None:
    options = ("--metadata-prefix", "#")
    cli("put", "store", "a", "1", "--mode", "server", *options)
    assert cli("keys", "store", *options).out == "a\n"
    assert cli("info", "store", *options, "--json").json["prefix"] == "#"
    assert "metadata-prefix" in cli("keys", "store", "--metadata-prefix", "x", code=2).err


def test_an_unknown_backend_is_an_error_that_names_those_there_are(cli: Cli) -> None:
    run = cli("put", "store", "a", "1", "--backend", "punchcards", "--json", code=1)
    assert run.error["code"] == "LEVEL_BACKEND_NOT_FOUND"
    assert "leveldb" in run.error["message"]


def test_a_file_in_place_of_a_store_is_an_error(cli: Cli) -> None:
    Path("file").write_text("x")
    for command in (("get", "file", "a"), ("put", "file", "a", "1")):
        run = cli(*command, code=1)
        assert run.err.startswith("error: ")
        assert "file" in run.err
    assert Path("file").read_text() == "x"


def test_a_store_that_is_open_elsewhere_is_an_error(cli: Cli) -> None:
    with blocking.Level("store") as level:
        level.put("a", 1)
        assert cli("put", "store", "a", "2", "--json", code=1).error["code"] == "LEVEL_LOCKED"
        assert cli("delete", "store", "a", "--json", code=1).error["code"] == "LEVEL_LOCKED"
        assert cli("get", "store", "a").out == "1\n", "a command that only reads does not need the lock"


def test_errors_are_one_line_or_json(cli: Cli, fruit: str) -> None:
    text = cli("get", fruit, "a\nb", code=1).err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    error = cli("get", fruit, "a\nb", "--json", code=1).error
    assert error.keys() == {"code", "message"}


def test_a_store_can_be_a_sqlite_file(cli: Cli) -> None:
    cli("put", "places.sqlite", "a", "1", "--backend", "sqlite", "--mode", "server")
    assert cli("get", "places.sqlite", "a", "--backend", "sqlite").out == "1\n"
    assert cli("info", "places.sqlite", "--backend", "sqlite", "--json").json["backend"] == "SQLiteBackend"
    assert cli("repair", "places.sqlite", "--backend", "sqlite", "--json", code=1).error["code"] == "LEVEL_STATE"


def test_a_database_of_another_program_is_an_error(cli: Cli) -> None:
    with closing(sqlite3.connect("other.sqlite")) as connection:
        connection.execute("CREATE TABLE notes(id)")
    run = cli("put", "other.sqlite", "a", "1", "--backend", "sqlite", "--json", code=1)
    assert run.error["code"] == "LEVEL_STORAGE"
    assert "another program" in run.error["message"]
