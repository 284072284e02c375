"""The shape of the package: its public names, its layers, its files."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

import pytest
from rules import structure
from rules.structure import COMPILED, NAME, PACKAGE, RANKS, ROOT, Source

import treehub_level

pytestmark = pytest.mark.once

SOURCES = structure.package_sources()
OUTSIDE = structure.outside_sources()
PACKAGES = structure.packages_of(SOURCES)
KNOWN = {*SOURCES, *COMPILED}

#: Lines of one file. A longer file holds more than one idea.
MAX_LINES = 800

#: Imports each module with no other module of the package imported before. An import of a module
#: begins with its package, so a module that its package imports needs no run of its own. A compiled
#: module cannot be imported twice in one process.
#: Any import of a module begins with the package. So each module is imported in a fork of a process
#: that has imported nothing else.
IMPORT_EACH_ALONE = """
import importlib, os, sys
import treehub_level

for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        importlib.import_module(name)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{name} cannot be imported alone")
"""


def memory_backend(text: str) -> Source:
    """A made-up source of the module ``treehub_level.backends.memory``."""
    return Source(f"{NAME}.backends.memory", f"{NAME}.backends", text)


def outside(text: str, package: str) -> Source:
    """A made-up source of a test in a folder."""
    return Source(f"{package}.test_x", package, text)


# ------------------------------------------------------------------------------------- public names


def test_all_is_sorted_and_is_every_public_name() -> None:
    names = treehub_level.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name.islower(), name))
    public = {
        name for name, value in vars(treehub_level).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert set(names) == public | {"blocking"}


def test_the_version_is_that_of_the_distribution() -> None:
    assert treehub_level.__version__ == version("treehub-level")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_every_module_imports_alone_and_without_a_warning() -> None:
    absent = {f"{NAME}.backends.leveldb.native"} if find_spec(f"{NAME}._store_c") is None else set()
    names = [name for name in SOURCES if not name.endswith("__main__") and name not in absent]
    environment = {**os.environ, "TREEHUB_LEVEL_CORE": "python"}
    command = [sys.executable, "-W", "error", "-c", IMPORT_EACH_ALONE]
    subprocess.run([*command, *names], check=True, env=environment)
    # Control: a module that cannot be imported is named.
    failed = subprocess.run([*command, f"{NAME}.absent"], stderr=subprocess.PIPE, text=True, env=environment)
    assert f"{NAME}.absent cannot be imported alone" in failed.stderr


# ------------------------------------------------------------------------------------------- layers


def test_every_module_has_its_layer() -> None:
    assert {structure.layer_of(name) for name in SOURCES} <= set(RANKS)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_down(module: str) -> None:
    assert structure.upward_imports(SOURCES[module], KNOWN) == []


@pytest.mark.parametrize(
    "text",
    [
        "from ..blocking import Level",
        "from .. import blocking",
        "import treehub_level.blocking",
        "from treehub_level.blocking.level import Level",
        "def later():\n    from ..aio import Level",
        "from .. import Level",
    ],
)
def test_an_import_that_points_up_is_found(text: str) -> None:
    assert structure.upward_imports(memory_backend(text), KNOWN) != []


@pytest.mark.parametrize(
    "text", ["from ..errors import LevelError", "from .base import Backend", "from .. import _core"]
)
def test_an_import_that_points_down_or_sideways_is_allowed(text: str) -> None:
    assert structure.upward_imports(memory_backend(text), KNOWN) == []


def test_no_import_is_circular() -> None:
    assert structure.import_cycle(SOURCES) == []


@pytest.mark.parametrize(
    "text",
    [
        "from .b import B",
        "from . import b",
        "def later():\n    import treehub_level.b",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import B",
    ],
)
def test_a_circular_import_is_found(text: str) -> None:
    sources = {
        NAME: Source(NAME, NAME, "from .a import A"),
        f"{NAME}.a": Source(f"{NAME}.a", NAME, text),
        f"{NAME}.b": Source(f"{NAME}.b", NAME, "from .c import C"),
        f"{NAME}.c": Source(f"{NAME}.c", NAME, "from .a import A"),
    }
    assert set(structure.import_cycle(sources)) == {f"{NAME}.a", f"{NAME}.b", f"{NAME}.c"}


def test_an_import_through_the_own_package_is_circular() -> None:
    sources = {NAME: Source(NAME, NAME, "from .a import A"), f"{NAME}.a": Source(f"{NAME}.a", NAME, "from . import B")}
    assert set(structure.import_cycle(sources)) == {NAME, f"{NAME}.a"}


# ------------------------------------------------------------------------------------ private names


def test_no_package_imports_private_names_of_another() -> None:
    found = [line for source in SOURCES.values() for line in structure.private_imports(source, PACKAGES)]
    assert not found, "\n".join(found)


def test_tests_import_private_names_only_of_the_package_that_they_test() -> None:
    found = [line for source in OUTSIDE for line in structure.private_imports(source, PACKAGES)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "from ..engine._store import Store",
        "from ..engine.store import _Store",
        "from ..engine import _store",
        "import treehub_level.engine._store",
        "from .sqlite.reading import _Reader",  # of a package inside of its own
        "def later():\n    from ..engine.store import _Store",
        "from ..engine import store\nstore._open()",
        "import treehub_level.engine.store\ntreehub_level.engine.store._open()",
        "import treehub_level.engine.store as engine\nengine._open()",
        "from ..engine.store import Store\nStore._open(1)",
    ],
)
def test_a_private_name_of_another_package_is_found(text: str) -> None:
    assert structure.private_imports(memory_backend(text), PACKAGES) != []


@pytest.mark.parametrize(
    "text",
    [
        "from .base import _checked",
        "from .. import _core, _core_py",
        "from .._core_py.keys import encode",
        "from .._core import __doc__",
        "from . import base\nbase._checked()",
        "import sys\nsys._getframe()",
    ],
)
def test_private_names_of_the_own_package_and_the_cores_are_allowed(text: str) -> None:
    assert structure.private_imports(memory_backend(text), PACKAGES) == []


def test_private_names_within_a_core_are_not_shared() -> None:
    assert structure.private_imports(memory_backend("from .._core_py.keys import _table"), PACKAGES) != []


def test_tests_may_import_private_names_of_their_package_and_those_inside() -> None:
    text = "from treehub_level.backends.sqlite.reading import _Reader"
    assert structure.private_imports(outside(text, "tests.backends"), PACKAGES) == []
    assert structure.private_imports(outside(text, "tests.level"), PACKAGES) != []
    assert structure.private_imports(outside(text, "tests"), PACKAGES) != []


def test_no_package_uses_private_attributes_of_another() -> None:
    definitions = structure.private_definitions(SOURCES.values())
    found = [line for source in SOURCES.values() for line in structure.private_attributes(source, definitions)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "level._store.get()",
        "def f(self): return self.level._store",
        'getattr(level, "_store")',
        "level._store = None",
        "def f(self): return self._blocking._mine",
    ],
)
def test_a_private_attribute_of_another_package_is_found(text: str) -> None:
    own = memory_backend("class Mine:\n    def __init__(self): self._mine = self._blocking = 1")
    definitions = structure.private_definitions([own])
    assert structure.private_attributes(memory_backend(text), definitions) != []


@pytest.mark.parametrize(
    "text",
    [
        "other._mine",
        "other._helper()",
        "self._inherited",
        "cls._inherited",
        "row._replace(cid=1)",
        "other.__class__",
        "other._field",
    ],
)
def test_private_attributes_of_the_own_package_are_allowed(text: str) -> None:
    own = memory_backend("class Mine:\n    _field: int = 1\n    def _helper(self): self._mine = 1")
    definitions = structure.private_definitions([own])
    assert structure.private_attributes(memory_backend(text), definitions) == []


# ---------------------------------------------------------------------------------- names and files


def test_class_names_are_unique() -> None:
    assert structure.repeated_classes(SOURCES.values()) == {}


def test_a_repeated_class_name_is_found() -> None:
    twice = [
        memory_backend("class Record: pass"),
        Source(f"{NAME}.engine.log", f"{NAME}.engine", "def f():\n    class Record: pass"),
    ]
    assert structure.repeated_classes(twice) == {"Record": [f"{NAME}.backends.memory", f"{NAME}.engine.log"]}


def test_declared_counterparts_share_their_name_once_each() -> None:
    aio = Source(f"{NAME}.aio.level", f"{NAME}.aio", "class Level: pass")
    blocking = Source(f"{NAME}.blocking.level", f"{NAME}.blocking", "class Level: pass")
    third = Source(f"{NAME}.http.client.remote", f"{NAME}.http.client", "class Level: pass")
    assert structure.repeated_classes([aio, blocking]) == {}
    assert "Level" in structure.repeated_classes([aio, blocking, third])
    assert "Level" in structure.repeated_classes([aio, aio])


def test_files_are_not_too_long() -> None:
    folders = [PACKAGE, ROOT / "src", ROOT / "tests", ROOT / "examples", ROOT / "benchmarks"]
    files = [path for folder in folders for kind in ("*.py", "*.pyi", "*.px?") for path in folder.rglob(kind)]
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}
