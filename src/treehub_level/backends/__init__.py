"""Stores of bytes: the contract (`base`), those that come with the package, and the registry of all.

Nothing here imports a vendor's library: `registry` does so when a backend is asked for by name.
"""

from __future__ import annotations

from .base import Backend, Batch, Cursor, Entry, Reader, Row, Snapshot, Supports, Transaction
from .memory import MemoryBackend
from .registry import create, register

__all__ = [
    "Backend",
    "Batch",
    "Cursor",
    "Entry",
    "MemoryBackend",
    "Reader",
    "Row",
    "Snapshot",
    "Supports",
    "Transaction",
    "create",
    "register",
]
