"""The product under schedules, both kinds (T2): on each message (``product.py``), and of whole programs (``live.py``).

    python -m tests.simulation --schedules 5000
    python -m tests.simulation --seed 42

One seed decides everything: what it printed once, it prints again.
"""

from __future__ import annotations

from collections import Counter

from . import live, product
from .faults import FAILURES
from .runner import main
from .schedule import Trace


def run(seed: int, without: str | None = None, focus: str | None = None, trace: Trace | None = None) -> Counter[str]:
    """Run the schedule of one seed, and the play of it."""
    counts = product.run(seed, without, focus, trace)
    return counts + live.run(seed, without, focus, trace)


if __name__ == "__main__":
    main(run, __doc__ or "", faults=FAILURES)
