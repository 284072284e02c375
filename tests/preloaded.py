"""C libraries that tests preload into processes, to replace system calls."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def compile_library(source: Path, folder: Path) -> Path:
    """Compile a C file into a library. Skip the test where libraries cannot be preloaded."""
    compiler = os.environ.get("CC") or shutil.which("cc")
    if sys.platform != "linux":
        pytest.skip("LD_PRELOAD is for Linux")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    library = folder / f"{source.stem}.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library
