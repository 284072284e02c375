"""The process of one contender, whatever it is written in.

It prepares its workload, says ``{"ready": true}``, and answers each line of its input with one
measurement, such as ``{"seconds": 0.0123}``, until its input ends. If something that it needs is
not installed it says ``{"missing": "..."}`` instead, and ends.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson


class Child:
    """The process, seen from its parent.

    Args:
        label: What it is called if it fails.
        command: What starts it.
        environment: What it finds in its environment beside what is there.
    """

    def __init__(self, label: str, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        self._label = label
        self._process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[1],  # where `benchmarks` can be imported from
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def prepare(self) -> str | None:
        """Wait until it is ready; if it never will be, return what is missing."""
        missing: str | None = self._listen().get("missing")
        return missing

    def measure(self) -> dict[str, float]:
        """Return what it measured in one run: ``seconds``, and whatever else."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self._listen()

    def _listen(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the benchmark {self._label} failed: its own error stands above")
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    def close(self) -> None:
        """End it, and wait."""
        with self._process:  # closes its input
            pass
