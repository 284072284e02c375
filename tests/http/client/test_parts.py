"""Parts of the client that need no server: URLs, server-sent events, `Retry-After`."""

from __future__ import annotations

import pytest

from treehub_level import ProtocolError
from treehub_level.http import RemoteServer
from treehub_level.http.client import events
from treehub_level.http.client.events import Event, EventReader
from treehub_level.http.client.responses import parse_retry_after
from treehub_level.http.client.url import DatabaseURL

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("http://localhost/v1/notes", "http://localhost/v1/notes"),
        ("https://Example.org:8443/v1/a-b_c/", "https://Example.org:8443/v1/a-b_c"),
        ("http://[::1]:80/v1/0", "http://[::1]:80/v1/0"),
        ("https://example.org/api/store/v1/notes", "https://example.org/api/store/v1/notes"),
    ],
)
def test_a_url_is_parsed(url: str, parsed: str) -> None:
    assert DatabaseURL.parse(url).url == parsed


@pytest.mark.parametrize(
    "url",
    [
        "", "notes", "/v1/notes", "ftp://host/v1/notes", "http:///v1/notes", "http://host", "http://host/notes",
        "http://host/v1/", "http://host/v1/Notes", "http://host/v1/notes/exchange", "http://host/v1/notes?x=1",
        "http://host/v1/notes#x", "http://host/v1/../x", "http://host:0/v1/notes", "http://host:x/v1/notes",
        "http://host:99999/v1/notes", "http://ho st/v1/notes", "http://höst/v1/notes", "http://host/v1/no\ntes",
        "http://host/v1/" + "n" * 65, "http://host/v1/-x",
    ],
)  # fmt: skip
def test_an_invalid_url_is_rejected_with_the_required_form(url: str) -> None:
    with pytest.raises(ValueError, match="/v1/NAME"):
        DatabaseURL.parse(url)


def test_a_url_with_a_password_is_rejected_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="token=") as raised:
        DatabaseURL.parse("https://me:hunter2@example.org/v1/notes")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(TypeError):
        DatabaseURL.parse(7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "is_secure"),
    [
        ("https://example.org/v1/x", True),
        ("http://localhost:8080/v1/x", True),
        ("http://127.1.2.3/v1/x", True),
        ("http://[::1]/v1/x", True),
        ("http://app.localhost/v1/x", True),
        ("http://example.org/v1/x", False),
        ("http://192.168.1.5/v1/x", False),
        ("http://localhost.example.org/v1/x", False),
    ],
)
def test_a_token_is_sent_encrypted_or_to_this_machine_only(url: str, is_secure: bool) -> None:
    assert DatabaseURL.parse(url).is_secure == is_secure
    RemoteServer(url)
    RemoteServer(url, token="t", insecure=True)
    if is_secure:
        RemoteServer(url, token="t")
    else:
        with pytest.raises(ValueError, match="insecure=True"):
            RemoteServer(url, token="t")
        with pytest.raises(ValueError, match="insecure=True"):
            RemoteServer(url, token=lambda: "t")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 17 "}, 17.0),
        ({"retry-after": "999999999"}, 3600.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, None),
        ({"retry-after": f"Fri, {2**64} Dec 1999 23:59:59 GMT"}, None),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "Fri, 31 Dec 1999 23:59:29 GMT"}, 30.0),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "Sat, 01 Jan 2000 00:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "Fri, 31 Dec 1999 23:59:29 -0000"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_relative_to_the_servers_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert parse_retry_after(headers) == seconds


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_events_do_not_depend_on_chunk_boundaries(size: int, newline: bytes) -> None:
    texts = ": hello", "", "id: 1", "data: [1,", "data:2]", "", "event: x", "id: 2", "data: z", "", "id: 3", "", "id: 4"
    lines = [text.encode() for text in texts]
    stream = newline.join(lines)
    reader = EventReader()
    parsed = [event for start in range(0, len(stream), size) for event in reader.feed(stream[start : start + size])]
    assert parsed == [Event("1", "[1,\n2]"), Event("2", "z", "x"), Event("3", "")]


def test_an_event_over_the_limit_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_VALUE_BYTES", 1000)
    reader = EventReader()
    reader.feed(b"data: " + b"x" * 900)
    with pytest.raises(ProtocolError, match="more than 1,000 bytes"):
        reader.feed(b"x" * 200)
