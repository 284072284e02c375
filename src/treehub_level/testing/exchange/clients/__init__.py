"""The scenarios for a client, and the server that the runner plays for it.

Each module has the scenarios of one subject, and adds them to `suite.SUITE` when it is imported.
"""

from . import conflicts, fills, groups, history, hostile, optional, ranges, refusals, syncing, unreliable
from .commands import ClientProcess
from .scene import ClientScene
from .suite import SUITE

__all__ = [
    "SUITE",
    "ClientProcess",
    "ClientScene",
    "conflicts",
    "fills",
    "groups",
    "history",
    "hostile",
    "optional",
    "ranges",
    "refusals",
    "syncing",
    "unreliable",
]
