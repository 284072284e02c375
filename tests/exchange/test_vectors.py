"""The message vectors: this library reads them as they say, and the file is the golden one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from golden import message_vectors

from treehub_level import MemoryBackend, blocking
from treehub_level.errors import ProtocolError
from treehub_level.testing.exchange.clients import SUITE as CLIENT_SUITE
from treehub_level.testing.exchange.servers import SUITE as SERVER_SUITE
from treehub_level.testing.exchange.vectors import (
    MessageVector,
    load_vectors,
    message_bytes,
    read_reply,
    read_request,
    request_fields,
    vectors_text,
)

VECTORS = load_vectors()
PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def named(vectors: list[MessageVector]) -> pytest.MarkDecorator:
    """Parameters of a test, with the names of the vectors."""
    return pytest.mark.parametrize("vector", [pytest.param(vector, id=vector.name) for vector in vectors])


def test_the_file_has_the_golden_messages() -> None:
    assert vectors_text() == message_vectors.file_text()


def test_vectors_and_scenarios_name_sections_of_the_protocol() -> None:
    sections = {*re.findall(r"^##+ (.*)$", PROTOCOL, re.MULTILINE)}
    named = {vector.section for vector in [*VECTORS.refused_requests, *VECTORS.refused_replies]}
    named |= {scenario.section for suite in (SERVER_SUITE, CLIENT_SUITE) for scenario in suite.scenarios.values()}
    assert named <= sections


@named(VECTORS.accepted_requests)
def test_an_accepted_request_is_read(vector: MessageVector) -> None:
    assert request_fields(read_request(vector.text)) == vector.means


@named(VECTORS.refused_requests)
def test_a_refused_request_is_refused_by_a_server(vector: MessageVector) -> None:
    memory = MemoryBackend("server")
    with blocking.Level("server", backend=lambda _: memory, mode=blocking.Level.SERVER) as server:
        with pytest.raises((ProtocolError, ValueError)):
            server.exchange_encoded(read_request(vector.text))
        assert server.cid == 0


@named(VECTORS.accepted_replies)
def test_an_accepted_reply_is_read(vector: MessageVector) -> None:
    request = read_request(VECTORS.requests[vector.request])
    assert read_reply(vector.text, request, in_lines=vector.in_lines) == vector.means


@named(VECTORS.refused_replies)
def test_a_refused_reply_is_refused_by_a_client(vector: MessageVector) -> None:
    request = read_request(VECTORS.requests[vector.request])
    with pytest.raises(ProtocolError):
        read_reply(vector.text, request, in_lines=vector.in_lines)


def test_a_text_may_be_in_pieces() -> None:
    assert message_bytes(['["', ["ab", 3], {"hex": "c3a9"}, '"]']) == '["abababé"]'.encode()
