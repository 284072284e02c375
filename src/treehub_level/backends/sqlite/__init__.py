"""Stores in one file of SQLite."""

from .backend import SQLiteBackend

__all__ = ["SQLiteBackend"]
