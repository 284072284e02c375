"""The registry: from the name of a backend to its class."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import NATIVE

import treehub_level
from treehub_level import Backend, BackendNotFoundError, MemoryBackend, blocking, extras
from treehub_level.backends import create, leveldb, register
from treehub_level.backends.leveldb.plyvel import PlyvelBackend

pytestmark = pytest.mark.once


class Optional(MemoryBackend):
    def __init__(self, name: str, *, colour: str = "red", size: int = 1) -> None:
        super().__init__(name)
        self.colour = colour


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a package that was built without LevelDB."""
    monkeypatch.setitem(sys.modules, "treehub_level._store_c", None)
    monkeypatch.delattr(treehub_level, "_store_c", raising=False)
    monkeypatch.delitem(sys.modules, "treehub_level.backends.leveldb.native", raising=False)


@pytest.fixture
def without_plyvel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate that neither plyvel nor plyvel-next is installed."""
    for module in ("plyvel", "plyvel_next"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "treehub_level.backends.leveldb.plyvel")


@pytest.mark.skipif(not NATIVE, reason="the package was built without LevelDB")
def test_leveldb_is_the_native_backend_if_it_was_built(tmp_path: Path) -> None:
    assert type(create("leveldb", str(tmp_path), {})).__name__ == "LevelDBBackend"
    with blocking.Level(tmp_path / "store") as level:
        assert level.info()["backend"] == "LevelDBBackend"


@pytest.mark.skipif(
    not os.environ.get("TREEHUB_LEVEL_REQUIRE_EXTENSIONS"), reason="TREEHUB_LEVEL_REQUIRE_EXTENSIONS is not set"
)
def test_the_native_engine_was_built_where_extensions_are_required_and_leveldb_is_installed() -> None:
    compiler = os.environ.get("CC", "cc")
    try:
        headers = subprocess.run(
            [compiler, "-E", "-"], input=b"#include <leveldb/c.h>", capture_output=True, check=False
        )
    except OSError:
        pytest.skip(f"{compiler} is not installed")
    assert NATIVE or headers.returncode != 0


@pytest.mark.usefixtures("without_native")
def test_leveldb_is_plyvel_if_the_native_backend_was_not_built(tmp_path: Path) -> None:
    assert type(create("leveldb", str(tmp_path), {})) is PlyvelBackend


@pytest.mark.usefixtures("without_native", "without_plyvel")
@pytest.mark.parametrize(
    ("name", "library"), [("LevelDBBackend", "treehub_level._store_c"), ("PlyvelBackend", "plyvel")]
)
def test_the_leveldb_package_imports_without_either_library_and_its_backends_do_not(name: str, library: str) -> None:
    package = importlib.reload(leveldb)
    assert name in package.__all__
    with pytest.raises(ImportError, match=library):
        getattr(package, name)


def test_the_leveldb_package_has_the_backends_and_no_other_names() -> None:
    assert leveldb.PlyvelBackend is PlyvelBackend
    if NATIVE:
        assert leveldb.LevelDBBackend is importlib.import_module("treehub_level.backends.leveldb.native").LevelDBBackend
    with pytest.raises(AttributeError, match=r"'treehub_level\.backends\.leveldb' has no attribute 'LevelDB'"):
        _ = leveldb.LevelDB


def test_plyvel_is_a_name(tmp_path: Path) -> None:
    assert type(create("plyvel", str(tmp_path), {})) is PlyvelBackend


def test_no_vendor_library_is_imported_before_its_name_is_used() -> None:
    script = (
        "import sys, treehub_level\n"
        "treehub_level.blocking.Level('x', backend='memory')\n"
        "print({'treehub_level._store_c', 'plyvel', 'plyvel_next'} & set(sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


def test_memory_is_a_name() -> None:
    backend = create("memory", "label", {})
    assert type(backend) is MemoryBackend
    assert backend.name == "label"


def test_a_class_is_called_with_the_name_and_the_options() -> None:
    backend = create(Optional, "label", {"colour": "blue"})
    assert isinstance(backend, Optional)
    assert (backend.name, backend.colour) == ("label", "blue")


def test_a_callable_is_called_with_the_name() -> None:
    instances = {"label": MemoryBackend("mine")}
    assert create(lambda name: instances[name], "label", {}) is instances["label"]


def test_a_level_uses_a_registered_backend() -> None:
    instance = MemoryBackend("registered")
    register("test-registered", lambda name: instance)
    with blocking.Level("label", backend="test-registered") as level:
        level.put("k", 1)
    instance.open()
    assert instance.get(b"k") == b"1"


def test_the_last_registration_of_a_name_wins() -> None:
    register("test-twice", lambda name: MemoryBackend("first"))
    register("test-twice", lambda name: MemoryBackend("second"))
    assert create("test-twice", "label", {}).name == "second"


@pytest.mark.parametrize(("name", "factory"), [(7, MemoryBackend), ("name", MemoryBackend("an instance"))])
def test_registering_something_else_is_a_type_error(name: Any, factory: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a"):
        register(name, factory)


# ------------------------------------------------------------------------------------------- errors


def test_an_unknown_name_is_an_error_that_lists_the_installed_ones() -> None:
    register("test-known", MemoryBackend)
    with pytest.raises(BackendNotFoundError, match=r"'leveldbb'; installed: .*leveldb, memory, plyvel.*test-known"):
        create("leveldbb", "label", {})


@pytest.mark.usefixtures("without_native", "without_plyvel")
@pytest.mark.parametrize(
    ("name", "missing"), [("leveldb", ["treehub_level._store_c", "plyvel"]), ("plyvel", ["plyvel"])]
)
def test_a_missing_library_is_an_error_with_the_command_to_install_it(name: str, missing: list[str]) -> None:
    with pytest.raises(BackendNotFoundError) as caught:
        create(name, "label", {})
    assert f"backend {name!r}" in str(caught.value)
    assert [module for module in missing if module not in str(caught.value)] == []
    assert extras.install_command("plyvel") in str(caught.value)
    assert str(caught.value).endswith(f"installed: {', '.join(_installed_without_leveldb())}")
    assert isinstance(caught.value.__cause__, ImportError)


def _installed_without_leveldb() -> list[str]:
    with pytest.raises(BackendNotFoundError) as caught:
        create("no such name", "label", {})
    installed = str(caught.value).rpartition("installed: ")[2].split(", ")
    assert {"leveldb", "plyvel"}.isdisjoint(installed)
    return installed


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("memory", "backend 'memory' has no option 'durabel'; it takes none"),
        (Optional, "backend Optional has no option 'durabel'; its options are colour, size"),
        (lambda name: MemoryBackend(name), "has no option 'durabel'; it takes none"),
        (
            "leveldb",
            "backend 'leveldb' has no option 'durabel'; its options are write_buffer_size, bloom_filter_bits, ",
        ),
    ],
    ids=["memory", "class", "callable", "leveldb"],
)
def test_an_unknown_option_is_named(factory: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=message):
        create(factory, str(tmp_path), {"durabel": True})


def test_the_name_of_the_level_is_no_option() -> None:
    with pytest.raises(TypeError, match="has no option 'name'"):
        create(Optional, "label", {"name": "other"})


def test_an_option_need_not_be_keyword_only() -> None:
    assert create(lambda name, suffix: MemoryBackend(name + suffix), "label", {"suffix": "!"}).name == "label!"


def test_a_callable_without_a_signature_is_called_with_the_options() -> None:
    with pytest.raises(TypeError, match="must return a treehub_level Backend, not 10"):
        create(int, "1010", {"base": 2})  # type: ignore[arg-type]  # the point of the test


def test_a_callable_that_takes_any_option_gets_them_all() -> None:
    given: dict[str, object] = {}

    def factory(name: str, **options: object) -> Backend:
        given.update(options)
        return MemoryBackend(name)

    create(factory, "label", {"anything": 1})
    assert given == {"anything": 1}


@pytest.mark.parametrize("made", [None, "memory", object, MemoryBackend], ids=repr)
def test_a_callable_that_returns_no_backend_is_a_type_error(made: Any) -> None:
    with pytest.raises(TypeError, match="must return a treehub_level Backend, not"):
        create(lambda name: made, "label", {})


@pytest.mark.parametrize("backend", [None, 7, b"memory", ["memory"]], ids=repr)
def test_a_backend_of_another_type_is_a_type_error(backend: Any) -> None:
    with pytest.raises(TypeError, match="backend must be a name, a Backend subclass or a callable"):
        create(backend, "label", {})


def test_an_instance_is_a_type_error_with_a_remedy() -> None:
    with pytest.raises(TypeError, match="pass lambda name: instance"):
        create(MemoryBackend("label"), "label", {})  # type: ignore[arg-type]  # the point of the test


# ------------------------------------------------------------------------------------- entry points


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A function that installs a module with an entry point to its ``factory``."""

    def install(module: str, source: str, *, name: str = "test-plugin") -> None:
        (tmp_path / f"{module}.py").write_text(source)
        metadata = tmp_path / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[treehub_level.backends]\n{name} = {module}:factory\n")
        monkeypatch.syspath_prepend(tmp_path)

    before = set(sys.modules)
    yield install
    for module in set(sys.modules) - before:
        del sys.modules[module]


