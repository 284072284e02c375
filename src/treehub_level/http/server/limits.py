"""Limits of the server: sizes, times and concurrent operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .refusals import retry_later


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one application. ``docs/http.md`` lists the refusal for each.

    Attributes:
        body_bytes: The largest request body, in bytes, both as sent and after decompression.
        read_only_body_bytes: The same for a token that may not write, and so sends no changes.
        body_seconds: Seconds by which a request body may be late at any time. It is late if fewer
            than `body_rate` bytes arrive in a second.
        body_rate: The least bytes of a request body in a second, in the long run.
        body_idle_seconds: Seconds without a byte of a request body.
        held_bytes: The most bytes of request bodies in memory, over all requests. Bodies of more
            than 64 KiB leave a quarter of it free for others.
        token_held_bytes: The same for all requests of one token.
        per_token: The most concurrent requests of one token, long polls included.
        writes: The most concurrent write requests to one database.
        keep_alive_seconds: Seconds without a change after which a watcher is sent a comment.
        connections: The most connections to ``treehub-level serve``.
        address_connections: The most of them from one address.
        response_bytes: The most bytes of large values and log records in responses in memory, over
            all requests.
        response_share: The most of these bytes of one token.
        response_seconds: Seconds for which a response waits for room in `response_bytes`.
        compressors: The most responses that are compressed piece by piece at a time. Further ones
            are sent without compression.
    """

    body_bytes: int = 16 << 20
    read_only_body_bytes: int = 64 << 10
    body_seconds: float = 20
    body_rate: int = 8 << 10
    body_idle_seconds: float = 10
    held_bytes: int = 256 << 20
    token_held_bytes: int = 64 << 20
    per_token: int = 1000
    writes: int = 64
    keep_alive_seconds: float = 15
    connections: int = 2000
    address_connections: int = 1000
    response_bytes: int = 256 << 20
    response_share: int = 64 << 20
    response_seconds: float = 20
    compressors: int = 64


class ConcurrencyLimiter:
    """Bounds the concurrent operations of each key, such as the requests of each token.

    Args:
        limit: The most concurrent operations of one key.
        status: The HTTP status of a refusal: 429 or 503.
        operations: The operations, as the message of a refusal names them.

    Attributes:
        active: The number of operations in progress by key. Keys without one are absent.
    """

    def __init__(self, limit: int, status: int, operations: str) -> None:
        self._limit = limit
        self._status = status
        self._operations = operations
        self.active: Counter[str] = Counter()

    @contextmanager
    def slot(self, key: str) -> Iterator[None]:
        """Count one operation of a key for the length of the block.

        Raises:
            RefusedError: The limit is reached.
        """
        if self.active[key] >= self._limit:
            raise retry_later(
                self._status,
                "LEVEL_BUSY",
                f"{self._limit} {self._operations} are in progress: try again in a moment",
            )
        self.active[key] += 1
        try:
            yield
        finally:
            self.active[key] -= 1
            if not self.active[key]:
                del self.active[key]
