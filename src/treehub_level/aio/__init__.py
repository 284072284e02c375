"""The asyncio façade: `Level` and what it hands out."""

from .level import Level, Sublevel
from .live import LiveSession
from .reads_writes import Snapshot, WriteBatch

__all__ = ["Level", "LiveSession", "Snapshot", "Sublevel", "WriteBatch"]
