"""The framing of HTTP/1.1 messages: bounds on a head, on the headers of chunks, and on trailers.

h11 limits only an incomplete head, so one that arrives in a single segment may have any size. Its
regular expressions read a field of white space before a forbidden character, and a chunk header
with a bare line feed, in quadratic time. So the end of each part is found before h11 sees it. h11
is given complete heads without forbidden characters, and chunks without extensions and trailers,
which it reads in linear time.
"""

from __future__ import annotations

import re
from typing import Final

#: The most bytes of the header of a chunk, with its extensions and the line break.
MAX_CHUNK_HEADER: Final = 256
#: The most digits of the size of a chunk.
_MAX_SIZE_DIGITS: Final = 15
#: Characters that RFC 9110, section 5.5, forbids in a field, and a CR outside a line break. h11
#: refuses them too, but in quadratic time.
_FORBIDDEN: Final = re.compile(rb"[\0\x0b\x0c]|\r(?!\n)")
_HEX_DIGITS: Final = frozenset(b"0123456789abcdefABCDEF")


class FramingError(Exception):
    """The bytes are no HTTP/1.1 message, or a part of it is too large."""


class HeadReader:
    """Takes complete heads from the bytes of a connection.

    Args:
        most: The most bytes of a head: the first line and the fields, with the blank line.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._searched = 0

    def take(self, buffer: bytearray) -> bytes:
        """Take a head from the beginning of the buffer. Return ``b""`` while it is incomplete.

        Raises:
            FramingError: The head is too large, or has a forbidden character.
        """
        end = _find_blank_line(buffer, self._searched, self._most)
        if (len(buffer) if end < 0 else end) > self._most:
            raise FramingError("the first line and the headers are too large")
        self._searched = max(0, len(buffer) - 2)
        if end < 0:
            return b""
        head = bytes(buffer[:end])
        if _FORBIDDEN.search(head):
            raise FramingError("the head has a forbidden control character")
        del buffer[:end]
        self._searched = 0
        return head


class ChunkedBody:
    """A chunked body. The chunks that arrive together are joined to one.

    Args:
        trailer_bytes: The most bytes of the trailers.

    Attributes:
        is_complete: True once the end of the body was taken.
    """

    def __init__(self, trailer_bytes: int) -> None:
        self.is_complete = False
        self._trailer_bytes = trailer_bytes
        self._left = 0  # bytes of the present chunk, with the line break at its end
        self._in_trailers = False

    def take(self, buffer: bytearray) -> bytes:
        """Take the complete parts of the framing from the buffer, and return the same content."""
        parts: list[bytes] = []
        position = 0
        while position < len(buffer) and not self._in_trailers:
            taken = self._take_data(buffer, position, parts) if self._left else self._take_header(buffer, position)
            if not taken:
                break
            position += taken
        del buffer[:position]
        content = b"".join(parts)
        framed = b"%x\r\n%b\r\n" % (len(content), content) if content else b""
        if self._in_trailers and self._take_trailers(buffer):
            self.is_complete = True
            framed += b"0\r\n\r\n"
        return framed

    def _take_data(self, buffer: bytearray, position: int, parts: list[bytes]) -> int:
        """Append the data of the present chunk to ``parts``. Return the number of bytes taken."""
        data = bytes(buffer[position : position + self._left - 2])
        end = position + len(data)
        if self._left - len(data) > 2:
            self._left -= len(data)
            parts.append(data)
            return len(data)
        if len(buffer) < end + 2:  # the line break is incomplete
            self._left = 2
            parts.append(data)
            return len(data)
        if buffer[end : end + 2] != b"\r\n":
            raise FramingError("a chunk is longer than its size")
        self._left = 0
        parts.append(data)
        return len(data) + 2

    def _take_header(self, buffer: bytearray, position: int) -> int:
        """Read the header of the next chunk. Return the number of bytes taken."""
        end = buffer.find(b"\n", position, position + MAX_CHUNK_HEADER)
        if end < 0:
            if len(buffer) - position >= MAX_CHUNK_HEADER:
                raise FramingError("the header of a chunk is too large")
            return 0
        line = bytes(buffer[position : end + 1])
        digits = line.partition(b";")[0].rstrip(b" \t\r\n")
        if not line.endswith(b"\r\n") or not 0 < len(digits) <= _MAX_SIZE_DIGITS or not _HEX_DIGITS.issuperset(digits):
            raise FramingError("the header of a chunk is malformed")
        size = int(digits, 16)
        self._left = size + 2 if size else 0
        self._in_trailers = not size
        return len(line)

    def _take_trailers(self, buffer: bytearray) -> bool:
        """Drop the trailers, which the application does not use. Return True at their end."""
        end = 2 if buffer[:2] == b"\r\n" else _find_blank_line(buffer, 0, self._trailer_bytes)
        if (len(buffer) if end < 0 else end) > self._trailer_bytes:
            raise FramingError("the trailers are too large")
        if end < 0:
            return False
        del buffer[:end]
        return True


def _find_blank_line(buffer: bytearray, start: int, end: int) -> int:
    """Return the position behind the first blank line between two positions, or -1."""
    found = [
        position + len(line_break)
        for line_break in (b"\n\r\n", b"\n\n")
        if (position := buffer.find(line_break, start, end)) >= 0
    ]
    return min(found, default=-1)
