"""The store without asyncio: ``blocking.Level`` has the verbs of ``treehub_level.Level``, without ``await``.

It is the engine too: the asyncio façade forwards to it.
"""

from ._adopting import stored_mode, upgrade
from ._copying import copy
from ._reading import Snapshot
from ._repairing import Repair, repair
from ._verifying import Verification, verify
from ._writing import WriteBatch
from .level import Level, Sublevel

__all__ = [
    "Level",
    "Repair",
    "Snapshot",
    "Sublevel",
    "Verification",
    "WriteBatch",
    "copy",
    "repair",
    "stored_mode",
    "upgrade",
    "verify",
]
