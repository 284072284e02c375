"""Requests as a connection reads them: h11 behind the framing."""

from __future__ import annotations

import h11

from treehub_level.http.server.framing import RequestFraming


def framed_requests(data: bytes, limit: int, segment: int) -> list[tuple[str, bytes]]:
    """Return the target and the body of each request that arrives on a connection.

    Args:
        data: The bytes that arrive.
        limit: The most bytes of a head.
        segment: The number of bytes that arrive together.
    """
    framing, connection = RequestFraming(limit), h11.Connection(h11.SERVER)
    read: list[tuple[str, bytes]] = []
    headers: list[tuple[bytes, bytes]] = []
    for start in range(0, len(data), segment):
        framing.receive(data[start : start + segment])
        while framing:
            is_body = connection.their_state is h11.SEND_BODY
            piece = framing.take_body(headers) if is_body else framing.take_head()
            if not piece:
                break
            connection.receive_data(piece)
            while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Request):
                    headers = [*event.headers]
                    read.append((event.target.decode(), b""))
                elif isinstance(event, h11.Data):
                    read[-1] = read[-1][0], read[-1][1] + event.data
                elif isinstance(event, h11.EndOfMessage):
                    connection.send(h11.Response(status_code=204, headers=[]))
                    connection.send(h11.EndOfMessage())
                    if connection.our_state is not h11.DONE:  # the client does not keep the connection
                        return read
                    connection.start_next_cycle()
                    break
    return read
