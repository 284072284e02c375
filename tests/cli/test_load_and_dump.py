"""``load`` and ``dump``: import and export of JSON Lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from treehub_level import StorageError, blocking
from treehub_level.cli import lines

from .conftest import Cli


def json_lines(*documents: Any) -> str:
    return "".join(json.dumps(document) + "\n" for document in documents)


def records(count: int) -> list[dict[str, Any]]:
    return [{"key": f"key {number:05}", "value": {"n": number}} for number in range(count)]


def test_dump_writes_the_records_that_load_stored(cli: Cli) -> None:
    Path("in.jsonl").write_text(json_lines(*records(2500)))
    assert cli("load", "store", "in.jsonl").out.startswith("loaded 2,500 records in ")
    assert cli("dump", "store").lines == records(2500)
    assert cli("dump", "store", "out.jsonl").out == "dumped 2,500 records to out.jsonl\n"
    assert list(map(json.loads, Path("out.jsonl").read_text().splitlines())) == records(2500)


def test_load_reads_stdin_and_prints_its_result_as_json(cli: Cli) -> None:
    assert cli("load", "a", "--json", stdin=json_lines(*records(3))).json == {"loaded": 3, "cid": None}
    run = cli("load", "b", "-", "--json", "--mode", "server", stdin=json_lines(*records(3)))
    assert run.json == {"loaded": 3, "cid": 3}
    assert cli("dump", "b", "out.jsonl", "--json").json == {"dumped": 3}


def test_keys_and_values_in_all_scripts_come_back_as_they_were(cli: Cli) -> None:
    documents = [{"key": "日本/東京", "value": "とうきょう"}, {"key": "😀", "value": {"ключ": "\u2028"}}]
    cli("load", "store", stdin=json_lines(*documents))
    assert cli("dump", "store").out.splitlines()[0] == '{"key":"日本/東京","value":"とうきょう"}'
    assert list(map(json.loads, cli("dump", "store").out.strip().split("\n"))) == documents


def test_the_key_may_be_taken_from_a_field_of_each_line(cli: Cli) -> None:
    lines_in = [{"id": "b", "n": 1}, {"id": 7, "n": 2}]
    cli("load", "store", "--key", "id", stdin=json_lines(*lines_in))
    assert cli("dump", "store").lines == [{"key": "7", "value": lines_in[1]}, {"key": "b", "value": lines_in[0]}]


def test_blank_lines_and_a_missing_last_line_end_are_fine(cli: Cli) -> None:
    run = cli("load", "store", "--json", stdin='\n{"key": "a", "value": 1}\r\n  \n{"key": "b", "value": 2}')
    assert run.json["loaded"] == 2


def test_an_empty_file_loads_nothing(cli: Cli) -> None:
    assert cli("load", "store", "--json", stdin="").json["loaded"] == 0


def test_dump_may_be_of_a_range(cli: Cli) -> None:
    cli("load", "store", stdin=json_lines(*records(10)))
    run = cli("dump", "store", "--gte", "key 00002", "--lt", "key 00005", "--reverse", "--limit", "2")
    assert run.lines == [records(10)[4], records(10)[3]]


def test_loading_into_a_server_logs_and_into_a_client_marks_dirty(cli: Cli) -> None:
    for mode in ("server", "client"):
        cli("load", mode, "--mode", mode, stdin=json_lines(*records(3)))
    assert [change["key"] for change in cli("changes", "server", "--json").lines] == [r["key"] for r in records(3)]
    assert [change["key"] for change in cli("dirty", "client", "--json").lines] == [r["key"] for r in records(3)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{oops}", "not JSON"),
        ('{"key": "x", "value": NaN}', "not JSON"),
        ('{"key": "x", "value": "\ud800"}'.encode("utf-8", "surrogatepass"), "not JSON"),
        ('["x", 1]', '"key" and "value"'),
        ('{"key": "x"}', '"key" and "value"'),
        ('{"key": "x", "value": 1, "more": 2}', "--key FIELD"),
        ('{"key": 1, "value": 1}', "must be a string"),
        ('{"key": "x", "value": 18446744073709551616}', "int"),
        ('{"key": "x", "value": -9223372036854775809}', "int"),
        ('{"key": "!x", "value": 1}', "'!x'"),
        ('{"key": "x", "value": {"a": 1, "a": 2}}', "an object names the member 'a' twice: remove one of them"),
        ('{"key":"x","value":[{"a":1,"b":3,"a":2}]}', "an object names the member 'a' twice"),
        ('{"key": "x", "value": 1, "value": 2}', "an object names the member 'value' twice"),
        (
            '{"key":"x","value":' + str({f"k{n}": 1 for n in range(40)}).replace("'", '"')[:-1] + ',"k7":1}}',
            "'k7' twice",
        ),
        ('{"key": "", "value": 1}', "key"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_loaded(cli: Cli, bad: str | bytes, reason: str) -> None:
    bad = bad.encode() if isinstance(bad, str) else bad
    before, after = json_lines(*records(1201)).encode(), b'\n{"key": "after", "value": 1}\n'
    Path("bad.jsonl").write_bytes(before + bad + after)
    run = cli("load", "store", "bad.jsonl", "--mode", "server", code=1)
    assert run.err.startswith("error: bad.jsonl, line 1202: ")
    assert run.err.endswith("; loaded 0 records\n")
    assert reason in run.err
    assert not Path("store").exists()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('"text"', "not an object"),
        ('{"n": 1}', "no field 'id' (there are: 'n')"),
        ('{"id": null}', "must be a string or an integer"),
        ('{"id": true}', "must be a string or an integer"),
        ('{"id": 1.5}', "must be a string or an integer"),
        ('{"id": "b", "id": "c"}', "an object names the member 'id' twice"),
        ('{"id": "b", "more": {"x": 1, "x": 1}}', "an object names the member 'x' twice"),
    ],
)
def test_a_line_without_a_usable_key_is_named(cli: Cli, bad: str, reason: str) -> None:
    run = cli("load", "store", "--key", "id", "--json", stdin='{"id": "a"}\n' + bad, code=1)
    assert run.error["code"] == "CLI_BAD_LINE"
    assert run.error["message"].startswith("stdin, line 2: ")
    assert reason in run.error["message"]
    assert not Path("store").exists()


def test_a_truncated_file_is_reported_as_truncated(cli: Cli) -> None:
    whole = json_lines(*records(5))
    Path("cut.jsonl").write_text(whole[:-9])
    run = cli("load", "store", "cut.jsonl", code=1)
    assert run.err.startswith("error: cut.jsonl, line 5: not JSON (")
    assert "it was truncated" in run.err
    assert run.err.endswith("; loaded 0 records\n")
    assert not Path("store").exists()


def test_a_line_without_end_is_refused_before_it_fills_the_memory(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1000)
    assert "longer than" in cli("load", "store", stdin='{"key":"a","value":"' + "x" * 2000, code=1).err


def test_large_values_make_smaller_batches(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BATCH_BYTES", 100)
    sizes = written_batches(monkeypatch)
    documents = [*records(4), {"key": "x", "value": "x" * 200}, *records(1)]
    cli("load", "store", "--batch-size", "3", stdin=json_lines(*documents))
    assert sizes == [3, 2, 1]


def written_batches(monkeypatch: pytest.MonkeyPatch, *, fault: BaseException | None = None) -> list[int]:
    """Record the sizes of the batches written from now on. With a fault, the second one fails."""
    sizes: list[int] = []
    load = blocking.Level.load

    def watched(level: blocking.Level, items: Any, *, batch_size: int) -> int:
        if fault is not None and sizes:
            raise fault
        sizes.append(load(level, items, batch_size=batch_size))
        assert sizes[-1] <= batch_size
        return sizes[-1]

    monkeypatch.setattr(blocking.Level, "load", watched)
    return sizes


def test_a_file_that_cannot_be_read_is_an_error_and_makes_no_store(cli: Cli) -> None:
    assert cli("load", "store", "nothing.jsonl", code=1).err == "error: nothing.jsonl: No such file or directory\n"
    assert cli("load", "store", "nothing.jsonl", "--json", code=1).error["code"] == "CLI_IO"
    assert not Path("store").exists()


def test_a_file_that_cannot_be_written_is_an_error(cli: Cli) -> None:
    cli("load", "store", stdin=json_lines(*records(1)))
    assert cli("dump", "store", "no/such/folder.jsonl", code=1).err.startswith("error: no/such/folder.jsonl: ")


def test_a_dump_that_cannot_begin_leaves_the_file_as_it_was(cli: Cli) -> None:
    Path("precious.jsonl").write_text("precious")
    cli("dump", "nothing", "precious.jsonl", code=1)
    assert Path("precious.jsonl").read_text() == "precious"


def test_a_value_that_cannot_be_read_back_names_its_key(cli: Cli) -> None:
    with blocking.Level("store", value_encoding="bytes") as level:
        level.put("broken", b"{oops")
    run = cli("dump", "store", "--json", code=1)
    assert run.error["code"] == "LEVEL_DECODE"
    assert "broken" in run.error["message"]


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted: loaded 2 records\n"),
        (StorageError("the disk is full"), 1, "error: the disk is full; loaded 2 records before that\n"),
    ],
)
def test_an_error_during_a_load_is_printed_with_the_number_of_records_loaded(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, fault: BaseException, code: int, message: str
) -> None:
    written_batches(monkeypatch, fault=fault)
    assert cli("load", "store", "--batch-size", "2", stdin=json_lines(*records(3)), code=code).err == message
    assert cli("count", "store").out == "2\n"
