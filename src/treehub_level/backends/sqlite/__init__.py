"""The SQLite backend: a store in one file."""

from .backend import SQLiteBackend

__all__ = ["SQLiteBackend"]
