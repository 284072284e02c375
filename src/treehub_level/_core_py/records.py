"""Change records: join and split without decoding the value. The counterpart of ``records.pyx``."""

from __future__ import annotations

import re
from typing import Final

import orjson

from .json_structure import WHITE_SPACE, string_end
from .keys import MAX_CID, check_bytes, decode_key, encode_key, quoted

#: `[cid,record]`.
_ROW: Final = re.compile(rb"\[([1-9][0-9]{0,15}),(.+)\]", re.DOTALL)


def encode_json_key(key: bytes) -> bytes:
    """See ``_core_c.pyi``."""
    return orjson.dumps(decode_key(key))


def join_record(key: bytes, value: bytes | None) -> bytes:
    """See ``_core_c.pyi``."""
    if value is None:
        return b"[%b]" % encode_json_key(key)
    check_bytes(value, "a value in bytes")
    return b"[%b,%b]" % (encode_json_key(key), value)


def split_record(record: bytes) -> tuple[bytes, bytes | None]:
    """See ``_core_c.pyi``."""
    check_bytes(record, "a change record")
    text = record.strip(WHITE_SPACE)
    inner = text[1:-1].strip(WHITE_SPACE)
    end = string_end(inner, 1) if text[:1] == b"[" and text[-1:] == b"]" and inner[:1] == b'"' else -1
    rest = inner[end:].lstrip(WHITE_SPACE)
    value = rest[1:].lstrip(WHITE_SPACE) if rest else None
    if end < 0 or value == b"" or (rest and rest[:1] != b","):
        raise ValueError(f"{quoted(record)} is not a change record: it is neither [key] nor [key,value]")
    try:
        # The string is checked by the JSON parser, not here.
        key = orjson.loads(inner[:end])
    except orjson.JSONDecodeError as error:
        raise ValueError(
            f"{quoted(record)} is not a change record: its key is not a JSON string: {error.msg}"
        ) from None
    return encode_key(key), value


def split_rows(rows: list[bytes]) -> list[tuple[int, bytes]] | None:
    """See ``_core_c.pyi``."""
    numbered: list[tuple[int, bytes]] = []
    for row in rows:
        check_bytes(row, "a row")
        parts = _ROW.fullmatch(row)
        if parts is None or int(parts[1]) > MAX_CID:
            return None
        numbered.append((int(parts[1]), parts[2]))
    return numbered
