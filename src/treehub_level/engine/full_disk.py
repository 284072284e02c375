"""Long jobs on a full disk."""

from __future__ import annotations

from ..errors import StorageError


def smaller_step(size: int, error: StorageError) -> int:
    """Return the size to repeat a failed step with, if the disk has no room for its log.

    A step that frees space takes space itself, for the log: less if it changes fewer rows.

    Args:
        size: The size of the step, from 1.
        error: The failure.

    Raises:
        StorageError: The error, if it has another reason, or the step was as small as possible.
    """
    if not error.is_disk_full or size == 1:
        raise error
    return max(1, size // 4)
