"""The blocking façade: ``Level`` has the verbs of ``treehub_level.Level``, without ``await``."""

from ..maintenance.convert import stored_mode, upgrade
from ..maintenance.copy import copy
from ..maintenance.repair import Repair, repair
from ..maintenance.restore import restore
from ..maintenance.verify import Verification, verify
from .level import Level, Sublevel, Typed
from .live import LiveSession
from .reads import Snapshot
from .transact import LevelTransaction
from .writes import WriteBatch

__all__ = [
    "Level",
    "LevelTransaction",
    "LiveSession",
    "Repair",
    "Snapshot",
    "Sublevel",
    "Typed",
    "Verification",
    "WriteBatch",
    "copy",
    "repair",
    "restore",
    "stored_mode",
    "upgrade",
    "verify",
]
