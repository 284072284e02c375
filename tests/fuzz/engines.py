"""The sources of inputs: coverage-guided atheris, or a seeded mutator over the corpus."""

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

#: The engines installed here. atheris has wheels for CPython 3.11 to 3.13 on Linux x86-64 only.
ENGINES: Final = ["atheris", "mutator"] if find_spec("atheris") is not None else ["mutator"]

#: The number of its own inputs that the mutator keeps and mutates again.
_POOL: Final = 200


def run_mutator(
    check: Callable[[bytes], Any], corpus: Sequence[bytes], *, inputs: int | None, seconds: float | None, seed: int
) -> int:
    """Check the inputs of the corpus, then mutated inputs, up to a number of inputs or seconds.

    Returns:
        The number of inputs that were checked.

    Raises:
        FindingError: The harness failed for an input.
    """
    rng = random.Random(seed)
    pool = [*corpus]
    deadline = None if seconds is None else time.monotonic() + seconds
    count = 0
    while (inputs is None or count < inputs) and (deadline is None or count % 64 or time.monotonic() < deadline):
        data = (
            corpus[count]
            if count < len(corpus)
            else mutate(rng.choice(corpus if rng.random() < 0.5 else pool), corpus, rng)
        )
        count += 1
        try:
            check(data)
        except Exception as error:
            raise FindingError(data, count) from error
        if count > len(corpus) and rng.random() < 0.1:
            if len(pool) < len(corpus) + _POOL:
                pool.append(data)
            else:
                pool[rng.randrange(len(corpus), len(pool))] = data
    return count


class FindingError(Exception):
    """An input for which a harness fails.

    Attributes:
        data: The input.
        count: The number of the input, from 1.
    """

    def __init__(self, data: bytes, count: int) -> None:
        super().__init__(f"input {count} is a finding, for the corpus: {data!r}")
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
    """Fuzz up to a number of inputs or seconds, and end the process.

    The exit code is 0 if there was no finding.

    Args:
        check: The harness. The modules under test must have been imported within
            ``atheris.instrument_imports``.
        corpus: The first inputs.
        folder: The folder for findings, and for inputs that reach new code.
        inputs: The number of inputs; ``None`` for no limit.
        seconds: The duration; ``None`` for no limit.
        seed: A number that determines all random choices.
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
            print(FindingError(data, count), file=sys.stderr, flush=True)
            raise error

    def mutate_one(data: bytes, max_size: int, mutation_seed: int) -> bytes:
        rng = random.Random(mutation_seed)
        if rng.random() < 0.5:
            mutated: bytes = atheris.Mutate(data, max_size)
            return mutated
        return mutate(data, corpus, rng)[:max_size]

    options = [f"-seed={seed or 1}", f"-max_len={MAX_BYTES}", "-len_control=0", "-timeout=60", "-rss_limit_mb=4096"]
    options += ["-print_final_stats=1", f"-artifact_prefix={folder}{os.sep}"]
    options += [] if inputs is None else [f"-runs={inputs}"]
    options += [] if seconds is None else [f"-max_total_time={max(1, round(seconds))}"]
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus")], check_one, custom_mutator=mutate_one)
    atheris.Fuzz()
    raise AssertionError("atheris ends the process")
