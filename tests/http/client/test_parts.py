"""The parts of the client that need no server: addresses, events, Retry-After, what is imported when."""

from __future__ import annotations

import subprocess
import sys

import pytest

from treehub_level import ProtocolError
from treehub_level.http.client import events as _events
from treehub_level.http.client.address import DatabaseURL
from treehub_level.http.client.events import Event, EventReader
from treehub_level.http.client.responses import read_retry_after

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("http://localhost/v1/notes", "http://localhost/v1/notes"),
        ("https://Example.org:8443/v1/a-b_c/", "https://Example.org:8443/v1/a-b_c"),
        ("http://[::1]:80/v1/0", "http://[::1]:80/v1/0"),
        ("https://example.org/api/store/v1/notes", "https://example.org/api/store/v1/notes"),
    ],
)
def test_an_address_names_a_database(url: str, read: str) -> None:
    assert DatabaseURL.parse(url).url == read


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
def test_what_names_none_is_refused_with_the_form_that_would(url: str) -> None:
    with pytest.raises(ValueError, match="/v1/NAME"):
        DatabaseURL.parse(url)


def test_an_address_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="token=") as raised:
        DatabaseURL.parse("https://me:hunter2@example.org/v1/notes")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(TypeError):
        DatabaseURL.parse(7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "private"),
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
def test_a_token_stays_on_this_machine_or_is_encrypted(url: str, private: bool) -> None:
    from treehub_level.http import RemoteServer

    assert DatabaseURL.parse(url).is_private == private
    RemoteServer(url)
    RemoteServer(url, token="t", insecure=True)
    if private:
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
def test_retry_after_is_seconds_or_a_date_beside_the_servers_own(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert read_retry_after(headers) == seconds


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_events_are_the_same_in_whatever_pieces_they_come(size: int, newline: bytes) -> None:
    texts = ": hello", "", "id: 1", "data: [1,", "data:2]", "", "event: x", "id: 2", "data: z", "", "id: 3", "", "id: 4"
    lines = [text.encode() for text in texts]
    stream = newline.join(lines)
    reader = EventReader()
    events = [event for start in range(0, len(stream), size) for event in reader.feed(stream[start : start + size])]
    assert events == [Event("1", "[1,\n2]"), Event("2", "z"), Event("3", "")]


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_events, "MAX_REPLY", 1000)
    reader = EventReader()
    reader.feed(b"data: " + b"x" * 900)
    with pytest.raises(ProtocolError, match="more than 1,000 bytes"):
        reader.feed(b"x" * 200)


WITHOUT_HTTPX = """
import sys
sys.modules["httpx"] = None
import treehub_level.http
for module in ("http", "http.blocking"):
    try:
        __import__(f"treehub_level.{module}", fromlist=["RemoteServer"]).RemoteServer
    except ImportError as error:
        print(error)
"""


def test_without_httpx_one_sentence_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_HTTPX], check=True, capture_output=True, text=True)
    sentence = 'treehub_level.http.RemoteServer needs httpx: pip install "treehub-level[http]"'
    assert done.stdout.splitlines() == [sentence, sentence]


def test_the_package_imports_no_http_by_itself() -> None:
    script = "import sys, treehub_level, treehub_level.cli; print({'httpx', 'starlette'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
