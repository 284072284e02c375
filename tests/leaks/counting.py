"""Counting of leaks: blocks of memory, bytes, references and file descriptors.

The counts are meaningful in a process without other work: ``python -m tests.leaks --calls 100000``.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

#: The number of calls that fill every cache.
_WARM_UP_CALLS: Final = 500
#: The growth that is no leak: a cache, an interned name, a reference of the interpreter to 1. A
#: leak grows by one for each call of one kind, so by thousands.
_MAX_BLOCKS: Final = 300
_MAX_BYTES: Final = 3 << 20
_MAX_REFERENCES: Final = 20

#: Calls without arguments, some of which may raise.
Calls = Iterable[Callable[[], object]]


class Growth(NamedTuple):
    """The resources that a process has gained during some calls.

    Attributes:
        blocks: Blocks of Python's allocator.
        bytes: Resident memory of the process; 0 where the system does not report it.
        descriptors: Open file descriptors.
        references: The largest increase of the reference count of a watched object.
    """

    blocks: int
    bytes: int
    descriptors: int
    references: int

    @property
    def is_within_limits(self) -> bool:
        """True if the growth is too small for a leak."""
        return (
            self.blocks <= _MAX_BLOCKS
            and self.bytes <= _MAX_BYTES
            and self.descriptors <= 0
            and self.references <= _MAX_REFERENCES
        )


def count_leaks(calls: Calls, count: int, watched: Iterable[object] = ()) -> Growth:
    """Make calls, and measure the growth.

    Args:
        calls: Functions, which are called in turn.
        count: The number of calls in all.
        watched: Objects whose references are counted, such as the arguments of the calls.
    """
    calls = [*calls]
    watched = [*watched]
    rng = random.Random(1)
    rng.shuffle(calls)
    _make(calls, max(_WARM_UP_CALLS, len(calls) * 2))
    before = _state(watched)
    _make(calls, count)
    after = _state(watched)
    references = max((new - old for old, new in zip(before[3], after[3], strict=True)), default=0)
    return Growth(after[0] - before[0], after[1] - before[1], after[2] - before[2], references)


def _make(calls: list[Callable[[], object]], count: int) -> None:
    for number in range(count):
        with suppress(Exception):  # other tests check the errors; calls that raise must not leak either
            calls[number % len(calls)]()


def _state(watched: list[object]) -> tuple[int, int, int, list[int]]:
    gc.collect()
    references = [sys.getrefcount(item) for item in watched]
    return sys.getallocatedblocks(), _resident(), _descriptors(), references


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except FileNotFoundError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except FileNotFoundError:
        return 0
