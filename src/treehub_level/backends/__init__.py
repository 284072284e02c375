"""Backends: the contract (`base`), the built-in backends, and the registry of backend names.

Importing this package imports no vendor's library; the registry does so when a backend is
requested.
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
