"""Fixtures of both cores.

Each test runs with both cores, independent of TREEHUB_LEVEL_CORE, so these tests are marked to run
once.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import orjson
import pytest

CORES = {"c": "treehub_level._core_c", "python": "treehub_level._core_py"}


@pytest.fixture(scope="session", params=CORES, ids="core={}".format)
def core(request: pytest.FixtureRequest) -> Any:
    """Each core in turn."""
    return pytest.importorskip(CORES[request.param], reason="a pure wheel has no compiled core", exc_type=ImportError)


@pytest.fixture(scope="session")
def compiled() -> Any:
    """The compiled core."""
    return pytest.importorskip(CORES["c"], reason="a pure wheel has no compiled core", exc_type=ImportError)


@pytest.fixture(scope="session")
def pure() -> Any:
    """The pure-Python core."""
    return import_module(CORES["python"])


@pytest.fixture
def space(core: Any) -> Any:
    """The key space of the usual prefix."""
    return core.KeySpace("!")


@pytest.fixture(scope="session")
def golden() -> Any:
    """The test vectors of the format. They never change."""
    return orjson.loads((Path(__file__).parents[1] / "golden" / "core.json").read_bytes())
