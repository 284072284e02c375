"""The asyncio façade: `Level`, and the sublevels, snapshots, batches and live sessions it makes."""

from .level import Level, Sublevel, Typed
from .live import LiveSession
from .reads_writes import Snapshot, WriteBatch

__all__ = ["Level", "LiveSession", "Snapshot", "Sublevel", "Typed", "WriteBatch"]
