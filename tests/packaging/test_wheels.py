"""The tests that `wheels.py` runs exist. It names them, so the suite would miss a move."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

TESTS = runpy.run_path(str(Path(__file__).with_name("wheels.py")))["TESTS"]


@pytest.mark.parametrize("path", TESTS)
def test_the_tests_of_a_wheel_exist(path: str) -> None:
    assert (Path(__file__).parents[2] / path).exists()
