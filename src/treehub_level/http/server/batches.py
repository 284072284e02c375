"""The body of ``POST /v1/{db}/batch``: operations whose values are not decoded."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ... import _core
from ...engine.codec import RepeatedMemberError, decode_json
from ...errors import InvalidValueError, ProtocolError
from ...replication.fields import MAX_NODES, MAX_PUSH
from ...types import Delete, Put
from .bodies import parse_value

#: A member of an object: its name without escapes, and its value.
_MEMBER: Final = re.compile(rb'"([a-z]{1,20})"[ \t\r\n]*:[ \t\r\n]*(.*)', re.DOTALL)
#: The most bytes of the key of an operation in JSON: 1024 bytes of UTF-8, each escaped.
_MAX_KEY: Final = 6 * 1024 + 2
_MEMBERS: Final = 3


class BatchBody(NamedTuple):
    """The operations of a batch.

    Attributes:
        ops: The operations, with encoded values.
        together: True if the changes belong together.
    """

    ops: list[Put | Delete]
    together: bool


def parse_batch(body: bytes) -> BatchBody:
    """Parse a batch: ``{"ops": [{"type", "key", "value"}, …], "together": true}``.

    Values stay text, as in `bodies.parse_value`: parsed, 16 MiB of ``[[],[],…]`` would take 0.5 GB.

    Raises:
        ValueError: The body is not JSON, or a member is repeated.
        ProtocolError: The body is no batch, or has too many operations.
        InvalidValueError: A value cannot be stored.
    """
    members = _members(body, "the body")
    if members is None or not {"ops"} <= members.keys() <= {"ops", "together"}:
        decode_json(body, MAX_NODES)  # raises if it is not JSON
        raise ProtocolError('the body must be {"ops": an array of operations, "together": true or false}')
    together = members.get("together", b"true")
    if together not in (b"true", b"false"):
        raise ProtocolError('"together" is true or false')
    items = _core.split_items(members["ops"], b"[]", MAX_PUSH)
    if items is None:
        raise ProtocolError(f'"ops" must be an array of at most {MAX_PUSH:,} operations: send more of them in parts')
    return BatchBody([_operation(number, item) for number, item in enumerate(items)], together == b"true")


def _members(text: bytes, subject: str) -> dict[str, bytes] | None:
    """Return the members of an object, each value as it is written; ``None`` for another text."""
    members = _core.split_items(text, b"{}", _MEMBERS)
    found = None if members is None else [_MEMBER.fullmatch(member) for member in members]
    if found is None or None in found:
        return None
    named = {member[1].decode(): member[2] for member in found if member is not None}
    if len(named) < len(found):
        raise RepeatedMemberError(f"{subject} names a member twice")
    return named


def _operation(number: int, item: bytes) -> Put | Delete:
    """Parse an operation."""
    members = _members(item, f"the operation {number}") or {}
    key = members.get("key", b"")
    if not key.startswith(b'"') or len(key) > _MAX_KEY:
        raise _malformed(number)
    match members.get("type"):
        case b'"put"' if len(members) == _MEMBERS and "value" in members:
            try:
                return Put(decode_json(key), parse_value(members["value"]))
            except InvalidValueError as error:
                raise InvalidValueError(f"the operation {number}: {error}") from error
        case b'"del"' if len(members) == _MEMBERS - 1:
            return Delete(decode_json(key))
    raise _malformed(number)


def _malformed(number: int) -> ProtocolError:
    return ProtocolError(
        f'the operation {number} (counted from 0) must be {{"type": "put", "key": a key, "value": a value}} or '
        '{"type": "del", "key": a key}'
    )
