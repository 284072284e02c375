"""Counts what calls leave behind: blocks of memory, bytes, references, descriptors. In a process of its own.

python -m tests.leaks --calls 100000
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

#: Calls after which every cache is filled.
_WARM: Final = 500
#: What may be left whatever happens: a cache that grows, an interned name, somebody else's reference to 1. What leaks
#: leaves one for each call of one kind, and there are thousands of these.
_BLOCKS: Final = 300
_BYTES: Final = 3 << 20
_REFERENCES: Final = 20

#: Calls without arguments, some of which may raise.
Calls = Iterable[Callable[[], object]]


class Left(NamedTuple):
    """What some calls have left behind, in comparison with as many before them.

    Attributes:
        blocks: Blocks of Python's own allocator.
        bytes: Of the memory that the process has resident; 0 where the system does not tell.
        descriptors: Open files.
        references: The most that were added to any of the objects that were watched.
    """

    blocks: int
    bytes: int
    descriptors: int
    references: int

    @property
    def is_flat(self) -> bool:
        """Whether that is nothing."""
        return (
            self.blocks <= _BLOCKS and self.bytes <= _BYTES and self.descriptors <= 0 and self.references <= _REFERENCES
        )


def leftovers(calls: Calls, count: int, watched: Iterable[object] = ()) -> Left:
    """Make so many calls, and count what is left.

    Args:
        calls: What is called in turn.
        count: How many calls in all.
        watched: Objects whose references are counted: the arguments of the calls, say.
    """
    calls = [*calls]
    watched = [*watched]
    rng = random.Random(1)
    rng.shuffle(calls)
    _make(calls, max(_WARM, len(calls) * 2))
    before = _state(watched)
    _make(calls, count)
    after = _state(watched)
    references = max((new - old for old, new in zip(before[3], after[3], strict=True)), default=0)
    return Left(after[0] - before[0], after[1] - before[1], after[2] - before[2], references)


def _make(calls: list[Callable[[], object]], count: int) -> None:
    for number in range(count):
        with suppress(Exception):  # whether it should raise is tested elsewhere; what it leaves then, here
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
