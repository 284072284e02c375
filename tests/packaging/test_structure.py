"""The shape of the package: its public names, its layers, its files."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

import treehub_level

pytestmark = pytest.mark.once

PACKAGE = Path(treehub_level.__file__).parent
COMPILED = {"treehub_level._core_c", "treehub_level._store_c"}

#: From bottom to top. A module may import what stands in its own line or in one above it here.
LAYERS = [
    ["errors", "extras", "types"],
    ["_core", "_core_c", "_core_py", "_store_c", "backends"],
    ["engine"],
    ["replication"],
    ["maintenance"],
    ["blocking"],
    ["aio"],
    ["treehub_level"],  # the public names
    ["http"],
    ["__main__", "cli", "testing"],
]
RANKS = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

#: Each module with nothing of the package imported before. (A compiled module cannot be imported twice in a process.)
IMPORT_EACH_ALONE = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [module for module in sys.modules if module.partition(".")[0] == "treehub_level"]:
        del sys.modules[loaded]
    importlib.import_module(name)
"""


def modules() -> dict[str, Path]:
    """Every module of the package in Python, by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def layer_of(module: str) -> str:
    """The layer that a module of the package belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def imported(module: str, is_package: bool, source: str, known: set[str]) -> Iterator[str]:
    """The modules of the package that a module's source imports, wherever in it."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "treehub_level")
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base.partition(".")[0] == "treehub_level":
                for alias in node.names:
                    name = f"{base}.{alias.name}"
                    yield name if name in known else base


def upward(module: str, is_package: bool, source: str, known: set[str]) -> list[str]:
    """The imports of a module that point up."""
    return [
        name for name in imported(module, is_package, source, known) if RANKS[layer_of(name)] > RANKS[layer_of(module)]
    ]


def test_all_is_sorted_and_is_every_public_name() -> None:
    names = treehub_level.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name.islower(), name))
    public = {
        name for name, value in vars(treehub_level).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert set(names) == public | {"blocking"}


def test_the_version_is_that_of_the_distribution() -> None:
    assert treehub_level.__version__ == version("treehub-level")


def test_every_module_imports_alone_and_without_a_warning() -> None:
    absent = {"treehub_level.backends.leveldb.native"} if find_spec("treehub_level._store_c") is None else set()
    names = [name for name in modules() if not name.endswith("__main__") and name not in absent]
    environment = {**os.environ, "TREEHUB_LEVEL_CORE": "python"}
    subprocess.run([sys.executable, "-W", "error", "-c", IMPORT_EACH_ALONE, *names], check=True, env=environment)


def test_every_module_has_its_layer() -> None:
    assert {layer_of(name) for name in modules()} <= set(RANKS)


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module: str) -> None:
    path = modules()[module]
    known = {*modules(), *COMPILED}
    assert upward(module, path.name == "__init__.py", path.read_text(encoding="utf-8"), known) == []


@pytest.mark.parametrize(
    "source",
    [
        "from ..blocking import Level",
        "from .. import blocking",
        "import treehub_level.blocking",
        "from treehub_level.blocking.level import Level",
        "def later():\n    from ..aio import Level",
        "from .. import Level",
    ],
)
def test_an_import_that_points_up_is_found(source: str) -> None:
    assert upward("treehub_level.backends.memory", False, source, set(modules())) != []


@pytest.mark.parametrize(
    "source", ["from ..errors import LevelError", "from .base import Backend", "from .. import _core"]
)
def test_an_import_that_points_down_or_sideways_is_allowed(source: str) -> None:
    assert upward("treehub_level.backends.memory", False, source, set(modules())) == []


def test_files_stay_under_500_lines() -> None:
    root = Path(__file__).parents[2]
    folders = [PACKAGE, root / "src", root / "tests", root / "examples", root / "benchmarks"]
    files = [path for folder in folders for kind in ("*.py", "*.pyi", "*.px?") for path in folder.rglob(kind)]
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: length for path, length in lengths.items() if length > 500} == {}