def test_an_entry_point_offers_a_backend(install: Callable[..., None]) -> None:
    install("plugin_good", "from treehub_level import MemoryBackend as factory")
    backend = create("test-plugin", "label", {})
    assert isinstance(backend, MemoryBackend)


def test_an_entry_point_is_listed_without_being_imported(install: Callable[..., None]) -> None:
    install("plugin_lazy", "raise SystemExit('imported')")
    with pytest.raises(BackendNotFoundError, match="test-plugin"):
        create("no such name", "label", {})


def test_a_registered_name_takes_precedence_over_an_entry_point(install: Callable[..., None]) -> None:
    install("plugin_shadowed", "factory = None", name="test-shadowed")
    register("test-shadowed", MemoryBackend)
    assert isinstance(create("test-shadowed", "label", {}), MemoryBackend)


@pytest.mark.parametrize(
    ("source", "cause"),
    [("import no_such_library", ModuleNotFoundError), ("1 / 0", ZeroDivisionError), ("", AttributeError)],
    ids=["import-error", "other-error", "no-such-name"],
)
def test_an_entry_point_that_cannot_be_imported_is_reported_with_its_cause(
    install: Callable[..., None], source: str, cause: type[Exception]
) -> None:
    install("plugin_bad", source)
    with pytest.raises(BackendNotFoundError, match="'test-plugin' is installed as plugin_bad:factory, which") as caught:
        create("test-plugin", "label", {})
    assert isinstance(caught.value.__cause__, cause)
    assert str(caught.value.__cause__) in str(caught.value)


def test_an_entry_point_that_cannot_be_called_is_reported(install: Callable[..., None]) -> None:
    install("plugin_data", "factory = 'not callable'")
    with pytest.raises(BackendNotFoundError, match="which is neither a Backend subclass nor a callable"):
        create("test-plugin", "label", {})
