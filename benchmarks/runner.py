"""Runs comparisons: one process for each contender, which take turns, repeat by repeat."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median

from . import peers
from .plan import Comparison, Contender
from .process import Child


@dataclass
class Result:
    """What became of one contender.

    Attributes:
        contender: Who it was.
        records: Records of each run.
        figures: For each thing measured, ``"seconds"`` among them, one figure for each run.
        missing: Why it could not run, if it could not.
    """

    contender: Contender
    records: int
    figures: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    missing: str | None = None

    @property
    def seconds(self) -> list[float]:
        """One figure for each run."""
        return self.figures.get("seconds", [])

    @property
    def rate(self) -> float | None:
        """Records a second, by the median run."""
        return self.records / median(self.seconds) if self.seconds else None

    def figure(self, name: str) -> float | None:
        """The median of a figure; ``None`` if it was not told."""
        return median(self.figures[name]) if self.figures.get(name) else None


def ratio(result: Result, other: Result) -> float | None:
    """How many times as fast as ``other``; ``None`` unless both have run."""
    if result.rate is None or other.rate is None:
        return None
    return result.rate / other.rate


def run(
    comparison: Comparison,
    *,
    records: int,
    repeat: int,
    install: bool = False,
    say: Callable[[str], object] = lambda text: None,
) -> list[Result]:
    """Measure each contender ``repeat`` times, in turns.

    Args:
        comparison: Who is compared.
        records: Records of each run of a contender whose share is 1.
        repeat: Runs of each contender.
        install: Build or fetch what is not there.
        say: Told what is going on.
    """
    with ExitStack() as stack:
        running = []
        results = []
        for contender in comparison.contenders:
            say(f"{comparison.measurement}: preparing {contender.label}")
            result = Result(contender, max(1, int(records * contender.share)))
            results.append(result)
            if contender.peer is not None:
                result.missing = peers.missing(contender.peer, install=install)
            if result.missing is None:
                child = _start(contender, result.records)
                stack.callback(child.close)
                result.missing = child.prepare()
                if result.missing is None:
                    running.append((child, result))
        for turn in range(repeat):
            for child, result in running:
                say(f"{comparison.measurement}: run {turn + 1} of {repeat}, {result.contender.label}")
                for name, value in child.measure().items():
                    result.figures[name].append(value)
    return results


def _start(contender: Contender, records: int) -> Child:
    return Child(
        f"{contender.workload} ({contender.label})",
        [sys.executable, "-m", "benchmarks.child", contender.workload, str(records), contender.engine],
        {"TREEHUB_LEVEL_CORE": contender.core},
    )
