"""Parsing of server-sent events.

Source: WHATWG HTML standard, "Server-sent events". Only the fields ``id``, ``event`` and ``data``
are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...errors import ProtocolError
from .body import MAX_VALUE_BYTES


class Event(NamedTuple):
    """A server-sent event.

    Attributes:
        id: The id; empty if the event has none.
        data: The data; empty in an event that only advances the last event id.
        kind: The type of the event; empty for a message.
    """

    id: str
    data: str
    kind: str = ""


_COMMENT = Event("", "")


class EventReader:
    """An incremental parser that splits a byte stream into events.

    Comments, which the server sends to keep the connection open, are skipped.
    """

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._rest = bytearray()
        self._size = 0

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that ``data`` completes. Each byte is read once.

        Raises:
            ProtocolError: An event is larger than `MAX_VALUE_BYTES`, or is not UTF-8.
        """
        events = []
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._count(len(end) + 1)
            line = bytes(self._rest + end).removesuffix(b"\r")
            self._rest.clear()
            if line:
                if line.startswith((b"id", b"event", b"data")):
                    self._lines.append(line)
                continue
            event, self._lines, self._size = parse_event(self._lines), [], 0
            if event != _COMMENT:
                events.append(event)
        self._count(len(rest))
        self._rest += rest
        return events

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > MAX_VALUE_BYTES:
            raise ProtocolError(f"an event from the server has more than {MAX_VALUE_BYTES:,} bytes")


def parse_event(lines: Sequence[bytes]) -> Event:
    """Parse the lines of one event.

    Raises:
        ProtocolError: The event is not UTF-8.
    """
    event_id, kind, data = "", "", []
    for line in lines:
        try:
            name, _, value = line.decode().partition(":")
        except UnicodeDecodeError as error:
            raise ProtocolError("an event from the server is not UTF-8") from error
        value = value.removeprefix(" ")
        if name == "id":
            event_id = value
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
    return Event(event_id, "\n".join(data), kind)
