"""The conformance suite detects each backend of ``broken.py``, by the test for its fault."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from backends import broken

pytestmark = pytest.mark.once

FAULTS = [suite for name, suite in vars(broken).items() if name.startswith("Test")]


@pytest.fixture(scope="module")
def caught(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """The tests that fail, of those that must fail; they run in a separate pytest process."""
    report = tmp_path_factory.mktemp("report") / "report.xml"
    chosen = [f"{broken.__file__}::{suite.__name__}::{suite.__doc__}" for suite in FAULTS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *chosen]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    return {
        (case.attrib["classname"].rpartition(".")[2], case.attrib["name"].partition("[")[0])
        for case in ElementTree.parse(report).iter("testcase")
        if case.find("failure") is not None
    }


@pytest.mark.parametrize("suite", FAULTS, ids=lambda suite: suite.__name__)
def test_the_suite_detects(caught: set[tuple[str, str]], suite: type[broken.Broken]) -> None:
    assert (suite.__name__, suite.__doc__) in caught
