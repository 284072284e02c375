"""Harnesses for the decoders of messages, files and command-line arguments, without a store.

Each harness takes any bytes. It raises if a decoder refuses them with an unexpected error.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

import typer
from starlette.requests import Request as HTTPRequest

from treehub_level import InvalidValueError, Level, LevelError, ProtocolError, StorageError, _core, blocking
from treehub_level.cli.errors import CommandError
from treehub_level.cli.lines import read_records
from treehub_level.cli.records import parse_value
from treehub_level.cli.tokens import token_document, token_fields
from treehub_level.engine.codec import decode_json
from treehub_level.http import Tokens
from treehub_level.http.client.body import MAX_PAGE_BYTES, BodyDecoder, NoResponseError
from treehub_level.http.client.events import EventReader
from treehub_level.http.client.responses import (
    DamagedResponseError,
    ServerResponse,
    parse_changes,
    parse_retry_after,
    read_document,
    read_lines,
)
from treehub_level.http.client.url import DatabaseURL
from treehub_level.http.server import bodies as request_bodies
from treehub_level.http.server import query
from treehub_level.http.server.bodies import CONTENT_DECODERS, parse_body
from treehub_level.http.server.refusals import RefusedError
from treehub_level.replication import wire
from treehub_level.replication.fields import decode_message
from treehub_level.replication.messages import Request, encode_changes
from treehub_level.types import Put

_ENCODER: Final = _core.Encoder(_core.KeySpace("!"))
#: The largest decompressed body in these harnesses, in bytes.
_LIMIT: Final = 1 << 16


@contextmanager
def refused_by(*kinds: type[Exception]) -> Iterator[None]:
    """Suppress these errors if their messages are short. Any other error is a finding."""
    try:
        yield
    except kinds as refusal:
        if len(str(refusal)) > 1000:
            raise AssertionError("the length of the message depends on the input") from refusal
        if isinstance(refusal, RefusedError) and refusal.status != 400:
            raise AssertionError(f"status {refusal.status}") from refusal


def requests(data: bytes) -> None:
    """A request of the exchange, as a server reads it."""
    try:
        document = decode_json(data)
    except ValueError:
        document = None
    try:
        request = Request.from_dict(document)
        entries = encode_changes(request.changes, _ENCODER)
    except ProtocolError:
        request = None
    try:
        received = Request.from_dict(decode_message(data), in_records=True)
        pushed = encode_changes(received.changes, _ENCODER, in_records=True)
    except (ProtocolError, ValueError):
        assert request is None, "a server refuses a request that is valid"
        return
    assert request is not None, "a server accepts a request that is not valid"
    assert pushed == entries
    again = Request.from_dict(decode_json(wire.request_to_json(request)))
    assert again.to_dict() == request.to_dict()


def replies(data: bytes) -> None:
    """A reply of the exchange, as a client reads it: a document, and lines."""
    for in_lines in (False, True):
        with refused_by(ProtocolError):
            wire.decode_reply(wire.Received(data, in_lines), _ENCODER)


def responses(data: bytes) -> None:
    """An HTTP response, as a client reads it: the status, headers, an empty line, the body."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    status = int(first) if first.isascii() and first.isdigit() and len(first) == 3 else 200
    headers = {name.lower(): value for name, _, value in (line.partition(":") for line in lines)}
    with refused_by(LevelError, NoResponseError, DamagedResponseError):
        response = ServerResponse(status, headers)
        reader = BodyDecoder(headers, response.max_bytes(MAX_PAGE_BYTES))
        reader.feed(body, 0.0)
        reader.finish()
        response = response.with_body(reader.body)
        assert len(response.body) <= MAX_PAGE_BYTES
        retry_after = parse_retry_after(headers)
        assert retry_after is None or 0 <= retry_after <= 3600
        parse_changes(read_document(response, "http://localhost/v1/notes", "secret"), 0, 1000)
        wire.decode_reply(read_lines(response), _ENCODER)
    with refused_by(ProtocolError):
        EventReader().feed(body)


def bodies(data: bytes) -> None:
    """The body of a request: plain, and compressed."""
    for decode in (lambda packed, _: packed, *CONTENT_DECODERS.values()):
        with refused_by(RefusedError):
            plain = decode(data, _LIMIT)
            assert len(plain) <= len(data) + _LIMIT + (128 << 10), "a small body was decompressed beyond the limit"
            for parse in (decode_message, request_bodies.parse_value):
                with refused_by(RefusedError, InvalidValueError):
                    parse_body(plain, parse)


def urls(data: bytes) -> None:
    """The parts of a URL: a key, parameters, and the address of a server."""
    path, _, parameters = data.partition(b"?")
    request = HTTPRequest(
        {
            "type": "http",
            "query_string": parameters,
            "path_params": {"db": "notes", "key": path.decode("latin-1")},
            "headers": [],
        }
    )
    readers: dict[str, Callable[[str], Any]]
    readers = {
        "since": query.parse_cid,
        "limit": query.parse_limit,
        "wait": query.parse_wait,
        "gte": str,
        "prefix": str,
    }
    with refused_by(RefusedError):
        query.parse_key(request)
    with refused_by(RefusedError):
        query.parse_parameters(request, readers)
    try:
        address = DatabaseURL.parse(data.decode(errors="surrogateescape"))
    except ValueError:
        return
    assert DatabaseURL.parse(address.url) == address
    assert address.is_secure in (True, False)


def lines(data: bytes) -> None:
    """JSON Lines, as ``load`` reads them."""
    for key_field in (None, "id"):
        with refused_by(CommandError, LevelError):
            records = [*read_records(io.BytesIO(data), "stdin", key_field)]
            _core.Encoder().ops([Put(record.key, record.value) for record in records])
            for record in records:
                if isinstance(record.value, bytes):
                    assert bytes(_core.json_value(bytes(record.value))) == record.value


def arguments(data: bytes) -> None:
    """The arguments of ``put``, a key and a value. Bytes that are not UTF-8 become surrogates."""
    typed = data.replace(b"\0", b"").decode("utf-8", "surrogateescape")  # an argument cannot hold a NUL
    key, _, text = typed.partition(" ")
    for string in (False, True):
        with (
            refused_by(CommandError, LevelError, typer.BadParameter),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(data))),
            blocking.Level("arguments", backend="memory", mode=Level.SERVER) as level,
        ):
            value = parse_value(text, string)
            level.put(key, value)
            assert level.get(key) == value


class TokensFile:
    """The harness of the token file, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tokens"

    def __call__(self, data: bytes) -> None:
        """Read any bytes as a token file: no guess opens it, and each token can be listed."""
        self._path.write_bytes(data)
        self._path.chmod(0o600)
        tokens = Tokens(self._path)
        try:
            known = tokens.all()
        except StorageError:
            return
        for token in known:
            assert tokens.find(f"{token.id}.guessed") is None
            token.access.check_write([token.prefix.encode()]) if token.write else None
            token_fields(token)
            token_document(token)


#: The harnesses that need no folder.
HARNESSES: Final[dict[str, Callable[[bytes], Any]]] = {
    check.__name__: check for check in (requests, replies, responses, bodies, urls, lines, arguments)
}
