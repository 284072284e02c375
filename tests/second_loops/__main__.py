"""The command line for T18, second event loops:

python -m tests.second_loops --rounds 200
"""

from __future__ import annotations

import argparse
import faulthandler
import tempfile
import time
from importlib.util import find_spec
from typing import Final

from treehub_level import MemoryBackend

from .live import LIVE_KINDS
from .rounds import KINDS, Pair

ALL_KINDS: Final = {**KINDS, **LIVE_KINDS}

BACKENDS: Final = ["memory", *(["leveldb"] if find_spec("treehub_level._store_c") else []), "plyvel", "sqlite"]


def main() -> None:
    """Run the rounds of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each kind over each backend")
    rounds = parser.parse_args().rounds
    for backend in BACKENDS:
        for kind in ALL_KINDS:
            began = time.monotonic()
            for _ in range(rounds):
                faulthandler.dump_traceback_later(300, exit=True)
                run(kind, backend)
            print(f"{kind} over {backend}: {rounds} rounds in {time.monotonic() - began:.1f} s", flush=True)


def run(kind: str, backend: str) -> None:
    """Run a round with new stores."""
    made: dict[str, MemoryBackend] = {}
    with tempfile.TemporaryDirectory() as folder:
        chosen = (lambda name: made.setdefault(name, MemoryBackend(name))) if backend == "memory" else backend
        ALL_KINDS[kind](Pair(chosen, f"{folder}/"))


if __name__ == "__main__":
    main()
