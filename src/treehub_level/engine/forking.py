"""Forks: a child process must not use the stores that its parent has open.

The parent's threads do not exist in the child, its locks may be held for ever, and its files and
connections are shared with the child. So these stores refuse every call in the child. They are also
never freed there: freeing one would wait for threads that do not exist, or end a database session
in the parent's name.
"""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet


class _Store(Protocol):
    def disable_after_fork(self) -> None: ...


#: The stores that are open, opening or closing in this process.
in_use: Final[WeakSet[_Store]] = WeakSet()


def _disable_all() -> None:
    for store in [*in_use]:
        store.disable_after_fork()
        _leak(store)
    in_use.clear()


def _leak(store: _Store) -> None:
    """Keep an object alive for the rest of the process."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(store))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disable_all)
