"""Builds the package with AddressSanitizer and UndefinedBehaviorSanitizer, and runs the suite.

``make asan`` runs it, which takes most of an hour, or

    python -m tests.sanitizers
    python -m tests.sanitizers tests/core -k keys

The build does not replace the installed package. The suite runs without `tests/packaging`, which
builds the package itself.

First, the sanitizers must report two bugs in an extension that was built with the same flags. The
exit status is 0 if they report nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
BUILD: Final = ROOT / "build" / "asan"
SITE: Final = BUILD / "site"

#: Imported at the start of each process. The finder of an editable install would precede this
#: build.
_WITHOUT_EDITABLE: Final = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
"""
_FLAGS: Final = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1"
#: The default arguments of pytest.
_SUITE: Final = ["tests", "--ignore=tests/packaging", "--numprocesses=auto", "--dist=worksteal", "-q"]
#: The bugs of ``bugs.c``, and the reports that they must cause.
_BUGS: Final = {
    "read_behind_the_end(16)": "AddressSanitizer: heap-buffer-overflow",
    "overflow(1)": "runtime error: signed integer overflow",
}


def main() -> None:
    """Build the package, check the controls, and run the tests that the command line names."""
    compiler = os.environ.get("CC", "cc")
    libraries = [library for name in ("libasan.so", "libstdc++.so.6") if (library := _library(compiler, name))]
    if len(libraries) < 2:
        sys.exit(f"{compiler} has no AddressSanitizer: install gcc and its sanitizer libraries, on Linux")
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    _build(compiler)
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONMALLOC": "malloc",  # Python's allocator would hide overflows between its blocks
        "PYTHONPATH": str(SITE),
        "ASAN_OPTIONS": "detect_leaks=0",  # CPython frees little at exit; tests/leaks finds leaks
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TREEHUB_LEVEL_CORE": "c",
    }
    for bug, report in _BUGS.items():
        _check_report(bug, report, environment)
    arguments = sys.argv[1:] or _SUITE
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments], cwd=ROOT, env=environment
    )
    print("no reports" if done.returncode == 0 else f"FAILED (exit code {done.returncode})")
    sys.exit(done.returncode)


def _library(compiler: str, name: str) -> str | None:
    """The path of a library of the compiler; ``None`` if the library or the compiler is missing."""
    try:
        found = subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.strip() if os.path.isabs(found.strip()) else None


def _build(compiler: str) -> None:
    install = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    install += ["--no-build-isolation", "--no-deps", "--target", str(SITE)]
    install += ["-Ccmake.build-type=Debug", f"-Cbuild-dir={BUILD / 'cmake'}", "-Cinstall.strip=false", str(ROOT)]
    flags = {"CFLAGS": _FLAGS, "CXXFLAGS": _FLAGS, "LDFLAGS": _FLAGS, "TREEHUB_LEVEL_REQUIRE_EXTENSIONS": "1"}
    subprocess.run(install, check=True, env={**os.environ, **flags})
    (SITE / "sitecustomize.py").write_text(_WITHOUT_EDITABLE, encoding="utf-8")
    include = sysconfig.get_path("include")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    command = [compiler, *_FLAGS.split(), "-shared", "-fPIC", f"-I{include}", "-o", str(SITE / f"bugs{suffix}")]
    subprocess.run([*command, str(HERE / "bugs.c")], check=True)


def _check_report(bug: str, report: str, environment: dict[str, str]) -> None:
    """Exit unless a bug is reported, in a process that has also loaded the package under test."""
    program = f"from treehub_level import _core_c; assert {str(SITE)!r} in _core_c.__file__; import bugs; bugs.{bug}"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    if done.returncode == 0 or report not in done.stderr:
        sys.exit(f"the control failed: {bug} was not reported: {done.stdout}{done.stderr[-3000:]}")
    print(f"the control: {bug} was reported: {report}")


if __name__ == "__main__":
    main()
