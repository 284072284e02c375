"""The log of a server: its formats and fields, request ids, and the addresses of clients."""

from __future__ import annotations

import json
import logging
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import Served

from treehub_level.http import Identity
from treehub_level.http.server.client_address import TrustedProxies
from treehub_level.http.server.logs import ACCESS_LOGGER, JSONFormatter, OneLineFormatter, log_event

from .running import running

pytestmark = pytest.mark.once

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "observe.md"
SECRET = "s3cr3t"


def documented(event: str) -> set[str]:
    """Return the fields of an event in the table of the page, with those of all events."""
    rows = re.findall(r"^\| (`\w+`|all) \| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {field for found, field in rows if found in (f"`{event}`", "all")}


def lines_of(text: str) -> list[dict[str, Any]]:
    """Parse a log in JSON."""
    return [json.loads(line) for line in text.splitlines()]


def test_a_server_logs_its_life_and_each_request_in_json(tmp_path: Path) -> None:
    options = ("--log-format", "json", "--trust-proxy", "127.0.0.0/8", "--temporary-token")
    with running(tmp_path, *options) as server:
        assert server.process.stdout is not None
        token = server.process.stdout.readline().strip().partition("=")[2]
        headers = {"authorization": f"Bearer {token}", "x-forwarded-for": "192.0.2.7", "x-request-id": "r-1"}
        put = httpx.put(f"{server.url}/v1/notes/entries/{SECRET}", json=SECRET, headers=headers)
        absent = httpx.get(f"{server.url}/v1/absent", headers=headers)
        assert (put.headers["x-request-id"], absent.json()["request_id"]) == ("r-1", "r-1")
        assert server.stop(signal.SIGTERM) == 0
    text = server.log.read_text()
    assert SECRET not in text
    assert token not in text
    lines = [line for line in lines_of(text) if "event" in line]  # without the one on retention
    assert [line["event"] for line in lines] == ["started", "request", "request", "stopping", "stopped"]
    for line in lines:
        assert line.keys() == documented(line["event"]) - {"exception"}
    started, written, refused, _, stopped = lines
    assert (started["url"], started["authentication"], started["databases"]) == (server.url, "temporary token", 1)
    assert (written["client"], written["status"], written["database"]) == ("192.0.2.7", 204, "notes")
    assert (written["received_bytes"], written["sent_bytes"]) == (len(json.dumps(SECRET)), 0)
    assert written["token"] == token.partition(".")[0]
    assert written["duration_seconds"] > 0
    assert (refused["status"], refused["reason"]) == (404, "LEVEL_DATABASE_NOT_FOUND")
    assert refused["sent_bytes"] == len(absent.content)
    assert stopped["uptime_seconds"] > 0


def test_the_access_log_can_be_turned_off(tmp_path: Path) -> None:
    with running(tmp_path, "--no-access-log") as server:
        assert httpx.get(f"{server.url}/v1/notes").status_code == 200
        server.stop()
    lines = server.log.read_text().splitlines()
    words = [re.sub(r"^[\d-]+ [\d:,]+ INFO (\w+).*", r"\1", line) for line in lines]
    assert (words[0], *words[-2:]) == ("started", "stopping", "stopped")
    assert "GET" not in words


def test_a_log_of_warnings_has_neither_requests_nor_the_start(tmp_path: Path) -> None:
    with running(tmp_path, "--log-level", "warning") as server:
        assert httpx.get(f"{server.url}/v1/notes").status_code == 200
        server.stop()
    assert server.log.read_text() == ""


def test_a_proxy_that_is_no_address_is_refused(served: Served) -> None:
    for wrong in ("localhost", "10.0.0.1/8", "", "10.0.0.0/33", "\x1b[2J"):
        with pytest.raises(ValueError, match="is neither an address nor a network"):
            served.rebuild(proxies=[wrong])


async def test_a_failure_is_logged_with_the_id_of_the_request(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(served.app.state.dispatcher.hub, "admit", broken)
    response = await served.client.get("/v1/notes", headers={"x-request-id": "r-2"})
    assert response.json()["request_id"] == "r-2"
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    line = json.loads(JSONFormatter().format(record))
    assert line.keys() == documented("error") - {"exception"}
    assert (line["request_id"], line["error"]) == ("r-2", "RuntimeError")
    assert SECRET not in json.dumps(line)


async def test_the_name_of_a_user_is_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, ACCESS_LOGGER)
    served.rebuild(tokens=None, authenticate=lambda _: Identity('Ada "A" Lovelace', databases=["notes"]))
    await served.client.get("/v1/notes")
    (record,) = [record for record in caplog.records if record.name == ACCESS_LOGGER]
    assert json.loads(JSONFormatter().format(record))["token_name"] == 'Ada "A" Lovelace'
    assert r' name="Ada \"A\" Lovelace" ' in OneLineFormatter("%(message)s").format(record)


# ----------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("formatter", [JSONFormatter(), OneLineFormatter("%(message)s")])
def test_a_record_is_one_line_without_secrets_or_controls(formatter: logging.Formatter) -> None:
    hostile = "a\r\nb\x1b[2J\u2028\u202e\x9b\ud800 postgresql://user:s3cr3t@host/db " + "x" * 5000
    try:
        raise ValueError(hostile)
    except ValueError as error:
        record = logging.LogRecord("n", logging.ERROR, "", 0, "%s", (hostile,), (type(error), error, None))
    line = formatter.format(record)
    assert re.search("[\x00-\x1f\x7f-\x9f\u2028\u202e\ud800]", line) is None
    assert "s3cr3t" not in line
    assert len(line) < 3000


@given(st.text(st.characters()), st.dictionaries(st.sampled_from(["a", "b"]), st.text(st.characters())))
def test_a_line_of_json_reads_as_what_was_logged(message: str, fields: dict[str, str]) -> None:
    logger = logging.Logger("test")
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign, assignment]
    logger.addHandler(handler)
    log_event(logger, logging.INFO, "event", "m", {"message": message, **fields})
    line = JSONFormatter().format(records[0])
    assert len(line.splitlines()) == 1
    parsed = json.loads(line)
    assert {name: parsed[name] for name in ("message", *fields)} == {"message": message, **fields}


