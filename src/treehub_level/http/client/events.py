"""Server-sent events: text lines that say what happens, one event after the other."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import ProtocolError
from .body import MAX_REPLY


class Event(NamedTuple):
    """One event: its id, and its data."""

    id: str
    data: str


_COMMENT = Event("", "")


class EventReader:
    """Cuts a stream into events, whatever pieces it comes in. Comments, which keep a connection open, are skipped.

    An event may be an id alone, which says how far the stream has come.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Event]:
        """The events that end in ``data``.

        Raises:
            ProtocolError: One that is too long, or is no text.
        """
        *blocks, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
        if len(self._rest) > MAX_REPLY:
            raise ProtocolError(f"an event of the server has more than {MAX_REPLY:,} bytes")
        events = map(_parse, blocks)
        return [event for event in events if event != _COMMENT]


def _parse(block: bytes) -> Event:
    identity, data = "", []
    try:
        lines = block.decode().split("\n")
    except UnicodeDecodeError as error:
        raise ProtocolError("an event of the server is no text") from error
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            identity = value
        elif name == "data":
            data.append(value)
    return Event(identity, "\n".join(data))
