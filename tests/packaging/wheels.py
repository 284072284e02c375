"""Builds the published wheels, and tests them as a user installs them.

``python tests/packaging/wheels.py make FOLDER`` builds the source distribution, a wheel from it and
the pure wheel, and tests both wheels, each installed into an environment of its own with no
compiler on the path. It runs on Linux, for the interpreter that runs it, which needs the tools of
requirements-dev.txt. On other systems cibuildwheel does the same.

``python tests/packaging/wheels.py try c`` runs the tests of an installed wheel that includes the
compiled core and LevelDB, ``try python`` those of a pure one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST_TOOLS = ["hypothesis", "pytest", "pytest-asyncio"]
#: Tests that run on every platform. Those over plyvel are left out, as it has fewer wheels.
SUBJECTS = ["reading", "scan", "snapshot", "writing", "bulk", "server", "client", "sync"]
TESTS = ["tests/core", "tests/closing", *(f"tests/level/test_{subject}.py" for subject in SUBJECTS)]


def run(*command: str | Path, environment: dict[str, str] | None = None) -> None:
    """Run a command in the source tree, and exit if it fails.

    Args:
        command: The program and its arguments.
        environment: Its environment variables; None for those of this process.
    """
    print("+", *command, flush=True)
    completed = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if completed.returncode:
        sys.exit(f"{command[0]} failed with {completed.returncode}")


def only_wheel(folder: Path) -> Path:
    """Return the one wheel in a folder."""
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """Exit unless LevelDB is linked statically into the native engine of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.partition("/")[0] for name in archive.namelist()}
        files = {name.partition(".")[0] for name in archive.namelist() if name.endswith(".so")}
    if files != {"treehub_level/_core_c", "treehub_level/_store_c"} or "treehub_level.libs" in folders:
        sys.exit(
            f"{wheel.name} does not have LevelDB inside. Install its static libraries "
            "(Debian: g++ libleveldb-dev libsnappy-dev), or set TREEHUB_LEVEL_FETCH_LEVELDB=ON"
        )


def try_in_clean_environment(wheel: Path, core: str, folder: Path) -> None:
    """Install a wheel without compiling, and run its tests with no other programs on the path."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    pins = ["--only-binary", ":all:", "--constraint", "requirements-dev.txt"]
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *pins, wheel, *TEST_TOOLS)
    bare = {"PATH": str(folder / "bin"), "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    run(python, __file__, "try", core, environment=bare)


def make(folder: Path) -> None:
    """Build the published files for this interpreter, and test both wheels in parallel."""
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
        with ThreadPoolExecutor() as both:
            tries = [
                both.submit(try_in_clean_environment, only_wheel(work / kind), core, work / f"venv-{core}")
                for kind, core in (("repaired", "c"), ("pure", "python"))
            ]
        for attempt in tries:
            attempt.result()  # raises SystemExit if its tests failed
        for path in [*work.glob("compiled/*.tar.gz"), *work.glob("repaired/*"), *work.glob("pure/*.whl")]:
            print(shutil.copy(path, folder))


def check_command_line() -> None:
    """The command line starts if typer is installed; else it names the extra to install."""
    completed = subprocess.run([sys.executable, "-m", "treehub_level", "--version"], capture_output=True, text=True)
    if find_spec("typer") is not None:
        works = completed.returncode == 0 and completed.stdout.startswith("treehub-level ")
    else:
        works = completed.returncode == 1 and "error: the command line needs typer" in completed.stderr
    if not works:
        sys.exit(f"the command line does not work: exit code {completed.returncode}, {completed.stderr}")


def try_installed(core: str) -> None:
    """Run the tests of the wheel installed for this interpreter."""
    check_command_line()
    os.environ["TREEHUB_LEVEL_CORE"] = core
    if core == "c":
        run(sys.executable, "-c", "import treehub_level._store_c")
    run(sys.executable, "-m", "pytest", "-q", "-k", "not plyvel", *TESTS)


def main(arguments: list[str]) -> None:
    """Run the command line."""
    match arguments:
        case ["make", folder]:
            make(Path(folder).resolve())
        case ["try", ("c" | "python") as core]:
            try_installed(core)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
