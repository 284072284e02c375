"""Where inputs come from: coverage-guided from atheris, or from a seeded mutator over the corpus."""

from __future__ import annotations

import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NoReturn

from .mutator import MAX_BYTES, mutate

#: Which engines run here. atheris has wheels for CPython 3.11 to 3.13 on Linux, x86-64, only.
ENGINES: Final = ["atheris", "mutator"] if find_spec("atheris") is not None else ["mutator"]

#: Inputs of its own that the mutator goes on from, beside the corpus.
_POOL: Final = 200


def run_mutator(
    check: Callable[[bytes], Any], corpus: Sequence[bytes], *, inputs: int | None, seconds: float | None, seed: int
) -> int:
    """Try the corpus, then what becomes of it, until so many inputs or seconds are over.

    Returns:
        How many inputs there were.

    Raises:
        FoundError: One of them.
    """
    rng = random.Random(seed)
    pool = [*corpus]
    ends = None if seconds is None else time.monotonic() + seconds
    count = 0
    while (inputs is None or count < inputs) and (ends is None or count % 64 or time.monotonic() < ends):
        data = (
            corpus[count]
            if count < len(corpus)
            else mutate(rng.choice(corpus if rng.random() < 0.5 else pool), corpus, rng)
        )
        count += 1
        try:
            check(data)
        except Exception as error:
            raise FoundError(data, count) from error
        if count > len(corpus) and rng.random() < 0.1:
            if len(pool) < len(corpus) + _POOL:
                pool.append(data)
            else:
                pool[rng.randrange(len(corpus), len(pool))] = data
    return count


class FoundError(Exception):
    """An input that a harness does not survive.

    Attributes:
        data: The input.
        count: The how-manieth it was.
    """

    def __init__(self, data: bytes, count: int) -> None:
        super().__init__(f"input {count} is a find, for the corpus: {data!r}")
        self.data = data
        self.count = count


def run_atheris(
    check: Callable[[bytes], Any],
    corpus: Sequence[bytes],
    folder: Path,
    *,
    inputs: int | None,
    seconds: float | None,
    seed: int,
) -> NoReturn:
    """Fuzz until so many inputs or seconds are over. It ends the process: with an exit code other than 0 at a find.

    Args:
        check: The harness. What it tests must have been imported within ``atheris.instrument_imports``.
        corpus: What to begin with.
        folder: Where the inputs go that reach new code, and finds.
        inputs: How many inputs; ``None`` for as many as there is time for.
        seconds: How long; ``None`` for as long as it takes.
        seed: Decides everything.
    """
    import atheris

    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(corpus):
        (folder / "corpus" / f"committed-{number:03}").write_bytes(data)
    count = 0

    def check_one(data: bytes) -> None:
        nonlocal count
        count += 1
        try:
            check(data)
        except Exception as error:
            traceback.print_exc()
            print(FoundError(data, count), file=sys.stderr, flush=True)
            raise error

    def change(data: bytes, most: int, changes: int) -> bytes:
        rng = random.Random(changes)
        if rng.random() < 0.5:
            mutated: bytes = atheris.Mutate(data, most)
            return mutated
        return mutate(data, corpus, rng)[:most]

    options = [f"-seed={seed or 1}", f"-max_len={MAX_BYTES}", "-len_control=0", "-timeout=60", "-rss_limit_mb=4096"]
    options += ["-print_final_stats=1", f"-artifact_prefix={folder}{os.sep}"]
    options += [] if inputs is None else [f"-runs={inputs}"]
    options += [] if seconds is None else [f"-max_total_time={max(1, round(seconds))}"]
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus")], check_one, custom_mutator=change)
    atheris.Fuzz()
    raise AssertionError("atheris ends the process")
