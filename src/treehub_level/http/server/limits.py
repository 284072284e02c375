"""How much the server takes on, of one request and at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of an application. All of them may be changed; ``docs/http.md`` says what happens at each.

    Attributes:
        body_bytes: The most bytes in the body of a request, and after it was decoded.
        body_seconds: Seconds that the body of a request may take to arrive …
        body_rate: … and one more for each so many bytes that did.
        held_bytes: The most bytes of bodies that are held at a time.
        per_token: The most requests of one token at a time; those that wait are among them.
        writes: The most requests at a time that write to one database.
        keep_alive_seconds: Seconds after which a watcher to whom there is nothing to say gets a comment.
    """

    body_bytes: int = 16 << 20
    body_seconds: float = 20
    body_rate: int = 8 << 10
    held_bytes: int = 256 << 20
    per_token: int = 1000
    writes: int = 64
    keep_alive_seconds: float = 15
