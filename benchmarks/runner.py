"""The runner of comparisons: one process per contender; the processes take turns, run by run."""

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
    """The result of one contender.

    Attributes:
        contender: The contender.
        records: The number of records per run.
        figures: The values of each figure, one per run. The duration is ``"seconds"``.
        missing: The reason why the contender could not run, or ``None``.
    """

    contender: Contender
    records: int
    figures: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    missing: str | None = None

    @property
    def seconds(self) -> list[float]:
        """The duration of each run."""
        return self.figures.get("seconds", [])

    @property
    def rate(self) -> float | None:
        """Records per second of the median run; ``None`` without a run."""
        return self.records / median(self.seconds) if self.seconds else None

    def figure(self, name: str) -> float | None:
        """Return the median of a figure; ``None`` without a value."""
        return median(self.figures[name]) if self.figures.get(name) else None


def ratio(result: Result, other: Result) -> float | None:
    """Return the rate of ``result`` divided by that of ``other``; ``None`` unless both ran."""
    if result.rate is None or other.rate is None:
        return None
    return result.rate / other.rate


def run(
    comparison: Comparison,
    *,
    records: int,
    repeat: int,
    install: bool = False,
    on_progress: Callable[[str], object] = lambda text: None,
) -> list[Result]:
    """Run each contender ``repeat`` times, in turns.

    Args:
        comparison: The comparison.
        records: The number of records per run of a contender with the share 1.
        repeat: The number of runs of each contender.
        install: True to build or download missing peers.
        on_progress: Called with a status text before each step.
    """
    with ExitStack() as stack:
        running = []
        results = []
        for contender in comparison.contenders:
            on_progress(f"{comparison.measurement}: preparing {contender.label}")
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
                on_progress(f"{comparison.measurement}: run {turn + 1} of {repeat}, {result.contender.label}")
                for name, value in child.measure().items():
                    result.figures[name].append(value)
    return results


def _start(contender: Contender, records: int) -> Child:
    return Child(
        f"{contender.workload} ({contender.label})",
        [sys.executable, "-m", "benchmarks.child", contender.workload, str(records), contender.engine],
        {"TREEHUB_LEVEL_CORE": contender.core},
    )
