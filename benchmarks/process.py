"""The process of a contender, in any language.

The process prepares its workload and writes the line ``{"ready": true}``. Then it runs the workload
once for each line of its stdin, and writes the result, such as ``{"seconds": 0.0123}``. It exits at
the end of stdin. If a dependency is not installed, it writes ``{"missing": "..."}`` and exits.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson


class Child:
    """The parent's handle of the process.

    Args:
        label: The name of the contender for error messages.
        command: The command that starts the process.
        environment: Variables to add to the environment.
    """

    def __init__(self, label: str, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        self._label = label
        self._process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[1],  # so that `benchmarks` can be imported
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def prepare(self) -> str | None:
        """Wait until the process is ready. Return the missing dependency, or ``None``."""
        missing: str | None = self._read_reply().get("missing")
        return missing

    def measure(self) -> dict[str, float]:
        """Run the workload once. Return ``seconds`` and the other figures."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self._read_reply()

    def _read_reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the benchmark {self._label} failed: its traceback is above")
        reply: dict[str, Any] = orjson.loads(line)
        return reply

    def close(self) -> None:
        """End the process, and wait for its exit."""
        with self._process:  # closes stdin
            pass
