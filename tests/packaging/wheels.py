"""Wheels as they are published, and what must pass with one installed.

``python tests/packaging/wheels.py make FOLDER`` builds the source distribution, a wheel from it and
the pure wheel, and tries both wheels as a stranger would: in an environment of its own each, with
no compiler on the path. It is for Linux, and for the interpreter that runs it, which has the tools
of requirements-dev.txt. (Elsewhere cibuildwheel does this.)

``python tests/packaging/wheels.py try c`` runs the tests of an installed wheel that has the
compiled core and LevelDB inside, ``try python`` those of a pure one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST_TOOLS = ["hypothesis", "pytest", "pytest-asyncio"]
#: What works on every platform: not what needs plyvel, which has not as many wheels.
SUBJECTS = ["reading", "scan", "snapshot", "writing", "bulk", "server", "client", "sync"]
TESTS = ["tests/core", "tests/closing", *(f"tests/level/test_{subject}.py" for subject in SUBJECTS)]


def run(*command: str | Path, environment: dict[str, str] | None = None) -> None:
    """Run a command in the source tree, in this environment if it is given none. One that fails ends this program."""
    print("+", *command, flush=True)
    completed = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if completed.returncode:
        sys.exit(f"{command[0]} failed with {completed.returncode}")


def only_wheel(folder: Path) -> Path:
    """The one wheel in a folder."""
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """A wheel with extensions has LevelDB inside its engine: neither left out, nor as a library that others see."""
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.partition("/")[0] for name in archive.namelist()}
        files = {name.partition(".")[0] for name in archive.namelist() if name.endswith(".so")}
    if files != {"treehub_level/_core_c", "treehub_level/_store_c"} or "treehub_level.libs" in folders:
        sys.exit(
            f"{wheel.name} does not have LevelDB inside. Install its static libraries "
            "(Debian: g++ libleveldb-dev libsnappy-dev), or set TREEHUB_LEVEL_FETCH_LEVELDB=ON"
        )


def try_in_clean_environment(wheel: Path, core: str, folder: Path) -> None:
    """Install a wheel, and what it needs, without compiling anything; run its tests with nothing else in reach."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    pins = ["--only-binary", ":all:", "--constraint", "requirements-dev.txt"]
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *pins, wheel, *TEST_TOOLS)
    bare = {"PATH": str(folder / "bin"), "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    run(python, __file__, "try", core, environment=bare)


def make(folder: Path) -> None:
    """Build all that is published for this interpreter, and try it."""
    folder.mkdir(parents=True, exist_ok=True)
    tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        run(*build, work / "compiled", ROOT, environment={**tools, "TREEHUB_LEVEL_REQUIRE_EXTENSIONS": "1"})
        repair = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir"]
        run(*repair, work / "repaired", only_wheel(work / "compiled"), environment=tools)
        check_contents(only_wheel(work / "repaired"))
        run(*build, work / "pure", ROOT, environment={**tools, "TREEHUB_LEVEL_NO_EXTENSIONS": "1"})
        try_in_clean_environment(only_wheel(work / "repaired"), "c", work / "venv-c")
        try_in_clean_environment(only_wheel(work / "pure"), "python", work / "venv-python")
        for path in [*work.glob("compiled/*.tar.gz"), *work.glob("repaired/*"), *work.glob("pure/*.whl")]:
            print(shutil.copy(path, folder))


def try_installed(core: str) -> None:
    """Run the tests of the wheel that is installed for this interpreter."""
    os.environ["TREEHUB_LEVEL_CORE"] = core
    if core == "c":
        run(sys.executable, "-c", "import treehub_level._store_c")
    run(sys.executable, "-m", "pytest", "-q", "-k", "not plyvel", *TESTS)


def main(arguments: list[str]) -> None:
    """The command line."""
    match arguments:
        case ["make", folder]:
            make(Path(folder).resolve())
        case ["try", ("c" | "python") as core]:
            try_installed(core)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
