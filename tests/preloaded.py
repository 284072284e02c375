"""Libraries that tests preload into processes, to stand between them and the system."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def compiled(source: Path, folder: Path) -> Path:
    """The library that a C file makes; where none can be preloaded or compiled the test is skipped, and says why."""
    compiler = os.environ.get("CC") or shutil.which("cc")
    if sys.platform != "linux":
        pytest.skip("LD_PRELOAD is for Linux")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    library = folder / f"{source.stem}.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library
