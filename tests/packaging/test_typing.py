"""The types of the public API, as mypy and pyright see them: one file passes, one fails by line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest
from rules.structure import PACKAGE, ROOT

pytestmark = pytest.mark.once

FOLDER: Final = ROOT / "tests" / "type_checks"
PASSING, FAILING = FOLDER / "passing.py", FOLDER / "failing.py"

#: The errors of each line of a file.
Errors = Mapping[int, set[str]]


def run(module: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a checker over both files at once, as its start takes most of the time."""
    command = [sys.executable, "-m", module, *options, str(PASSING), str(FAILING)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)


@cache
def mypy() -> Mapping[Path, Errors]:
    """Run mypy with the settings of the project, and return the codes of each line."""
    done = run("mypy", "--no-error-summary", "--output", "json")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = [json.loads(line) for line in done.stdout.splitlines()]
    return by_file((error["file"], error["line"], error["code"]) for error in errors if error["severity"] == "error")


@cache
def pyright() -> Mapping[Path, Errors]:
    """Run pyright, and return the rules that each line breaks."""
    if shutil.which("node") is None:
        pytest.skip("pyright needs Node")
    if find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    done = run("pyright", "--outputjson", "--pythonpath", sys.executable)
    if not done.stdout.startswith("{"):
        pytest.skip(f"pyright, which its package downloads from npm, did not start: {done.stderr[-200:]!r}")
    errors = json.loads(done.stdout)["generalDiagnostics"]
    return by_file(
        (error["file"], error["range"]["start"]["line"] + 1, error["rule"])
        for error in errors
        if error["severity"] == "error"
    )


def by_file(errors: Iterable[tuple[str, int, str]]) -> Mapping[Path, Errors]:
    """Group errors by their file and line."""
    found: dict[Path, dict[int, set[str]]] = {PASSING: {}, FAILING: {}}
    for name, line, error in errors:
        found.setdefault(ROOT / name, {}).setdefault(line, set()).add(error)
    return found


Checker = Callable[[], Mapping[Path, Errors]]
CHECKERS: Final[list[Checker]] = [mypy, pyright]
checkers: Final = pytest.mark.parametrize("checker", CHECKERS, ids=["mypy", "pyright"])


def expected_errors(checker: Checker) -> Errors:
    """Return the errors that the comments of the failing file name for a checker."""
    side = CHECKERS.index(checker)
    errors = {}
    for number, line in enumerate(FAILING.read_text(encoding="utf-8").splitlines(), 1):
        if match := re.search(r"  # ([\w, -]*) \| ([\w, ]*)$", line):
            errors[number] = {name for name in match.groups()[side].split(", ") if name}
    return errors


@checkers
def test_a_file_of_correct_uses_passes(checker: Checker) -> None:
    assert checker()[PASSING] == {}


@checkers
def test_each_line_of_wrong_uses_fails_as_its_comment_says(checker: Checker) -> None:
    found = checker()
    assert found[FAILING] == expected_errors(checker)
    assert set(found) == {PASSING, FAILING}


def test_each_statement_of_the_failing_file_has_a_comment_for_both_checkers() -> None:
    wanted = [set(expected_errors(checker)) for checker in CHECKERS]
    assert wanted[0] == wanted[1]
    assert len(wanted[0]) > 40
    assert all(all(names) for checker in CHECKERS for names in expected_errors(checker).values())


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
