"""Hostile characters on a terminal and in a pipe: escapes there, exact bytes here."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest

from treehub_level import Refused, blocking, escapes
from treehub_level.cli import streams
from treehub_level.cli.application import app

from .conftest import Cli

#: These tests start processes, which is slow, and do not depend on the core.
pytestmark = [pytest.mark.once, pytest.mark.skipif(os.name != "posix", reason="a terminal needs a Unix")]

COMMAND = [sys.executable, "-m", "treehub_level.cli"]
#: A control sequence of C1, an override, a zero-width space, an isolate, a byte order mark, a tag.
HOSTILE = "\x9b31m \x85\u202egnp\u200b\u2066\ufeff\U000e0041\x1b]0;title\x07\u2028"
PLAIN = "日本 é 👍 ❤\ufe0f"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create a server store and a client store with hostile keys and values."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm")
    with blocking.Level("server", mode=blocking.Level.SERVER) as server:
        server.put(HOSTILE, {HOSTILE: [HOSTILE, PLAIN]})
    with blocking.Level("client", mode=blocking.Level.CLIENT) as client:
        client.put(HOSTILE, HOSTILE)
    with (
        blocking.Level("second", mode=blocking.Level.SERVER, check=refuse) as second,
        blocking.Level("loser", mode=blocking.Level.CLIENT, follow=[HOSTILE]) as loser,
    ):
        loser.put(HOSTILE, HOSTILE)
        loser.sync(second)
    return "server"


def refuse(call: object, changes: object, read: object) -> None:
    """Refuse every change of a client, with a hostile reason."""
    raise Refused(HOSTILE)


class Terminal(io.TextIOWrapper):
    """A stream in memory that says that it is a terminal."""

    def __init__(self) -> None:
        self.received = io.BytesIO()
        super().__init__(self.received, encoding="utf-8", errors="backslashreplace", newline="\n")

    def isatty(self) -> bool:
        return True


def on_a_terminal(*args: str, stderr: bool = False) -> str:
    """Run a command with stdout, or stderr, on a terminal, and return the text that it received."""
    terminal, other = Terminal(), io.TextIOWrapper(io.BytesIO())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stderr" if stderr else "stdout", terminal)
        patched.setattr(sys, "stdout" if stderr else "stderr", other)
        with suppress(SystemExit):
            app(list(args))
        terminal.flush()
    return terminal.received.getvalue().decode()


def on_a_real_terminal(*args: str) -> str:
    """Run a command as a process with stdout on a pseudo-terminal, and return the received text."""
    import pty
    import tty

    terminal, side = pty.openpty()
    tty.setraw(side)  # the line discipline would turn line feeds into CR LF
    process = subprocess.Popen([*COMMAND, *args], stdin=subprocess.DEVNULL, stdout=side)
    os.close(side)
    received = b""
    with suppress(OSError):  # EIO: the process has closed its side
        while piece := os.read(terminal, 10_000):
            received += piece
    os.close(terminal)
    process.wait(timeout=60)
    return received.decode()


def hostile_characters(text: str) -> set[str]:
    """Return the characters of a text that are unsafe on a terminal, without those of rich."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return {c for c in text if c not in "\n\r\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


@pytest.mark.parametrize(
    "command",
    [
        ("get", "server", HOSTILE),
        ("get", "server", HOSTILE, "--json"),
        ("dump", "server", "-"),
        ("query", "server"),
        ("query", "server", "--json"),
        ("keys", "server"),
        ("keys", "server", "--json"),
        ("changes", "server"),
        ("changes", "server", "--json"),
        ("history", "server", HOSTILE),
        ("history", "server", HOSTILE, "--json"),
        ("conflicts", "loser"),
        ("conflicts", "loser", "--json"),
        ("followed", "loser"),
        ("followed", "loser", "--json"),
        ("dirty", "client"),
        ("dirty", "client", "--json"),
        ("info", "server"),
        ("info", "server", "--json"),
    ],
    ids=" ".join,
)
def test_a_terminal_gets_no_hostile_character(command: tuple[str, ...]) -> None:
    shown = on_a_terminal(*command)
    assert shown
    assert hostile_characters(shown) == set()
    if command[0] != "info":
        assert "\\u202e" in shown


