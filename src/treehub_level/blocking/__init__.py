"""The store without asyncio: ``blocking.Level`` has the verbs of ``treehub_level.Level``, without ``await``.

It is the engine too: the asyncio façade forwards to it.
"""

from ..maintenance.convert import stored_mode, upgrade
from ..maintenance.copy import copy
from ..maintenance.repair import Repair, repair
from ..maintenance.verify import Verification, verify
from .level import Level, Sublevel
from .reads import Snapshot
from .writes import WriteBatch

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
