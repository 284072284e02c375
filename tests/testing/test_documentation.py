"""The examples of docs/testing.md are test suites that pass without any change."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

TEXT = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
BLOCKS = list(re.finditer(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))


def test_the_examples_are_suites_that_pass(tmp_path: Path) -> None:
    for block in BLOCKS:
        line = TEXT[: block.start(1)].count("\n")
        # Leading empty lines, so that a traceback shows the line number of the page.
        (tmp_path / f"test_line_{line}.py").write_text("\n" * line + block[1])
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    # The scenarios of a client are tests of `tests/exchange`.
    command = [sys.executable, "-m", "pytest", "-q", "-k", "not TestMyClient or local-writes-are-pushed"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_an_example_of_each_tool() -> None:
    tools = ["FlakyServer", "CrashingDisk", "BackendConformance", "ExchangeClientConformance"]
    assert len(BLOCKS) == len(tools)
    assert all(
        f"import {tool}" in block[1] or f", {tool}" in block[1] for tool, block in zip(tools, BLOCKS, strict=True)
    )
