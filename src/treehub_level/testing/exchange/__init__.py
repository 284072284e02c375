"""The conformance of the exchange: tests for clients and servers in any language.

    python -m treehub_level.testing.exchange server URL --token TOKEN
    python -m treehub_level.testing.exchange client -- PROGRAM ARGUMENT…
    python -m treehub_level.testing.exchange vectors

``docs/testing.md`` explains the scenarios, the commands of a client, and the message vectors.
"""

from .runs import run_client, run_server
from .scenarios import ConformanceError, Outcome
from .servers import ServerUnderTest
from .vectors import MessageVector, load_vectors

__all__ = [
    "ConformanceError",
    "MessageVector",
    "Outcome",
    "ServerUnderTest",
    "load_vectors",
    "run_client",
    "run_server",
]
