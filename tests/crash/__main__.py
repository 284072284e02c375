"""Kill writers, and check the stores that they leave.

    python -m tests.crash --cycles N --seed S [--power-cut] [--engine NAME]

Exit code 1 if an acknowledged write is lost, or a store contradicts itself.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from collections import Counter
from pathlib import Path

from treehub_level import Mode

from .disk import scratch_folder
from .history import ENGINES
from .killing import Crashing
from .syncing import CrashingPair

#: The engines whose processes are killed. The shim of a power cut knows the files of LevelDB only.
KILLED = [*ENGINES, "sqlite"]
#: The share of cycles that kill a client and a server. The others kill a single writer.
PAIRS = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=1000, help="number of processes to kill")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10**6), help="selects the writes and the times of the kills"
    )
    parser.add_argument("--power-cut", action="store_true", help="also drop all bytes that were not synced")
    parser.add_argument("--engine", choices=KILLED, help="one engine only")
    arguments = parser.parse_args()
    engines = [arguments.engine] if arguments.engine else ENGINES if arguments.power_cut else KILLED
    logging.disable(logging.WARNING)  # unreadable ends of logs are provoked on purpose
    began, counts = time.monotonic(), Counter[str]()
    what = "power cuts" if arguments.power_cut else "kills"
    print(f"seed {arguments.seed}: {arguments.cycles} {what}", flush=True)
    with scratch_folder() as folder:
        try:
            counts += run(folder, engines, arguments.cycles, arguments.seed, power=arguments.power_cut)
        except AssertionError as violation:
            print(f"seed {arguments.seed}: {violation}")
            sys.exit(1)
    safe = "durable" if arguments.power_cut else "acknowledged"
    print(f"nothing {safe} was lost in {time.monotonic() - began:,.0f} s: {dict(counts)}")


def run(folder: Path, engines: list[str], cycles: int, seed: int, *, power: bool) -> Counter[str]:
    """Distribute the cycles over engines and modes.

    Raises:
        AssertionError: An acknowledged or durable write is lost.
    """
    counts: Counter[str] = Counter()
    share = -(-cycles // len(engines))
    for engine in engines:
        pairs = int(share * PAIRS)
        alone = share - pairs
        for number, mode in enumerate((Mode.SERVER, Mode.CLIENT)):
            crashing = Crashing(folder / f"{engine} {mode.value}", engine, mode, seed + number, power=power)
            crashing.run(alone // 2 + (alone % 2 if number else 0))
            counts += crashing.counts
        pair = CrashingPair(folder / f"{engine} pair", engine, Mode.CLIENT, seed + 2, power=power)
        pair.run(pairs)
        counts += pair.counts
    return counts


if __name__ == "__main__":
    main()
