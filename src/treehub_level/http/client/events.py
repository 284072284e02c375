"""Parsing of server-sent events.

Source: WHATWG HTML standard, "Server-sent events". Only the fields ``id`` and ``data`` are used.
"""

from __future__ import annotations

from typing import NamedTuple

from ...errors import ProtocolError
from .body import MAX_RESPONSE_BYTES


class Event(NamedTuple):
    """A server-sent event. `data` is empty in an event that only advances the last event id."""

    id: str
    data: str


_COMMENT = Event("", "")


class EventReader:
    """An incremental parser that splits a byte stream into events.

    Comments, which the server sends to keep the connection open, are skipped.
    """

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that ``data`` completes.

        Raises:
            ProtocolError: An event is larger than `MAX_RESPONSE_BYTES`, or is not UTF-8.
        """
        *blocks, self._buffer = (self._buffer + data).replace(b"\r\n", b"\n").split(b"\n\n")
        if len(self._buffer) > MAX_RESPONSE_BYTES:
            raise ProtocolError(f"an event from the server has more than {MAX_RESPONSE_BYTES:,} bytes")
        events = map(parse_event, blocks)
        return [event for event in events if event != _COMMENT]


def parse_event(block: bytes) -> Event:
    """Parse the lines of one event.

    Raises:
        ProtocolError: The event is not UTF-8.
    """
    event_id, data = "", []
    try:
        lines = block.decode().split("\n")
    except UnicodeDecodeError as error:
        raise ProtocolError("an event from the server is not UTF-8") from error
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            event_id = value
        elif name == "data":
            data.append(value)
    return Event(event_id, "\n".join(data))
