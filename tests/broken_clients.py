"""Faults of a client's engine that a test of many processes must find: its controls."""

from __future__ import annotations

from typing import Any, Final

from treehub_level.engine.groups import Groups
from treehub_level.replication.effects import Effects
from treehub_level.replication.journal import LostChange


def _alone(groups: Groups, key: bytes, is_dirty: object) -> list[bytes]:
    """Return a dirty key without those that belong together with it."""
    return [key]


def _journal_conflicts(effects: Effects, lost: LostChange, journal: Any = Effects.journal) -> None:
    """Journal a lost change, unless it was refused."""
    if lost.kind != "refused":
        journal(effects, lost)


#: The faults: a class, the name of its method, and the faulty one. A torn batch is judged and
#: pushed change by change; an unjournaled refusal leaves no record of the change.
FAULTS: Final[dict[str, tuple[type, str, Any]]] = {
    "torn": (Groups, "component", _alone),
    "unjournaled": (Effects, "journal", _journal_conflicts),
}


def inject(name: str) -> None:
    """Put a fault into this process, if ``name`` is that of one."""
    if name in FAULTS:
        setattr(*FAULTS[name])
