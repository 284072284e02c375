"""The JavaScript client in a browser: over IndexedDB, in a page of another origin."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest

from js.clients import HERE, PACKAGE, items_of, put, python_client
from js.conftest import Server
from treehub_level import Level, blocking

pytestmark = pytest.mark.once

KEYS = ["a", "ä", "日本", "\uff5e", "\U0001f600"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


class Page:
    """A web server for a page with a script. `results` receives the JSON that the page posts.

    Args:
        script: The script.
    """

    def __init__(self, script: bytes) -> None:
        results: queue.Queue[Any] = queue.Queue()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_script = self.path == "/page.js"
                self._respond(script if is_script else b'<script type="module" src="/page.js"></script>', is_script)

            def do_POST(self) -> None:
                results.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self._respond(b"", False)

            def _respond(self, body: bytes, is_script: bool) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/javascript" if is_script else "text/html")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.results = results
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """Stop serving the page."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def browser() -> str:
    """The path of a browser of the Chromium family."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("Chromium is not installed, so the client was not tested in a browser")
    return found


@pytest.fixture
def script(node_executable: str) -> bytes:
    """The script of the page, bundled with all of its imports."""
    bundler = PACKAGE / "node_modules" / "esbuild" / "bin" / "esbuild"
    bundled = subprocess.run(
        [node_executable, str(bundler), str(HERE / "page.mjs"), "--bundle", "--format=esm", "--log-level=warning"],
        env={**os.environ, "NODE_PATH": str(PACKAGE / "node_modules")},
        stdout=subprocess.PIPE,
        check=True,
    )
    return bundled.stdout


def test_a_page_synchronises_from_indexeddb(
    browser: str, script: bytes, serve: Callable[..., Server], tmp_path: Path
) -> None:
    page = Page(script)
    server = serve("--allow-origin", page.origin)
    database, other = server.database("notes"), server.database("other")
    task = {"url": database.url, "other": other.url, "token": database.token, "keys": KEYS[::-1]}
    with python_client() as peer:
        peer.batch([put("both", "peer"), *(put(f"peer {n}", n) for n in range(1500))])
        peer.sync(database)
        process = subprocess.Popen(
            [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"{page.origin}/#{quote(json.dumps(task))}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            result = page.results.get(timeout=120)
        finally:
            process.terminate()
            process.wait(timeout=60)
            page.close()
        assert "error" not in result, result["error"]
        peer.sync(database)
        items = [(key, value) for key, value in result["items"]]
        assert items == database.items()
        assert dict(items) == dict(items_of(peer))
    assert [key for key, _ in items if key in KEYS] == KEYS
    report = result["report"]
    assert (report["filled"], report["pulled"], report["pushed"]) == (1500, 0, 1505)
    assert [one["local"] for one in result["report"]["conflicts"]] == [["both", "page"]]
    assert result["refusal"] == {"code": "LEVEL_STORE_MISMATCH", "status": 409}
    assert result["pending"] == 0
    # The tabs are one client, so their edits do not conflict with each other.
    assert result["conflicts"] == result["report"]["conflicts"]
    assert len([key for key, _ in items if key.startswith("tab ")]) == 40
    assert {dict(items)[f"shared {n}"][1] for n in range(5)} == set(range(15, 20))


#: A server, without the check of origins if there is a further argument.
HOSTED = """
import sys
from treehub_level.cli.application import app
from treehub_level.http.server.origins import OriginPolicy
if sys.argv.pop() == "control":
    OriginPolicy.check = lambda *_: None
app()
"""


@pytest.mark.parametrize("kind", ["checked", "control"])
def test_a_page_of_another_origin_writes_nothing_and_opens_no_store(browser: str, tmp_path: Path, kind: str) -> None:
    """All that a browser sends for a page: images, forms, frames, scripts, sockets, fetches."""
    stores = tmp_path / "stores"
    with blocking.Level(stores / "notes", mode=Level.SERVER) as level:
        level.put("a", "secret")
    with blocking.Level(stores / "phone", mode=Level.CLIENT) as phone:
        phone.put("a", "secret")
    before = {file.name: file.read_bytes() for file in (stores / "phone").iterdir()}
    page = Page((HERE / "hostile_page.js").read_bytes())
    server = subprocess.Popen(
        [sys.executable, "-c", HOSTED, "serve", str(stores), "--port", "0", kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = server.stdout.readline().rpartition(" at ")[2].strip()
    origin = page.origin.replace("127.0.0.1", "localhost")
    task = quote(json.dumps({"url": url, "target": f"{url}/v1/notes"}))
    process = subprocess.Popen(
        [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"{origin}/#{task}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        readings = page.results.get(timeout=60)
    finally:
        for running in (process, server):
            running.terminate()
        process.wait(timeout=60)
        log = server.communicate(timeout=60)[1]
        page.close()
    served = [line for line in log.splitlines() if " 200 " in line and "/healthz" not in line]
    assert bool(served) is (kind == "control"), log
    assert {file.name: file.read_bytes() for file in (stores / "phone").iterdir()} == before
    assert not any("secret" in reading for reading in readings.values()), readings
    with blocking.Level(stores / "notes", mode=Level.SERVER) as level:
        assert level.query() == [("a", "secret")]
