"""Arguments and names of files that are not UTF-8: no traceback, and files are found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Cli

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names of files that are not UTF-8"),
]

BAD = os.fsdecode(b"x\xff")
#: Commands; each of their arguments is replaced in turn.
COMMANDS = [
    line.split()
    for line in """
        get store a
        put store a 1
        put store a 1 --string
        delete store a
        query store --gt a --lt b
        keys store --prefix a
        load store in --key k
        dump store out --gte a
        info store
        changes store
        conflicts client --restore a
        sync client store
        sync client http://127.0.0.1:1/v1/x --token-file token
        compact store
        copy store to
        copy store to2 --to-store s
        adopt store --mode server
        upgrade store
        verify store
        serve absent --tls-cert c --tls-key k
        serve absent --host h --allow-origin o
        token list tokens
        token add tokens --database n --name x --prefix p --output o
        token revoke tokens id
        get postgres://u@127.0.0.1:1/d a --backend postgres
    """.strip().splitlines()
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_argument_that_is_not_utf8_gives_no_traceback(cli: Cli, command: list[str]) -> None:
    cli("put", "store", "a", "1", "--mode", "server")
    for at in range(1, len(command)):
        run = cli(*command[:at], BAD, *command[at + 1 :], code=None)  # an exception fails the test
        assert run.code in (0, 1, 2)
        assert run.code == 0 or run.err


@pytest.mark.parametrize("backend", ["leveldb", "sqlite"])
def test_a_store_whose_name_is_not_utf8_can_be_used_by_each_command(cli: Cli, backend: str) -> None:
    options = ("--backend", backend)
    store, copied = f"{BAD}-{backend}", f"{BAD}-copied-{backend}"
    cli("put", store, "a", "1", "--mode", "server", *options)
    assert cli("get", store, "a", *options).out == "1\n"
    cli("dump", store, BAD, *options, code=0)
    for command in (("load", store, BAD), ("verify", store), ("compact", store), ("info", store), ("upgrade", store)):
        cli(*command, *options, "--json")
    assert cli("info", store, *options, "--json").json["name"] == store
    cli("copy", store, copied, "--from-backend", backend, "--to-backend", backend, "--json")
    cli("sync", f"client-{store}", copied, *options)
    assert Path(BAD).exists()


def test_a_name_that_is_not_utf8_is_printed_as_it_is_to_a_pipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "treehub_level.cli"]
    subprocess.run([*command, "put", b"caf\xe9", "a", "1"], cwd=tmp_path, check=True)
    done = subprocess.run([*command, "dump", b"caf\xe9", b"\xe9.jsonl"], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout == b"dumped 1 record to \xe9.jsonl\n"
    failed = subprocess.run([*command, "get", b"\xe9", "a"], cwd=tmp_path, capture_output=True, check=False)
    assert failed.stderr.startswith(b"error: there is no store at \\udce9")
