"""Runs comparisons: one process for each core, which take turns, repeat by repeat."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from .plan import Comparison, Contender


@dataclass
class Result:
    """What became of one contender.

    Attributes:
        contender: Who it was.
        records: Records of each run.
        seconds: One figure for each run.
        missing: Why it could not run, if it could not.
    """

    contender: Contender
    records: int
    seconds: list[float] = field(default_factory=list)
    missing: str | None = None

    @property
    def rate(self) -> float | None:
        """Records a second, by the median run."""
        return self.records / median(self.seconds) if self.seconds else None


def ratio(result: Result, other: Result) -> float | None:
    """How many times as fast as ``other``; ``None`` unless both have run."""
    if result.rate is None or other.rate is None:
        return None
    return result.rate / other.rate


class Child:
    """The process of one contender (see `benchmarks.child`)."""

    def __init__(self, contender: Contender, records: int) -> None:
        self._label = f"{contender.workload} ({contender.label})"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", contender.workload, str(records)],
            cwd=Path(__file__).parents[1],  # where `benchmarks` can be imported from
            env={**os.environ, "TREEHUB_LEVEL_CORE": contender.core},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def prepare(self) -> str | None:
        """Wait until it is ready; if it never will be, return what is missing."""
        missing: str | None = self._listen().get("missing")
        return missing

    def measure(self) -> float:
        """Return the seconds of one run."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        seconds: float = self._listen()["seconds"]
        return seconds

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


def run(
    comparison: Comparison, *, records: int, repeat: int, say: Callable[[str], object] = lambda text: None
) -> list[Result]:
    """Measure each contender ``repeat`` times, in turns.

    Args:
        comparison: Who is compared.
        records: Records of each run.
        repeat: Runs of each contender.
        say: Told what is going on.
    """
    with ExitStack() as stack:
        running = []
        results = []
        for contender in comparison.contenders:
            say(f"{comparison.measurement}: preparing {contender.label}")
            child = Child(contender, records)
            stack.callback(child.close)
            result = Result(contender, records, missing=child.prepare())
            results.append(result)
            if result.missing is None:
                running.append((child, result))
        for turn in range(repeat):
            for child, result in running:
                say(f"{comparison.measurement}: run {turn + 1} of {repeat}, {result.contender.label}")
                result.seconds.append(child.measure())
    return results
