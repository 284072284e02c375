"""T11: many calls of each compiled function, half of them failing, do not leak."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from sanitizers import IS_SANITIZED

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        find_spec("treehub_level._core_c") is None, reason="a pure wheel has no compiled core, and Python does not leak"
    ),
    pytest.mark.skipif(IS_SANITIZED, reason="AddressSanitizer keeps freed memory"),
]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command that counts leaks, in a process of its own."""
    command = [sys.executable, "-m", "tests.leaks", *arguments]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600)


def test_many_calls_of_each_function_do_not_leak() -> None:
    done = run("--calls", "20000")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.count("20,000 calls") >= 22


#: The kinds of leaks to find. Only Linux reports the resident memory of a process.
LEAKS = ["block", "reference", *(["bytes"] if Path("/proc/self/statm").exists() else [])]


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_found(leak: str) -> None:
    done = run("--calls", "20000", "--faulty", leak)
    assert (done.returncode, done.stderr) == (1, f"these leak: a function that leaks a {leak}\n")
