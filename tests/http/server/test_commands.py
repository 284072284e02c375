"""The commands ``treehub-level serve`` and ``treehub-level token``: refusals and output."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import invoke

from treehub_level import Level, blocking
from treehub_level.http import Tokens
from treehub_level.http.server.run import ListenAddress, is_loopback

pytestmark = pytest.mark.once


def run(*args: str, code: int = 0) -> Any:
    result = invoke(*args, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")


# ------------------------------------------------------------------------------------------ token


def test_a_token_is_printed_once_listed_and_revoked() -> None:
    made = run("token", "add", "tokens", "--database", "notes", "--write", "--name", "alice").stdout.strip()
    id = made.partition(".")[0]
    assert Tokens("tokens").find(made) is not None
    listed = run("token", "list", "tokens").stdout
    assert listed == f"{id}\talice\twrite\tnotes\tall keys\tfor ever\n"
    assert run("token", "revoke", "tokens", id).stdout == f"revoked {id}\n"
    assert run("token", "list", "tokens").stdout == ""
    assert "there is no token" in run("token", "revoke", "tokens", id, code=1).stderr


def test_a_token_is_revoked_by_its_id_or_as_a_whole_and_not_repeated() -> None:
    made = run("token", "add", "tokens", "--database", "notes").stdout.strip()
    id, _, secret = made.partition(".")
    assert run("token", "revoke", "tokens", made).stdout == f"revoked {id}\n"
    assert secret not in run("token", "revoke", "tokens", made, code=1).stderr


def test_a_token_file_that_is_absent_is_not_created_by_revoke() -> None:
    assert "cannot be read" in run("token", "revoke", "mistyped", "0123456789ab", code=1).stderr
    assert list(Path().iterdir()) == []


def test_a_token_without_a_name_is_named_by_its_id_where_nobody_can_be_asked() -> None:
    made = json.loads(run("token", "add", "tokens", "--database", "notes", "--json").stdout)
    assert made["name"] == made["id"] == made["token"].partition(".")[0]


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_a_token_without_a_name_asks_for_it_on_a_terminal() -> None:
    import pty

    program = [sys.executable, "-m", "treehub_level.cli", "token", "add", "tokens", "--database", "notes"]
    terminal, side = pty.openpty()
    process = subprocess.Popen(program, stdin=side, stderr=side, stdout=subprocess.PIPE)
    os.close(side)
    os.write(terminal, b"ada\n")
    out, _ = process.communicate(timeout=60)
    shown = os.read(terminal, 10_000)
    os.close(terminal)
    assert process.returncode == 0
    assert b"Name of the owner" in shown
    token = Tokens("tokens").find(out.decode().strip())
    assert token is not None
    assert token.name == "ada"


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file modes")
@pytest.mark.parametrize("before", [None, "file", "link"])
def test_a_token_is_written_to_a_file_for_its_owner_only(before: str | None) -> None:
    if before is not None:
        Path("old").write_text("old")
        os.chmod("old", 0o644)
        Path("ada.token").symlink_to("old") if before == "link" else os.rename("old", "ada.token")
    done = run("token", "add", "tokens", "--database", "notes", "--name", "ada", "--output", "ada.token")
    made = Path("ada.token").read_text().strip()
    token = Tokens("tokens").find(made)
    assert token is not None
    assert stat.S_IMODE(os.stat("ada.token").st_mode) == 0o600
    assert done.stdout == f"wrote the token {token.id} of ada to ada.token\n"
    assert made not in done.output
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("output", "code"), [("tokens", 2), (".", 2), ("absent/token", 1), ("tokens/token", 1), ("/dev/full", 2)]
)
def test_a_token_that_cannot_be_written_is_not_made(output: str, code: int) -> None:
    first = run("token", "add", "tokens", "--database", "notes").stdout.strip()
    run("token", "add", "tokens", "--database", "notes", "--output", output, code=code)
    assert [token.id for token in Tokens("tokens").all()] == [first.partition(".")[0]]


def test_a_token_whose_output_fails_is_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("token", "add", "tokens", "--database", "notes").stdout.strip()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("treehub_level.cli.tokens._write_durably", refuse)
    run("token", "add", "tokens", "--database", "notes", "--output", "new.token", code=1)
    assert [token.id for token in Tokens("tokens").all()] == [first.partition(".")[0]]
    assert [path.name for path in Path().iterdir()] == ["tokens"]


def test_an_operator_token_is_listed_as_one() -> None:
    run("token", "add", "tokens", "--database", "*", "--operator", "--name", "ops")
    run("token", "add", "tokens", "--database", "*", "--write", "--name", "alice")
    rights = {line.split("\t")[1]: line.split("\t")[2] for line in run("token", "list", "tokens").stdout.splitlines()}
    assert rights == {"ops": "read operator", "alice": "write"}
    listed = [json.loads(line)["operator"] for line in run("token", "list", "tokens", "--json").stdout.splitlines()]
    assert listed == [True, False]


def test_tokens_are_listed_in_json() -> None:
    made = json.loads(
        run("token", "add", "tokens", "--database", "*", "--prefix", "mine/", "--days", "1", "--json").stdout
    )
    (listed,) = [json.loads(line) for line in run("token", "list", "tokens", "--json").stdout.splitlines()]
    assert made["token"].startswith(listed["id"] + ".")
    names = {"id", "name", "databases", "write", "operator", "prefix", "expires", "expired", "created"}
    names.add("max_writes_per_minute")
    assert listed.keys() == names
    assert (listed["databases"], listed["write"], listed["prefix"], listed["expired"]) == (["*"], False, "mine/", False)
    assert "secret" not in listed
    assert "digest" not in listed


def test_an_expired_token_is_listed_as_such() -> None:
    run("token", "add", "tokens", "--database", "*", "--days", "0")
    assert "all databases\tall keys\texpired 20" in run("token", "list", "tokens").stdout


@pytest.mark.parametrize("options", [[], ["--database", "No"], ["--database", "*", "--name", ""]])
def test_a_token_with_invalid_options_is_a_usage_error(options: list[str]) -> None:
    run("token", "add", "tokens", *options, code=2)


def test_a_missing_token_file_is_an_error() -> None:
    assert "cannot be read" in run("token", "list", "absent", code=1).stderr


# ------------------------------------------------------------------------------------------ serve


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LOCALHOST"])
def test_the_loopback_interface_needs_no_protection(host: str) -> None:
    assert is_loopback(host)
    ListenAddress(host=host).check(None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "localhost.x", "127.0.0.1.x", ""])
def test_any_other_address_needs_tokens_and_tls_or_insecure(host: str) -> None:
    tokens = Tokens("tokens")
    assert not is_loopback(host)
    for address, given in (
        (ListenAddress(host=host), None),
        (ListenAddress(host=host), tokens),
        (ListenAddress(host=host, certificate="cert.pem"), None),
    ):
        with pytest.raises(ValueError, match="can be reached from other machines"):
            address.check(given)
    ListenAddress(host=host, certificate="cert.pem").check(tokens)
    ListenAddress(host=host, insecure=True).check(None)


def test_an_address_without_protection_is_a_usage_error_before_stores_are_created() -> None:
    error = run("serve", "stores", "--create", "notes", "--host", "0.0.0.0", code=2).stderr
    assert "has no tokens and no certificate" in error
    assert not Path("stores").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["absent"], 1, "there is no such directory"),
        ([".", "--create", "../a"], 2, "is not a valid database name"),
        ([".", "--tokens", "absent"], 1, "cannot be read"),
        ([".", "--tls-cert", "absent"], 1, "No such file"),
        ([".", "--tls-key", "key.pem"], 2, "--tls-cert"),
        ([".", "--create", "client"], 1, "CLIENT mode"),
    ],
)
def test_an_error_of_serve_is_printed_without_a_traceback(options: list[str], code: int, message: str) -> None:
    with blocking.Level("client", mode=Level.CLIENT):
        pass
    error = run("serve", *options, "--port", "0", code=code).stderr
    assert message in error
    assert "Traceback" not in error


WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"httpx", "starlette", "uvicorn", "prometheus_client", "zstandard"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


def test_without_the_extra_the_package_works_and_the_error_names_the_install_command() -> None:
    code = f"""{WITHOUT}
import treehub_level, treehub_level.http
from treehub_level.http import Hub, Tokens
try:
    treehub_level.http.create_app
except ModuleNotFoundError as error:
    print(error)
from treehub_level.cli import main
sys.argv = ["treehub-level", "serve", "."]
main()
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "pip install '.[server]'" in done.stdout
    assert "error: a server needs" in done.stderr
    assert "pip install '.[server]'" in done.stderr


def test_importing_the_package_imports_no_web_framework() -> None:
    code = "import sys, treehub_level, treehub_level.http; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"starlette", "uvicorn", "httpx", "prometheus_client", "zstandard"} & set(eval(done.stdout))
