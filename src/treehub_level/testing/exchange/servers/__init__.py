"""The scenarios for a server: its replies to requests over HTTP.

Each module has the scenarios of one subject, and adds them to `suite.SUITE` when it is imported.
"""

from . import fills, history, pulls, pushes, refusals, rights, waiting, withdrawals
from .scene import ServerScene, ServerUnderTest
from .suite import SUITE

__all__ = [
    "SUITE",
    "ServerScene",
    "ServerUnderTest",
    "fills",
    "history",
    "pulls",
    "pushes",
    "refusals",
    "rights",
    "waiting",
    "withdrawals",
]