@pytest.mark.parametrize(
    "command",
    [("get", "server", HOSTILE), ("dump", "server"), ("query", "server", "--json"), ("changes", "server", "--json")],
    ids=lambda command: command[0],
)
def test_escapes_on_a_terminal_are_the_same_value_and_a_pipe_gets_exact_bytes(
    cli: Cli, command: tuple[str, ...]
) -> None:
    shown, piped = on_a_terminal(*command), cli(*command).out
    assert json.loads(shown) == json.loads(piped)
    assert {"\u202e", "\x9b"} <= set(piped)
    for text in PLAIN.split():
        assert text in shown


def test_a_process_escapes_on_a_pseudo_terminal_and_writes_exact_bytes_to_a_pipe_and_a_file() -> None:
    shown = on_a_real_terminal("dump", "server")
    assert hostile_characters(shown) == set()
    piped = subprocess.run([*COMMAND, "dump", "server"], stdout=subprocess.PIPE, timeout=60, check=True).stdout
    assert json.loads(shown) == json.loads(piped)
    assert "\u2028".encode() in piped
    on_a_terminal("dump", "server", "out.jsonl")
    assert Path("out.jsonl").read_bytes() == piped


@pytest.mark.parametrize(
    "command",
    [
        ("get", "server", "absent" + HOSTILE),
        ("get", "absent" + HOSTILE, "a"),
        ("load", "new", "absent" + HOSTILE),
        ("absent" + HOSTILE,),
        ("get", "server", "a", "--absent" + HOSTILE),
        ("put", "server", "a", HOSTILE),
        ("query", "server", "--limit", HOSTILE),
        ("put", "server", "a", "1", "--backend", HOSTILE),
        ("keys", "server", "--metadata-prefix", HOSTILE),
        ("sync", "client", "http://" + HOSTILE),
        ("token", "revoke", "absent" + HOSTILE, "a"),
        ("dump", "server", HOSTILE + "/out"),
    ],
    ids=lambda command: " ".join(command[:2])[:20],
)
def test_an_error_shows_no_hostile_character(command: tuple[str, ...]) -> None:
    shown = on_a_terminal(*command, stderr=True)
    assert "rror" in shown
    assert hostile_characters(shown) == set()


def test_a_progress_bar_shows_no_hostile_character() -> None:
    name = f"in{HOSTILE}".replace("/", "")
    Path(name).write_text('{"key": "a", "value": 1}\n')
    shown = on_a_terminal("load", "new", name, stderr=True)
    assert "load in" in shown
    assert hostile_characters(shown) == set()


def test_each_invisible_character_is_escaped_and_read_back() -> None:
    visible = {0x06DD, 0x070F, 0x08E2, 0x110BD, 0x110CD, *range(0x600, 0x606), *range(0x890, 0x892)}
    visible |= set(range(0x13430, 0x13440))  # the joiners of hieroglyphs, which are drawn
    for code in (*range(0x20000), *range(0xE0000, 0xE1000)):
        unsafe = unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp") and code not in visible
        escaped = escapes.escape_unsafe(chr(code))
        assert not unsafe or escaped != chr(code), hex(code)
        if escaped != chr(code):
            assert json.loads(f'"{escaped}"') == chr(code)


def test_a_terminal_without_escapes_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "escape_unsafe_in_lines", lambda text: text)
    assert hostile_characters(on_a_terminal("dump", "server")) != set()


def test_a_name_that_is_not_utf8_is_shown_with_escapes_on_a_terminal() -> None:
    shown = on_a_terminal("get", os.fsdecode(b"caf\xe9"), "a", stderr=True)
    assert "caf\\udce9" in shown
