"""What a process that was forked does with the stores that its parent has open: nothing, and it says so.

Their threads do not exist here, their locks may be held for ever, and their files and connections are the parent's. So
these stores refuse every call, and are never freed: freeing one would wait for threads that are gone, or say goodbye
to a database server in the parent's name.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

if TYPE_CHECKING:
    from .store import Store

#: The stores that this process has open, or opens or closes just now.
in_use: Final[WeakSet[Store]] = WeakSet()


def _abandon_all() -> None:
    for store in [*in_use]:
        store.abandon()
        _keep_for_ever(store)
    in_use.clear()


def _keep_for_ever(store: Store) -> None:
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(store))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
