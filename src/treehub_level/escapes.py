"""Escapes of characters that change a line, a column, a terminal, or the appearance of a text."""

from __future__ import annotations

import re
from typing import Final

#: Characters that end or split a line, and controls of a terminal: C0, DEL, C1, U+2028, U+2029.
_CONTROL: Final = "\x00-\x1f\x7f-\x9f\u2028\u2029"
#: Characters that show nothing, or that reorder others: those of the Unicode category Cf
#: without the visible ones (such as the Arabic number signs), fillers, tags, and lone surrogates.
#: Variation selectors (U+FE00 to U+FE0F) are not among them: each second emoji has one.
_INVISIBLE: Final = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ud800-\udfff"
)
_CONTROLS: Final = re.compile(f"[{_CONTROL}]")
_UNSAFE: Final = re.compile(f"[{_CONTROL}{_INVISIBLE}]")
#: As `_UNSAFE`, without the tab and the line feed that separate fields and lines.
_UNSAFE_IN_LINES: Final = re.compile(f"(?![\t\n])[{_CONTROL}{_INVISIBLE}]")


def escape_controls(text: str) -> str:
    """Return ``text`` with its control characters escaped as in JSON: one field of a line."""
    return _CONTROLS.sub(_escape, text)


def escape_unsafe(text: str) -> str:
    """Return ``text`` with all controls and invisible characters escaped as in JSON: one line."""
    return _UNSAFE.sub(_escape, text)


def escape_unsafe_in_lines(text: str) -> str:
    """Return lines with all other controls and invisible characters escaped as in JSON.

    A JSON parser reads the escapes in a string as the characters that they stand for.
    """
    return _UNSAFE_IN_LINES.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    """Return the escape of a character in JSON: that of a surrogate pair beyond U+FFFF."""
    code = ord(match[0])
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
