"""The strings and brackets of JSON text, so that its size is known before it is parsed.

The counterpart of ``json_structure.pyx``.
"""

from __future__ import annotations

import re
from typing import Final

from .keys import check_bytes

#: The white space of JSON.
WHITE_SPACE: Final = b" \t\n\r"
#: Bytes of text that are split at a time. It bounds the memory for the parts.
_SLICE: Final = 1 << 16
#: A byte with a meaning outside of strings.
_STRUCTURE: Final = re.compile(rb'["\[\]{},]')
#: A part of a string. It has a bounded number of escapes: `re` takes 130 bytes of memory for each.
_IN_STRING: Final = re.compile(rb'[^"\\]*(?:\\.[^"\\]*){0,1000}', re.DOTALL)


def count_nodes(text: bytes) -> int:
    """See ``_core_c.pyi``."""
    check_bytes(text, "JSON text")
    text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    nodes, quoted = 1, False
    for start in range(0, len(text), _SLICE):
        parts = text[start : start + _SLICE].split(b'"')
        outside = b"".join(parts[quoted::2])
        nodes += sum(map(outside.count, (b",", b":", b"[", b"{")))
        quoted ^= len(parts) % 2 == 0
    return nodes


def split_items(text: bytes, brackets: bytes, limit: int) -> list[bytes] | None:
    """See ``_core_c.pyi``."""
    check_bytes(text, "JSON text")
    if brackets not in (b"[]", b"{}"):
        raise ValueError(f"brackets are b'[]' or b'{{}}', not {brackets!r:.80}")
    if type(limit) is not int or limit < 0:
        raise ValueError(f"a limit is an int from 0, not {limit!r:.80}")
    text = text.strip(WHITE_SPACE)
    if len(text) < 2 or text[:1] != brackets[:1] or text[-1:] != brackets[1:]:
        return None
    text = text[1:-1].strip(WHITE_SPACE)
    if not text:
        return []
    cuts = _find_cuts(text, limit)
    if cuts is None:
        return None
    items = [text[start + 1 : end].strip(WHITE_SPACE) for start, end in zip([-1, *cuts], cuts, strict=False)]
    return items if all(items) else None


def _find_cuts(text: bytes, limit: int) -> list[int] | None:
    """Return the end of each item, or None if there are too many or the brackets do not match."""
    cuts: list[int] = []
    depth = position = 0
    while (found := _STRUCTURE.search(text, position)) is not None:
        position = found.end()
        match found[0]:
            case b'"':
                position = string_end(text, position)
                if position < 0:
                    return None
            case b"[" | b"{":
                depth += 1
            case b"]" | b"}":
                depth -= 1
                if depth < 0:
                    return None
            case _ if depth == 0:
                if len(cuts) == limit:
                    return None
                cuts.append(found.start())
    return None if depth or len(cuts) >= limit else [*cuts, len(text)]


def string_end(text: bytes, position: int) -> int:
    """Return the position behind a string that begins before ``position``; -1 if it has no end."""
    while True:
        found = _IN_STRING.match(text, position)
        assert found is not None, "the pattern matches the empty string"
        if text.startswith(b'"', found.end()):
            return found.end() + 1
        if found.end() == position:
            return -1
        position = found.end()
