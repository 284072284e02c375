"""The message vectors, and how this library reads the messages in them.

The file ``vectors.json`` beside this module has messages that must be accepted, with their fields,
and messages that must be refused, with the rule that they break. ``docs/testing.md`` explains the
file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ... import _core
from ...backends.base import Entry
from ...errors import ProtocolError
from ...replication.client import is_reply_to
from ...replication.fields import decode_message
from ...replication.messages import Forked, ParsedReply, PulledPage, Request, Reset
from ...replication.wire import Received, decode_reply

#: The name of the file beside this module.
FILE = "vectors.json"


@dataclass(frozen=True)
class MessageVector:
    """A message that must be accepted or refused.

    Attributes:
        name: The name.
        text: The message as it is sent.
        in_lines: True for NDJSON.
        request: The name of the request that a reply answers; empty for a request.
        means: The fields of an accepted message, with defaults for absent ones; else ``None``.
        rule: The rule that a refused message breaks; else empty.
        section: The section of ``docs/protocol.md`` with that rule; else empty.
    """

    name: str
    text: bytes
    in_lines: bool
    request: str
    means: Any
    rule: str
    section: str


@dataclass(frozen=True)
class VectorFile:
    """The content of the file.

    Attributes:
        requests: The requests that replies answer, by name.
        accepted_requests: Requests that a server must answer.
        refused_requests: Requests that a server must refuse.
        accepted_replies: Replies that a client must take.
        refused_replies: Replies that a client must refuse.
    """

    requests: dict[str, dict[str, Any]]
    accepted_requests: list[MessageVector]
    refused_requests: list[MessageVector]
    accepted_replies: list[MessageVector]
    refused_replies: list[MessageVector]


def vectors_text() -> str:
    """Return the text of the file."""
    return (files(__package__) / FILE).read_text(encoding="utf-8")


@cache
def load_vectors() -> VectorFile:
    """Return the vectors of the file."""
    content = json.loads(vectors_text())
    accepted, refused = content["accepted"], content["refused"]
    return VectorFile(
        content["requests"],
        *([*map(_vector, group)] for group in (accepted["requests"], refused["requests"])),
        *([*map(_vector, group)] for group in (accepted["replies"], refused["replies"])),
    )


def _vector(item: Mapping[str, Any]) -> MessageVector:
    return MessageVector(
        item["name"],
        message_bytes(item["text"]),
        item.get("encoding") == "ndjson",
        item.get("request", ""),
        item.get("means"),
        item.get("rule", ""),
        item.get("section", ""),
    )


def message_bytes(text: str | Sequence[Any]) -> bytes:
    """Return the bytes of a message.

    Args:
        text: A string; or pieces to join: strings, ``[string, times]`` and ``{"hex": digits}``.
    """
    if isinstance(text, str):
        return text.encode()
    parts = []
    for piece in text:
        match piece:
            case str():
                parts.append(piece.encode())
            case {"hex": str(digits)}:
                parts.append(bytes.fromhex(digits))
            case [str(repeated), int(times)]:
                parts.append(repeated.encode() * times)
    return b"".join(parts)


def read_request(message: Mapping[str, Any] | bytes) -> Request:
    """Read a request.

    Args:
        message: The request, decoded or as text.

    Raises:
        ProtocolError: It is malformed.
        ValueError: It is not JSON.
    """
    if isinstance(message, bytes):
        return Request.from_dict(decode_message(message), in_records=True)
    return Request.from_dict(message)


def request_fields(request: Request) -> dict[str, Any]:
    """Return the fields of a request, with defaults for absent ones."""
    changes = _core.decode_changes(request.changes) if request.in_records else request.changes
    fields = {"groups": [], "withdraw": [], "read": [], **request.to_dict()}
    del fields["protocol"]
    return {**fields, "changes": [[*change] for change in changes]}


def read_reply(body: bytes, request: Request, *, in_lines: bool = False) -> dict[str, Any]:
    """Read a reply, and return its fields, with defaults for absent ones.

    Args:
        body: The reply.
        request: The request that it answers.
        in_lines: True for NDJSON.

    Raises:
        ProtocolError: It is malformed, contradicts the request, or answers another one.
    """
    reply = decode_reply(Received(body, in_lines), _core.Encoder(_core.KeySpace("!")))
    if not is_reply_to(reply, request):
        raise ProtocolError("the reply answers another request: its nonce or its base is not that of the request")
    return reply_fields(reply)


def reply_fields(reply: ParsedReply) -> dict[str, Any]:
    """Return the fields of a reply, with defaults for absent ones."""
    common = {"kind": reply.kind, "server": reply.server, "nonce": reply.nonce, "base": reply.base}
    match reply:
        case Forked():
            return common
        case Reset():
            decision = {"ack": reply.ack and [*reply.ack], "rejected": reply.rejected}
            return {**common, "common": reply.common, "head": reply.head, **decision}
        case PulledPage():
            return {**common, **_page_fields(reply)}


def _page_fields(page: PulledPage) -> dict[str, Any]:
    changes = _decoded(page.entries)
    fill = page.fill and {name: value for name, value in page.fill.header().items() if name != "count"}
    return {
        "cid": page.cid,
        "head": page.head,
        "more": page.more,
        "epochs": [[*epoch] for epoch in page.epochs],
        "ack": page.ack and [*page.ack],
        "rejected": page.rejected,
        "refused": [[*refusal] for refusal in page.refused],
        "commits": [commit.to_list() for commit in page.commits],
        "page": [[cid, change] for cid, change in zip(page.cids, changes, strict=True)],
        "values": _decoded(page.values),
        "fill": fill,
        "entries": _decoded(page.fill.entries) if page.fill else [],
        "refill": page.refill,
    }


def _decoded(entries: Sequence[Entry]) -> list[list[Any]]:
    return [[*change] for change in _core.decode_changes([_core.join_record(*entry) for entry in entries])]
