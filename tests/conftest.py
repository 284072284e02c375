"""The product over which every test of behaviour runs: API {async, blocking} × backend {memory, leveldb, plyvel}.

The third factor, the core {c, python}, is chosen for a whole run by ``TREEHUB_LEVEL_CORE``. The pure core stands in
where nothing is compiled, so it runs on what is there then: not on the native engine of LevelDB. What a run covers
stands in pytest's header.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from stores import NATIVE, Stores

import treehub_level
from treehub_level import Level, _core

# CI repeats the same examples, so that what it says of a change is about that change; everywhere else they are new.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


BACKENDS = ["memory", "leveldb", "plyvel"] if NATIVE and _core.CORE == "c" else ["memory", "plyvel"]


def pytest_report_header() -> str:
    absent = "" if NATIVE else " (LevelDB was not there when the package was built, so its native engine is left out)"
    return f"treehub-level {treehub_level.__version__}: core={_core.CORE} backends={','.join(BACKENDS)}{absent}"


@pytest.fixture(params=["async", "blocking"], ids="api={}".format)
def api(request: pytest.FixtureRequest) -> Any:
    """Which of the two APIs the test uses."""
    return request.param


@pytest.fixture(params=BACKENDS, ids="backend={}".format)
def backend(request: pytest.FixtureRequest) -> Any:
    """Where the bytes go."""
    return request.param


@pytest.fixture
async def stores(api: str, backend: str, tmp_path: Path) -> AsyncIterator[Stores]:
    """Makes levels of this API over this backend, looks at their raw bytes, and closes what a test left open."""
    made = Stores(api, backend, tmp_path)
    yield made
    await made.close_all()


@pytest.fixture
async def level(stores: Stores) -> Any:
    """An open level in NORMAL mode."""
    return await stores.open("normal")


@pytest.fixture
async def server(stores: Stores) -> Any:
    """An open level in SERVER mode."""
    return await stores.open("server", mode=Level.SERVER)


@pytest.fixture
async def client(stores: Stores) -> Any:
    """An open level in CLIENT mode."""
    return await stores.open("client", mode=Level.CLIENT)


@pytest.fixture(params=list(Level.NORMAL.__class__), ids=lambda mode: f"mode={mode.value}")
def mode(request: pytest.FixtureRequest) -> Any:
    """Each mode in turn, for what holds in all of them."""
    return request.param