# ------------------------------------------------------------------------------------ request ids


@pytest.mark.parametrize("harmless", ["a", "7b2f-41", "Root=1-67/a+b@c:d_e.f", "x" * 64])
async def test_a_harmless_request_id_is_kept(served: Served, harmless: str) -> None:
    response = await served.client.get("/v1/absent", headers={"x-request-id": harmless})
    assert response.headers["x-request-id"] == response.json()["request_id"] == harmless


@pytest.mark.parametrize("harmful", ["", "x" * 65, "a b", "a\tb", "ä", 'a"b', "<script>", "a,b"])
async def test_another_request_id_is_replaced(served: Served, harmful: str) -> None:
    response = await served.client.get("/v1/absent", headers={b"x-request-id": harmful.encode("latin-1")})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


async def test_two_request_ids_are_replaced(served: Served) -> None:
    response = await served.client.get("/healthz", headers=[("x-request-id", "a"), ("x-request-id", "b")])
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


def test_malformed_http_gets_a_request_id(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.connect() as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        received = b""
        while part := connection.recv(4096):
            received += part
    (id,) = re.findall(rb"x-request-id: ([0-9a-f]{32})\r\n", received)
    assert json.loads(received.partition(b"\r\n\r\n")[2])["request_id"].encode() == id


async def test_pages_may_read_the_request_id(served: Served) -> None:
    served.rebuild(origins=["https://example.org"])
    response = await served.client.get("/v1/notes", headers={"origin": "https://example.org"})
    assert "x-request-id" in response.headers["access-control-expose-headers"]


# ------------------------------------------------------------------------------ client addresses


def client_of(peer: str | None, forwarded: list[str], trusted: list[str]) -> str | None:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    scope = {"client": peer and (peer, 1), "headers": headers}
    return TrustedProxies(trusted).client(scope)


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "client"),
    [
        ("192.0.2.1", [], [], "192.0.2.1"),
        ("192.0.2.1", ["203.0.113.9"], [], "192.0.2.1"),
        ("192.0.2.1", ["203.0.113.9"], ["10.0.0.0/8"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.9"], ["10.0.0.0/8"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.9"], ["10.0.0.0/8"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6", "203.0.113.9"], ["10.0.0.0/8"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.0.0.2"], ["10.0.0.0/8"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3,10.0.0.2"], ["10.0.0.0/8"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.9, unknown"], ["10.0.0.0/8"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:4711"], ["10.0.0.1"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::7]:443"], ["10.0.0.1"], "2001:db8::7"),
        ("10.0.0.1", ["2001:db8::7"], ["10.0.0.1"], "2001:db8::7"),
        ("10.0.0.1", ["fe80::1%\x1b[2J"], ["10.0.0.1"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], ["10.0.0.1"], "203.0.113.9"),
        ("fd00::1", ["203.0.113.9"], ["fd00::/8"], "203.0.113.9"),
        ("10.0.0.1", [""], ["10.0.0.1"], "10.0.0.1"),
        ("10.0.0.1", [","], ["10.0.0.1"], "10.0.0.1"),
        ("", ["203.0.113.9"], ["0.0.0.0/0"], None),
        (None, ["203.0.113.9"], ["0.0.0.0/0"], None),
    ],
)
def test_the_client_behind_proxies(peer: str | None, forwarded: list[str], trusted: list[str], client: str) -> None:
    assert client_of(peer, forwarded, trusted) == client
