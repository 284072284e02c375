"""Rules that each request of a client keeps, checked on all requests of a scenario."""

from __future__ import annotations

from typing import Any

from ..scenarios import ConformanceError


class RequestAudit:
    """Checks the requests that a server gets, and remembers the first fault.

    Attributes:
        fault: The first fault; ``None`` if there is none.
    """

    def __init__(self) -> None:
        self.fault: ConformanceError | None = None
        self._bodies: dict[str, bytes] = {}
        self._pushes: dict[tuple[str, int], dict[str, Any]] = {}

    def note_malformed(self, body: bytes, error: Exception) -> None:
        """Note a request that is malformed."""
        self.note(f"a well-formed request: {error}", body.decode(errors="replace"))

    def check(self, body: bytes, request: dict[str, Any]) -> None:
        """Check a request.

        Args:
            body: The request as it was sent.
            request: Its fields, with defaults for absent ones.
        """
        if self._bodies.setdefault(request["nonce"], body) != body:
            self.note("a new nonce for each request; a retry repeats the whole request", request)
        if request["push"] is not None:
            self._check_push(request)
            if request["fill"] is not None:
                self.note("a request that pushes, or asks for a part of a range, and not both", request)

    def _check_push(self, request: dict[str, Any]) -> None:
        """Check that all copies of a push are the same, and the numbers of pushes rise."""
        of_client = [seq for client, seq in self._pushes if client == request["client"]]
        frozen = self._pushes.setdefault((request["client"], request["seq"]), request)
        if frozen is request and of_client and request["seq"] < max(of_client):
            self.note("a push with a higher seq than the one before", request)
        if frozen["push"] != request["push"]:
            self.note("another seq for another push", request)
        if request["withdraw"] or frozen["withdraw"]:
            return
        for name in ("changes", "groups", "cid"):
            if frozen[name] != request[name]:
                self.note(f'a frozen push that is sent again with the same "{name}", until it is decided', request)

    def note(self, expected: str, request: object) -> None:
        """Remember a fault, if it is the first.

        Args:
            expected: The behaviour that the protocol asks for.
            request: The request that lacks it.
        """
        if self.fault is None:
            self.fault = ConformanceError(expected, received=request)
