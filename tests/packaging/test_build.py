"""What is built from a source tree: with a compiler, with a broken one, and without extensions."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from stores import plyvel

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
#: The interface of every build front end (PEP 517), without one.
BUILD = "import sys; from scikit_build_core import build; print(getattr(build, sys.argv[1])(sys.argv[2]))"
PRINT_CORE = "import treehub_level._core as core; print(core.CORE)"
WARNING = "WARNING: treehub-level: the compiled core could not be built"
#: The native engine, which an editable install has in site-packages.
ENGINE = find_spec("treehub_level._store_c")

needs_cc = pytest.mark.skipif(sys.platform == "win32", reason="the compiler of Windows is not chosen by CC")
needs_engine = pytest.mark.skipif(ENGINE is None, reason="LevelDB was not installed when the package was built")
needs_elf = pytest.mark.skipif(sys.platform != "linux", reason="its libraries are not in the format of Linux")


def build(kind: str, source: Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a hook of the build back end in a source tree; what it builds goes into folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TREEHUB_LEVEL_")}
    return subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(folder)],
        cwd=source,
        env={**inherited, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def only_file(folder: Path) -> Path:
    """The one file in a folder."""
    (path,) = folder.iterdir()
    return path


def extensions(names: list[str]) -> set[str]:
    """The modules among the files of a wheel that are compiled."""
    return {Path(name).name.partition(".")[0] for name in names if name.endswith((".so", ".pyd"))}


def engine_file() -> Path:
    """The file of the native engine."""
    assert ENGINE is not None
    assert ENGINE.origin is not None
    return Path(ENGINE.origin)


def symbols_shown(library: Path) -> list[str]:
    """What a shared library defines for others to see."""
    from elftools.elf.elffile import ELFFile  # Linux only, like what it reads
    from elftools.elf.sections import SymbolTableSection

    with library.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".dynsym")
        assert isinstance(table, SymbolTableSection)
        return [symbol.name for symbol in table.iter_symbols() if symbol.name and symbol["st_shndx"] != "SHN_UNDEF"]


def live_core(wheel: Path, folder: Path, choice: str = "") -> subprocess.CompletedProcess[str]:
    """Import the package from a wheel, unpacked, and print its core."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    # Without the module `site`, whose .pth files would put an editable install before the wheel.
    paths = os.pathsep.join([str(folder), *site.getsitepackages()])
    environment = {**os.environ, "PYTHONPATH": paths, "TREEHUB_LEVEL_CORE": choice}
    return subprocess.run(
        [sys.executable, "-S", "-c", PRINT_CORE],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    built = build("build_sdist", ROOT, folder)
    assert built.returncode == 0, built.stdout
    with tarfile.open(only_file(folder)) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    return only_file(folder / "unpacked")


def test_the_source_distribution_has_all_that_a_build_and_a_test_run_need(sdist: Path) -> None:
    files = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}
    in_tree = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*") if "__pycache__" not in path.parts
    }
    sources = {name for name in in_tree if name.endswith((".py", ".pyi", ".pyx", ".pxd", ".cmake", "py.typed"))}
    assert sources <= files
    assert {"pyproject.toml", "CMakeLists.txt", "Makefile", "README.md", "LICENSE", "CHANGELOG.md"} <= files
    assert {"requirements-dev.txt", "tests/conftest.py", "tests/golden/core.json", "examples/demo.py"} <= files


#: A program, and libraries that tests preload: nothing that Cython has made.
C_SOURCES = {"bugs.c", "ceiling.c", "clock.c", "shim.c"}


def test_the_source_distribution_has_nothing_else(sdist: Path) -> None:
    tops = {path.name for path in sdist.iterdir()}
    assert tops <= {
        *("CHANGELOG.md", "CMakeLists.txt", "CONTRIBUTING.md", "LICENSE", "Makefile", "PKG-INFO", "README.md"),
        *("SECURITY.md", "pyproject.toml"),
        *("benchmarks", "docs", "examples", "js", "requirements-dev.txt", "src", "tests"),
    }
    strays = {path.name for path in sdist.rglob("*") if path.suffix in {".c", ".o", ".pyc", ".so", ".whl"}}
    assert strays == C_SOURCES


