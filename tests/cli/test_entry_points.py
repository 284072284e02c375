"""The ways to start the command line: the console script, ``python -m``, and both without typer."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import COMMAND, invoke

from treehub_level import __version__
from treehub_level.cli import main
from treehub_level.extras import install_command

pytestmark = pytest.mark.once

#: A finder for ``sys.meta_path`` that hides the modules of the extra ``cli``.
WITHOUT_TYPER = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"typer", "rich"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""
#: Programs that start the command line, by the name of the entry point.
ENTRY_POINTS = {
    "treehub-level": "from treehub_level.cli import main; sys.exit(main())",
    "python -m treehub_level": "import runpy; runpy.run_module('treehub_level', run_name='__main__', alter_sys=True)",
    "python -m treehub_level.cli": "import runpy; runpy.run_module('treehub_level.cli', run_name='__main__')",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("module", ["treehub_level", "treehub_level.cli"])
def test_python_m_runs_the_command_line(module: str, tmp_path: Path) -> None:
    assert run("-m", module, "--version").stdout.startswith(f"treehub-level {__version__} ")
    assert run("-m", module, "get", str(tmp_path / "absent"), "b").returncode == 1


@pytest.mark.parametrize("module", ["treehub_level.__main__", "treehub_level.cli.__main__"])
def test_both_modules_call_the_entry_point_of_the_console_script(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr("treehub_level.cli.main", lambda: calls.append(None))
    runpy.run_module(module)
    assert len(calls) == 1


def test_the_console_script_ends_the_process_with_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["treehub-level", "unknown"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "No such command 'unknown'" in capsys.readouterr().err


@pytest.mark.parametrize("program", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
def test_without_typer_one_sentence_names_the_extra(program: str) -> None:
    done = run("-W", "error", "-c", f"{WITHOUT_TYPER}\nsys.argv = ['treehub-level', '--version']\n{program}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: the command line needs typer, which is not installed: "
        f"run {install_command('cli')} in a checkout of treehub-level\n"
    )


def test_an_error_of_another_import_is_not_taken_for_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "treehub_level.cli.application", None)
    with pytest.raises(ModuleNotFoundError, match=r"treehub_level\.cli\.application"):
        main()


def test_the_library_imports_neither_typer_nor_rich() -> None:
    library = "treehub_level, treehub_level.blocking, treehub_level.http, treehub_level.testing, treehub_level.cli"
    done = run("-W", "error", "-c", f"import {library}, sys; print({{'typer', 'rich'}} & {{*sys.modules}})")
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr


def commands() -> list[tuple[str, ...]]:
    """Every command and group of the command line, as the arguments that select it."""
    found: list[tuple[str, ...]] = [()]
    for name, command in COMMAND.commands.items():
        found.append((name,))
        found += [(name, inner) for inner in getattr(command, "commands", {})]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_h_is_the_same_as_help(command: Sequence[str]) -> None:
    short, long = (invoke(*command, option) for option in ("-h", "--help"))
    assert (short.exit_code, long.exit_code) == (0, 0)
    assert short.stdout == long.stdout
    assert "Usage: " in short.stdout


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_and_option_has_a_help_text(command: Sequence[str]) -> None:
    selected = COMMAND
    for name in command:
        selected = selected.commands[name]
    assert selected.help
    without = [parameter.name for parameter in selected.params if not getattr(parameter, "help", "")]
    assert without == []


def test_the_list_of_commands_has_one_sentence_for_each() -> None:
    for name, command in COMMAND.commands.items():
        summary = command.help.partition("\n\n")[0]
        assert summary.endswith("."), name
        assert ". " not in summary, name
