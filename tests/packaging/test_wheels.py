"""What is tried with a wheel installed is there: it is named outside of the suite, where nobody sees it move."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

TESTS = runpy.run_path(str(Path(__file__).with_name("wheels.py")))["TESTS"]


@pytest.mark.parametrize("path", TESTS)
def test_what_a_wheel_is_tried_with_was_not_moved_away(path: str) -> None:
    assert (Path(__file__).parents[2] / path).exists()
