"""The error of a full disk, and the writes that go on there."""

from __future__ import annotations

import errno
from typing import Final

from ..errors import StorageError
from .base import Batch

#: Bytes of metadata that a write which deletes data may add for each deleted key: the log record of
#: a delete holds the key.
_RECORD_BYTES: Final = 2048


def disk_full_error(message: str, *, refusal: bool = False) -> StorageError:
    """Return the error of a full disk.

    Args:
        message: The message of the error.
        refusal: See `StorageError.is_refusal`.
    """
    error = StorageError(message)
    error.errno = errno.ENOSPC
    error.is_refusal = refusal
    return error


def frees_space(batch: Batch) -> bool:
    """Return True if a batch deletes more than it writes."""
    values = dict(batch).values()
    deletes = sum(value is None for value in values)
    written = sum(len(value) for value in values if value is not None)
    return bool(deletes) and written <= _RECORD_BYTES * (deletes + 1)
