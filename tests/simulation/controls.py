"""The first seed that finds each control, so that the suite need not search for it.

A change of the code moves these seeds. The tests then search again, as long as it takes, up to
their limit; `python -m tests.simulation.controls` finds and writes the new seeds. A control without
a seed is rare: the suite has not the time to find it, and `make soak ROWS=T2-controls` searches it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from . import live, model, product
from .configuration import MECHANISMS
from .faults import FAILURES
from .runner import Run, first_violation

FILE = Path(__file__).with_name("control_seeds.json")
RUNS: dict[str, Run] = {"live": live.run, "model": model.run, "product": product.run}
#: The faults that are put into live sessions.
LIVE = (
    *("compare_and_clean", "decision_record", "epochs", "rejected_in_repeats", "absent_in_piece"),
    *("order after CID 9", "keys above U+FFFF"),
)
#: Schedules for each control. Most fail within a hundred; mechanisms against rare faults need more.
LIMIT = 4000


def known_seed(program: str, control: str) -> int | None:
    """Return a seed that finds a control of a program; ``None`` for a rare control."""
    seeds: dict[str, dict[str, int | None]] = json.loads(FILE.read_text(encoding="utf-8"))
    return seeds[program][control]


def control_is_found(program: str, control: str, limit: int = LIMIT) -> bool:
    """Return True if a schedule of a program fails with a mechanism removed or a fault put in.

    Args:
        program: One of `RUNS`.
        control: The mechanism or the fault.
        limit: The number of schedules to try.
    """
    known = known_seed(program, control)
    return _find(program, control, [*([] if known is None else [known]), *range(limit)]) is not None


def _find(program: str, control: str, seeds: Sequence[int]) -> int | None:
    focus = control if control in MECHANISMS else None
    found = first_violation(seeds, RUNS[program], without=control, focus=focus)
    return found and found[0]


def _first_seed(job: tuple[str, str]) -> int | None:
    return _find(*job, range(LIMIT))


def main() -> None:
    """Find and write the first seed of each control."""
    controls = {"live": LIVE, "model": sorted(MECHANISMS), "product": sorted({*MECHANISMS, *FAILURES})}
    jobs = [(program, control) for program, names in controls.items() for control in names]
    seeds: dict[str, dict[str, int | None]] = {program: {} for program in controls}
    with ProcessPoolExecutor() as pool:
        for (program, control), seed in zip(jobs, pool.map(_first_seed, jobs), strict=True):
            print(program, control, seed, flush=True)
            seeds[program][control] = seed
    FILE.write_text(json.dumps(seeds, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    missing = [
        f"{program}: {control}" for program, found in seeds.items() for control in found if found[control] is None
    ]
    if missing:
        sys.exit(f"not found within {LIMIT} schedules: {', '.join(missing)}")


if __name__ == "__main__":
    main()