def test_a_wheel_holds_the_compiled_core_and_the_package_and_no_sources_of_the_core(
    sdist: Path, tmp_path: Path
) -> None:
    built = build("build_wheel", sdist, tmp_path, CFLAGS="-Wall", TREEHUB_LEVEL_REQUIRE_EXTENSIONS="1")
    assert built.returncode == 0, built.stdout
    assert "warning" not in built.stdout.lower()
    wheel = only_file(tmp_path)
    assert not wheel.name.endswith("-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert sorted({name.partition("/")[0] for name in names}) == ["treehub_level", "treehub_level-0.1.0.dist-info"]
    assert {f"treehub_level/{name}" for name in ("_core_c.pyi", "_store_c.pyi", "py.typed")} <= set(names)
    licences = {name.rpartition("/")[2] for name in names if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "LICENSE.leveldb", "LICENSE.snappy"}
    assert [name for name in names if name.endswith((".pyx", ".pxd", ".cmake", ".c"))] == []
    assert extensions(names) - {"_store_c"} == {"_core_c"}  # the engine: only where LevelDB is
    assert live_core(wheel, tmp_path / "site").stdout == "c\n"


@needs_cc
def test_without_leveldb_the_core_is_built_alone_and_the_build_says_what_to_install(
    sdist: Path, tmp_path: Path
) -> None:
    built = build("build_wheel", sdist, tmp_path, CXX="false", TREEHUB_LEVEL_REQUIRE_EXTENSIONS="1")  # it is in C++
    assert built.returncode == 0, built.stdout
    assert "no LevelDB here (Debian: g++ libleveldb-dev libsnappy-dev)" in built.stdout
    with zipfile.ZipFile(only_file(tmp_path)) as archive:
        assert extensions(archive.namelist()) == {"_core_c"}


@needs_engine
@needs_elf
def test_the_engine_shows_nothing_of_leveldb_to_others_in_its_process() -> None:
    assert symbols_shown(engine_file()) == ["PyInit__store_c"]


@needs_elf
def test_symbols_of_leveldb_that_are_shown_are_found() -> None:
    (binding,) = Path(plyvel().__file__).parent.glob("_plyvel*.so")
    assert any("leveldb" in name for name in symbols_shown(binding))


@needs_engine
def test_the_engine_is_small() -> None:
    assert engine_file().stat().st_size < 500 * 1024


def test_a_wheel_without_extensions_is_pure_and_has_the_other_core(sdist: Path, tmp_path: Path) -> None:
    built = build("build_wheel", sdist, tmp_path, TREEHUB_LEVEL_NO_EXTENSIONS="1")
    assert built.returncode == 0, built.stdout
    assert WARNING not in built.stdout
    wheel = only_file(tmp_path)
    assert wheel.name == "treehub_level-0.1.0-py3-none-any.whl"
    assert live_core(wheel, tmp_path / "site").stdout == "python\n"
    assert (
        "ImportError: TREEHUB_LEVEL_CORE asks for the compiled core" in live_core(wheel, tmp_path / "site", "c").stderr
    )


@needs_cc
@pytest.mark.parametrize("compiler", ["false", "/no/such/compiler"])
def test_without_a_working_compiler_a_pure_wheel_is_built_with_one_warning(
    sdist: Path, tmp_path: Path, compiler: str
) -> None:
    built = build("build_wheel", sdist, tmp_path, CC=compiler)
    assert built.returncode == 0, built.stdout
    assert built.stdout.count(WARNING) == 1
    assert built.stdout.count("WARNING") == 1
    assert only_file(tmp_path).name == "treehub_level-0.1.0-py3-none-any.whl"


@needs_cc
def test_where_extensions_are_required_a_compiler_that_fails_is_an_error(sdist: Path, tmp_path: Path) -> None:
    built = build("build_wheel", sdist, tmp_path, CC="false", TREEHUB_LEVEL_REQUIRE_EXTENSIONS="1")
    assert built.returncode != 0
    assert list(tmp_path.iterdir()) == []
