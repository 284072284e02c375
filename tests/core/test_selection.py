"""``TREEHUB_LEVEL_CORE`` selects the core when the package is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.once

PRINT_CORE = "from treehub_level import _core; print(_core.CORE, _core.cid_key.__module__)"
#: As PRINT_CORE, in an installation without a compiled core.
PRINT_CORE_OF_PURE_WHEEL = "import sys; sys.modules['treehub_level._core_c'] = None; " + PRINT_CORE


def run(code: str, choice: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TREEHUB_LEVEL_CORE"}
    if choice is not None:
        environment["TREEHUB_LEVEL_CORE"] = choice
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("choice", ["c", None, ""])
def test_the_compiled_core_is_used_where_it_is_installed(compiled: Any, choice: str | None) -> None:
    assert run(PRINT_CORE, choice).stdout.split() == ["c", "treehub_level._core_c"]


def test_the_pure_core_can_be_selected() -> None:
    assert run(PRINT_CORE, "python").stdout.split() == ["python", "treehub_level._core_py.keys"]


@pytest.mark.parametrize("choice", ["python", None, ""])
def test_a_pure_wheel_uses_the_pure_core(choice: str | None) -> None:
    assert run(PRINT_CORE_OF_PURE_WHEEL, choice).stdout.split() == ["python", "treehub_level._core_py.keys"]


def test_a_pure_wheel_says_that_the_compiled_core_is_not_installed() -> None:
    message = "ImportError: TREEHUB_LEVEL_CORE asks for the compiled core, which is not installed"
    assert message in run(PRINT_CORE_OF_PURE_WHEEL, "c").stderr


def test_an_unknown_choice_is_an_error() -> None:
    message = 'ImportError: TREEHUB_LEVEL_CORE is \'fast\': set it to "c" or "python", or unset it'
    assert message in run(PRINT_CORE, "fast").stderr
