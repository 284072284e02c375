"""The configuration file of ``serve``: its options, its faults, and which of three places wins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from treehub_level.cli.application import app
from treehub_level.cli.configuration import Config, settings_of

from .conftest import Cli

pytestmark = pytest.mark.once

PREFIX = "TREEHUB_LEVEL_SERVE"
EXAMPLE = Path(__file__).parents[2] / "examples" / "ops" / "treehub.toml"


def serve_command() -> Any:
    return get_command(app).commands["serve"]  # type: ignore[attr-defined]


def parsed(tmp_path: Path, *arguments: str, file: str = "") -> dict[str, Any]:
    """Return the values that ``serve`` would run with."""
    path = tmp_path / "treehub.toml"
    path.write_text(file)
    context = serve_command().make_context("serve", ["--config", str(path), *arguments], auto_envvar_prefix=PREFIX)
    values: dict[str, Any] = context.params
    return values


def refusal(cli: Cli, text: str | bytes) -> str:
    """Return the error of a server with this file."""
    Path("treehub.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    done = cli("serve", ".", "--config", "treehub.toml", "--check-config", code=1)
    assert done.err.count("\n") == 1, "an error is one line"
    return done.err.removeprefix("error: the configuration file treehub.toml: ").rstrip("\n")


# ------------------------------------------------------------------------------------------ values


def test_a_file_sets_every_kind_of_option(tmp_path: Path) -> None:
    file = 'root = "stores"\ncreate = ["a", "b"]\nport = 99\nidle = 2.5\ninsecure = true\ncheck = "m:f"\n'
    values = parsed(tmp_path, file=file)
    assert {name: values[name] for name in ("root", "create", "port", "idle", "insecure", "check")} == {
        "root": "stores",
        "create": ["a", "b"],
        "port": 99,
        "idle": 2.5,
        "insecure": True,
        "check": "m:f",
    }
    assert values["host"] == "127.0.0.1"


def test_the_command_line_wins_over_a_variable_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = 'root = "file"\nport = 1\nmax-open = 2\ncreate = ["file"]\n'
    assert parsed(tmp_path, file=file)["port"] == 1
    monkeypatch.setenv(f"{PREFIX}_PORT", "3")
    monkeypatch.setenv(f"{PREFIX}_CREATE", "one two")
    monkeypatch.setenv("TREEHUB_LEVEL_ROOT", "variable")
    values = parsed(tmp_path, file=file)
    assert (values["port"], values["max_open"], values["root"], values["create"]) == (3, 2, "variable", ["one", "two"])
    values = parsed(tmp_path, "given", "--port", "4", "--create", "x", file=file)
    assert (values["port"], values["max_open"], values["root"], values["create"]) == (4, 2, "given", ["x"])


def test_a_variable_may_name_the_file(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("named.toml").write_text('root = "stores"\ncreate = ["notes"]\n')
    monkeypatch.setenv(f"{PREFIX}_CONFIG", "named.toml")
    assert cli("serve", "--check-config").out == "the configuration is valid\n"


def test_a_variable_with_a_typo_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(f"{PREFIX}_MAX_OPNE", "3")
    cli("serve", ".", "--check-config")
    assert f"{PREFIX}_MAX_OPNE stands for no option: did you mean {PREFIX}_MAX_OPEN?" in caplog.text


def test_an_option_with_a_syntax_of_its_own_takes_its_text_or_a_number(tmp_path: Path) -> None:
    def seconds(text: str) -> float:
        return float(text.removesuffix("h")) * (3600 if text.endswith("h") else 1)

    seen: list[object] = []
    other = typer.Typer(add_completion=False)

    def command(every: Any = 1, config: Any = None) -> None:
        seen.append(every)

    command.__annotations__.update(every=Annotated[float, typer.Option(parser=seconds)], config=Config)
    other.command()(command)
    file = tmp_path / "other.toml"
    for text in ('every = "6h"', "every = 30"):
        file.write_text(text)
        done = CliRunner().invoke(other, ["--config", str(file)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert seen == [21600, 30]


# ------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\nmax-opne = 3\n", "line 3: there is no option 'max-opne': did you mean 'max-open'?"),
        ("max_open = 3", "line 1: there is no option 'max_open': did you mean 'max-open'?"),
        ("--max-open = 3", "line 1: there is no option '--max-open': did you mean 'max-open'?"),
        (
            "zebra = 3",
            "line 1: there is no option 'zebra': `treehub-level serve --print-config` lists the options",
        ),
        ("config = 'x'", "line 1: there is no option 'config'"),
        ("# a\n[server]\nport = 1", "line 2: the table [server]: options have no tables, so remove this line"),
        ("port.a = 1", "line 1: port must be an integer, not a table"),
        ('port = "80"', 'line 1: port must be an integer, not "80"'),
        ("port = true", "line 1: port must be an integer, not true"),
        ("port = 80.5", "line 1: port must be an integer, not 80.5"),
        ("insecure = 1", "line 1: insecure must be true or false, not 1"),
        ('idle = "5"', 'line 1: idle must be a number, not "5"'),
        ("host = 5", "line 1: host must be a string, not 5"),
        ('create = "notes"', 'line 1: create must be an array of strings, not "notes"'),
        ("create = [1]", "line 1: create must be an array of strings, not an array with 1"),
        ("port = 70000", "line 1: port: "),
        ("\nport = 70000\nhots = 1", "there is no option 'hots': did you mean 'host'?"),
        ("port = !\n", "it is not TOML: Invalid value (at line 1, column 8)"),
        ("port = 1\nport = 2", "it is not TOML: "),
        (b"# \xff", "it is not UTF-8: save it as UTF-8"),
    ],
)
def test_a_fault_is_named_with_its_line_and_what_was_expected(cli: Cli, text: str | bytes, message: str) -> None:
    assert message in refusal(cli, text)


def test_all_faults_are_named_at_once(cli: Cli) -> None:
    assert refusal(cli, 'max-opne = 1\nport = "x"\nidle = 5\ninsecure = 0').count("line ") == 3


def test_a_file_that_is_absent_is_an_error(cli: Cli) -> None:
    assert "nothing.toml: it cannot be read: No such file" in cli("serve", ".", "--config", "nothing.toml", code=1).err


def test_a_server_without_a_root_is_wrong_usage(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    assert "give DIR or a URL, or `root` in a configuration file" in cli("serve", code=2).err


# ------------------------------------------------------------------------------------------- check


def test_check_config_creates_nothing_and_finds_what_a_start_would_find(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    Path("treehub.toml").write_text('root = "stores"\ncreate = ["notes"]\n')
    check = ("serve", "--config", "treehub.toml", "--check-config")
    assert cli(*check).out == "the configuration is valid\n"
    assert not Path("stores").exists()
    assert "the token file 'absent' cannot be read" in cli(*check, "--tokens", "absent", code=1).err
    assert "No such file" in cli(*check, "--tls-cert", "absent.pem", code=1).err
    assert "has no tokens and no certificate" in cli(*check, "--host", "0.0.0.0", code=2).err
    assert "is not package.module:function" in cli(*check, "--check", "nothing", code=2).err
    assert "there is no such directory" in cli("serve", "absent", "--check-config", code=1).err


# ----------------------------------------------------------------------------------------- example


def test_the_printed_file_has_every_option_and_is_a_file_itself(cli: Cli) -> None:
    text = cli("serve", "--print-config").out
    options = re.findall(r"^#([a-z-]+) = ", text, re.MULTILINE)
    expected = {*settings_of(serve_command())}
    assert sorted(options) == sorted(expected)
    assert {"root", "port", "tokens", "backend"} <= expected
    assert not {"config", "check-config", "print-config", "help"} & expected
    # With each `#` removed, all lines are TOML of the right types.
    Path("all.toml").write_text(re.sub(r"^#(?=[a-z-]+ = )", "", text, flags=re.MULTILINE))
    again = cli("serve", "--config", "all.toml", "--print-config").out
    assert {*re.findall(r"^([a-z-]+) = ", again, re.MULTILINE)} == expected


def test_a_printed_file_is_the_same_file_again(cli: Cli) -> None:
    given = ["a b\\\x7f\"'é", "--port", "99", "--idle", "0.5", "--create", "a", "--create", "b", "--insecure"]
    text = cli("serve", *given, "--print-config").out
    Path("first.toml").write_text(text)
    for line in ("port = 99", "idle = 0.5", 'create = ["a", "b"]', "insecure = true", "#max-open = 32"):
        assert f"\n{line}\n" in text
    assert cli("serve", "--config", "first.toml", "--print-config").out == text


def test_the_value_of_a_variable_is_not_printed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREEHUB_LEVEL_ROOT", "postgresql://user:secret@host/db")
    assert "secret" not in cli("serve", "--print-config").out


def test_the_example_file_is_complete(cli: Cli) -> None:
    """The example is what --print-config prints for it. To mend it, print it over itself."""
    assert cli("serve", "--config", str(EXAMPLE), "--print-config").out == EXAMPLE.read_text(), (
        "examples/ops/treehub.toml lacks an option, or its text: run\n"
        "  treehub-level serve --config examples/ops/treehub.toml --print-config >new.toml && "
        "mv new.toml examples/ops/treehub.toml"
    )
