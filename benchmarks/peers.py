"""The peers that are not written in Python: their paths and their installation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from .plan import Peer

_ROOT = Path(__file__).parents[1]
_SOURCES = _ROOT / "benchmarks" / "ceiling"
_BUILT = _ROOT / "build" / "ceiling"

#: The C program.
CEILING = _BUILT / "ceiling"
#: The folder of the programs for Node and of their packages.
NODE = _ROOT / "benchmarks" / "node"


@cache
def missing(peer: Peer, *, install: bool) -> str | None:
    """Return the reason why a peer cannot run, or ``None`` if it can.

    Args:
        peer: The peer.
        install: True to build or download the peer if needed.
    """
    return {"ceiling": _missing_ceiling, "node": _missing_node}[peer](install)


def find(program: str) -> str:
    """Return the path of a program, or ``""``. The environment of Python is searched first."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return shutil.which(program, path=os.pathsep.join(places)) or ""


def _missing_ceiling(install: bool) -> str | None:
    if install:
        cmake = find("cmake")
        if not cmake:
            return "the C program needs cmake, a C compiler and LevelDB to be built: there is no cmake"
        configure = [cmake, "-S", str(_SOURCES), "-B", str(_BUILT), "-DCMAKE_BUILD_TYPE=Release"]
        failure = _failure(configure) or _failure([cmake, "--build", str(_BUILT)])
        if failure is not None:
            return failure
    return None if CEILING.exists() else f"the C program is not built: there is no {CEILING}"


def _missing_node(install: bool) -> str | None:
    for program in ("node", "npm") if install else ("node",):
        if not find(program):
            return f"the peers in JavaScript need Node and npm: there is no {program}"
    installed, wanted = NODE / "node_modules" / ".package-lock.json", NODE / "package-lock.json"
    if install and not (installed.exists() and installed.stat().st_mtime >= wanted.stat().st_mtime):
        # No scripts: the packages contain compiled libraries, and need no foreign program to run.
        return _failure([find("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(NODE)])
    return None if installed.exists() else f"the packages for Node are not installed: there is no {installed.parent}"


def _failure(command: list[str]) -> str | None:
    """Run a command. Return ``None`` if it succeeds, else the command with its output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return None if done.returncode == 0 else f"{' '.join(command)} failed:\n{done.stdout.strip()}"
