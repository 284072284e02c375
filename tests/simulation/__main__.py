"""The product under both kinds of schedules (T2).

``product.py`` decides on each message, ``live.py`` runs whole programs.

    python -m tests.simulation --schedules 5000
    python -m tests.simulation --seed 42

One seed decides everything: the same seed prints the same trace.
"""

from __future__ import annotations

from collections import Counter

from . import live, product
from .faults import FAILURES
from .runner import main
from .schedule import Trace


def run(seed: int, without: str | None = None, focus: str | None = None, trace: Trace | None = None) -> Counter[str]:
    """Run both kinds of schedule for one seed."""
    counts = product.run(seed, without, focus, trace)
    return counts + live.run(seed, without, focus, trace)


if __name__ == "__main__":
    main(run, __doc__ or "", faults=FAILURES)
