"""The metrics of a running server, and the documents, rules and dashboard that name them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from certificates import CAN_MAKE_CERTIFICATES, make_certificate
from http_metrics import families, samples
from replication.helpers import ask
from served import Served

from treehub_level import Level, Retention, StorageError
from treehub_level.http import Hub, Tokens, create_app
from treehub_level.http.server import client_positions, database_statistics, metrics
from treehub_level.http.server.certificate import Certificate
from treehub_level.http.server.certificate_expiry import certificate_expiry

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "how-to" / "observe.md"
OPS = ROOT / "examples" / "ops"


def documented() -> dict[str, tuple[set[str], str]]:
    """Return the labels and the type of each metric in the table of the page."""
    rows = re.findall(r"^\| `(\w+)(?:\{([\w,]+)\})?` \| (\w+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: (set(labels.split(",")) - {""}, kind) for name, labels, kind in rows}


async def scrape(client: httpx.AsyncClient) -> str:
    response = await client.get("/metrics")
    assert response.status_code == 200
    return response.text


async def counted(client: httpx.AsyncClient, database: str) -> dict[str, float]:
    """Return the samples of a scrape after a database was counted, which may take several."""
    while True:
        found = samples(await scrape(client))
        if f'treehub_level_database_entries{{database="{database}"}}' in found:
            return found
        await asyncio.sleep(0.02)


# ---------------------------------------------------------------------------------- the documents


async def test_the_page_lists_every_metric_with_its_type_and_its_labels(served: Served, tmp_path: Path) -> None:
    async with Hub(tmp_path / "stores", create=["notes"], retain=Retention()) as hub:
        assert hub.retention is not None
        await hub.tasks.run(hub.retention.task, "notes")
        served.app = create_app(hub, tokens=served.tokens)
        token = served.tokens.add(databases=["*"], write=True, expires=time.time() + 60)
        client = await served.client_with(token)
        await client.post("/v1/notes/exchange", json=ask(changes=[["a", 1]]))
        await client.post("/v1/notes/exchange", json=ask(cid=9, nonce="1" * 32))
        await client.get("/v1/absent")
        found = families(await scrape(client))
    table = documented()
    assert set(found) == set(table)
    assert {name: family.kind for name, family in found.items()} == {name: kind for name, (_, kind) in table.items()}
    for name, family in found.items():
        for labels in family.labels:
            assert labels - {"le"} == table[name][0], name
    assert all(family.help.endswith(".") for name, family in found.items() if name.startswith("treehub"))


def names_in(expression: str) -> set[str]:
    """Return the metrics that an expression of PromQL names."""
    found = set(re.findall(r"\b(?:treehub_level|process)_\w+", expression))
    return {name.removesuffix("_bucket") for name in found}


def expressions(value: Any) -> list[str]:
    """Return all expressions and queries in a document."""
    if isinstance(value, dict):
        own = [text for name, text in value.items() if name in ("expr", "query") and isinstance(text, str)]
        return own + [text for item in value.values() for text in expressions(item)]
    return [text for item in value for text in expressions(item)] if isinstance(value, list) else []


@pytest.mark.parametrize(
    ("file", "load"),
    [("alerts.yml", yaml.safe_load), ("grafana-dashboard.json", json.loads)],
    ids=["alerts", "grafana"],
)
def test_rules_and_dashboard_name_existing_metrics(file: str, load: Callable[[str], Any]) -> None:
    document = load((OPS / file).read_text(encoding="utf-8"))
    used = {name for text in expressions(document) for name in names_in(text)}
    assert len(used) >= 6
    assert used - set(documented()) == set()
    assert names_in("sum(treehub_level_absent)") - set(documented()), "control: an unknown metric is found"


def test_the_page_explains_every_alert() -> None:
    rules = yaml.safe_load((OPS / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    page = re.findall(r"^\| `(Treehub\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [rule["alert"] for rule in rules] == page


def _cells(first: int, count: int) -> range:
    return range(first, first + count)


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads((OPS / "grafana-dashboard.json").read_text(encoding="utf-8"))["panels"]
    places = [panel["gridPos"] for panel in panels]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def promtool(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", "check", *arguments], input=text, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_promtool_accepts_the_rules_and_the_metrics(served: Served) -> None:
    await served.client.put("/v1/notes/entries/a", json=1)
    rules, found = promtool("rules", str(OPS / "alerts.yml")), promtool("metrics", text=await scrape(served.client))
    assert rules.returncode == 0, rules.stderr
    # prometheus_client adds gauges of the times at which counters were created.
    complaints = [line for line in found.stderr.splitlines() if "_created" not in line]
    assert complaints == []


# ---------------------------------------------------------------------------------------- figures


async def test_sizes_and_counts_of_open_and_closed_databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_statistics, "_SIZES_SECONDS", 0.0)
    async with Hub(tmp_path, create=["closed", "notes"]) as hub:
        app = create_app(hub)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            for number in range(3):
                await client.put(f"/v1/notes/entries/{number % 2}", json=1)
            found = await counted(client, "notes")
            assert found['treehub_level_database_entries{database="notes"}'] == 2
            assert found['treehub_level_database_log_records{database="notes"}'] == 3
            assert found['treehub_level_database_cid{database="notes"}'] == 3
            assert found['treehub_level_database_open{database="notes"}'] == 1
            assert found['treehub_level_database_open{database="closed"}'] == 0
            assert found['treehub_level_database_size_bytes{database="closed"}'] > 0
            assert found["treehub_level_databases"] == 2
            assert hub.open_count == 1, "a scrape opens no database"
            assert 'treehub_level_database_entries{database="closed"}' not in found
            await hub.delete("notes")
            assert not [name for name in samples(await scrape(client)) if "database_" in name and '"notes"' in name]


async def test_a_closed_database_keeps_its_last_figures(tmp_path: Path) -> None:
    async with Hub(tmp_path, create=["notes"], idle_seconds=0) as hub:
        app = create_app(hub)
        reader = database_statistics.StatisticsReader(hub)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            async with hub.use("notes") as level:
                await level.put("a", 1)
                while not (reader.known() and reader.known()["notes"].count):
                    await reader.refresh()
            while hub.open_count:  # noqa: ASYNC110  # no event reports this
                await asyncio.sleep(0.01)
            await client.get("/healthz")
        await reader.refresh()
        found = reader.known()["notes"]
        assert (found.is_open, found.count and found.count.entries, found.log_records) == (False, 1, 1)


async def test_an_unchanged_database_is_not_counted_again(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_statistics, "_RECOUNT_SECONDS", 0.0)
    monkeypatch.setattr(database_statistics, "_PAUSE_FACTOR", 0)  # a slow count would delay the next one
    reader = database_statistics.StatisticsReader(served.hub)
    await served.levels["notes"].put("a", 1)
    counts = []
    for value in (None, None, "b"):
        if value:
            await served.levels["notes"].put(value, 1)
        for _ in range(20):
            await reader.refresh()
            assert reader._counting is not None
            await reader._counting
        counts.append(reader.known()["notes"].count)
    assert counts[0] is counts[1]
    assert [count and count.entries for count in counts] == [1, 1, 2]


async def test_a_count_runs_in_steps_that_a_closing_hub_ends(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_statistics, "_STEP_KEYS", 1000)
    monkeypatch.setattr(database_statistics, "_PAUSE_FACTOR", 1_000_000)
    monkeypatch.setattr(database_statistics, "_TURN_SECONDS", 0.0)
    await served.levels["notes"].load((str(number), number) for number in range(3000))
    reader = database_statistics.StatisticsReader(served.hub)
    started = time.monotonic()
    await reader.refresh()
    assert time.monotonic() - started < 30
    assert reader.known()["notes"].count is None, "it pauses"
    served.hub.stop()
    assert reader._counting is not None
    await asyncio.wait_for(reader._counting, 30)


async def test_a_scrape_does_not_wait_for_a_database_that_does_not_answer(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served.client.put("/v1/notes/entries/a", json=1)
    before = samples(await scrape(served.client))
    hangs = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(store: Any) -> Any:
        asyncio.run_coroutine_threadsafe(hangs.wait(), loop).result()
        raise StorageError("the database does not answer")

    monkeypatch.setattr(database_statistics, "_position", hang)
    monkeypatch.setattr(database_statistics, "_READ_SECONDS", 0.05)
    found = samples(await scrape(served.client))
    cid = 'treehub_level_database_cid{database="notes"}'
    assert found[cid] == before[cid] == 1
    hangs.set()


async def test_a_scrape_works_while_a_writer_is_busy(served: Served) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(_: Any) -> None:
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(leave.wait(), loop).result()

    writing = asyncio.ensure_future(served.levels["notes"].transact(slow))
    await entered.wait()
    found = samples(await scrape(served.client))
    assert found['treehub_level_database_cid{database="notes"}'] == 0
    leave.set()
    await writing


async def test_conflicts_refusals_and_resets_are_counted(served: Served) -> None:
    await served.client.put("/v1/notes/entries/a", json=1)
    lost = ask(client="2" * 32, changes=[["a", 2], ["b", 2]])
    await served.client.post("/v1/notes/exchange", json=lost)
    narrow = await served.client_with(served.tokens.add(databases=["notes"], write=True, prefix="mine/"))
    await narrow.post("/v1/notes/exchange", json=ask(client="3" * 32, changes=[["mine/x", 1]]))
    found = samples(await scrape(served.client))
    assert found['treehub_level_changes_rejected_total{database="notes"}'] >= 1
    assert found['treehub_level_changes_refused_total{database="notes"}'] == 0


async def test_clients_and_their_distance(served: Served) -> None:
    async with Level("a", backend="memory", mode=Level.CLIENT) as client:
        await served.levels["notes"].put("a", 1)
        for key in ("x", "y"):
            message = ask(client="4" * 32, nonce=key.encode().hex() * 16)
            await served.client.post("/v1/notes/exchange", json=message)
            await served.levels["notes"].put(key, 1)
        assert client.cid == 0
    found = samples(await scrape(served.client))
    assert found['treehub_level_clients_active{database="notes"}'] == 1
    assert found['treehub_level_clients_behind{database="notes"}'] == 1
    assert found['treehub_level_clients_behind_max_changes{database="notes"}'] == 1


def test_positions_are_bounded_in_number_and_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_positions, "MAX_CLIENTS", 2)
    now = [0.0]
    positions = client_positions.ClientPositions(lambda: now[0])
    for client, cid in (("a", 1), ("b", 2), ("a", 3), ("c", 9)):
        positions.record("notes", client, cid)
    assert positions.lag("notes", 10) == (2, 2, 7)
    assert positions.lag("absent", 10) == (0, 0, 0)
    now[0] += client_positions.SEEN_SECONDS + 1
    assert positions.lag("notes", 10) == (0, 0, 0)
    positions.forget(set())
    assert positions._seen == {}


async def test_further_databases_share_the_label_other(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_LABELS", 1)
    await served.client.put("/v1/other/entries/a", json=1)
    found = await counted(served.client, "other")
    assert found['treehub_level_database_open{database="other"}'] == 1
    assert found['treehub_level_database_open{database="(other)"}'] == 1
    assert not [name for name in found if '"notes"' in name]
    assert 'treehub_level_database_cid{database="(other)"}' not in found


async def test_the_expiry_of_tokens(served: Served) -> None:
    for days in range(25):
        served.tokens.add(databases=["notes"], expires=2_000_000_000 + 86400 * days)
    served.tokens.add(databases=["notes"], expires=1)
    found = samples(await scrape(served.client))
    times = [value for name, value in found.items() if name.startswith("treehub_level_token_expiry")]
    assert times == [2_000_000_000 + 86400 * days for days in range(20)]
    assert found["treehub_level_tokens"] == 26
    assert found["treehub_level_token_file_readable"] == 1


async def test_an_unreadable_file_of_tokens_is_told(tmp_path: Path) -> None:
    async with Hub(tmp_path) as hub:
        unreadable = metrics.Metrics(hub, Tokens(tmp_path / "absent"))
        assert b"treehub_level_token_file_readable 0.0" in await unreadable.render()


# ---------------------------------------------------------------------------- certificates


def end_date(certificate: str) -> float:
    """Return the time at which a certificate expires, as openssl reads it."""
    command = ["openssl", "x509", "-enddate", "-noout", "-in", certificate]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return ssl.cert_time_to_seconds(told.strip().removeprefix("notAfter="))


@pytest.mark.skipif(not CAN_MAKE_CERTIFICATES, reason="openssl is not installed")
async def test_the_expiry_of_the_certificate_in_use(tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    certificate = Certificate(files.certificate, files.key)
    assert certificate.expires == end_date(files.certificate)
    async with Hub(tmp_path) as hub:
        observed = metrics.Metrics(hub)
        observed.certificate = certificate
        text = (await observed.render()).decode()
    assert samples(text)["treehub_level_certificate_expiry_timestamp_seconds"] == certificate.expires


@pytest.mark.skipif(not CAN_MAKE_CERTIFICATES, reason="openssl is not installed")
def test_a_certificate_that_expires_after_2050_and_damaged_ones(tmp_path: Path) -> None:
    files = make_certificate(tmp_path, days=20_000)  # its time has the other form of DER
    pem = Path(files.certificate).read_text()
    assert certificate_expiry(pem) == end_date(files.certificate)
    lines = pem.splitlines()
    for damaged in ("", "text", pem.replace(lines[1], lines[1][::-1]), "\n".join([*lines[:2], lines[-1]])):
        assert certificate_expiry(damaged) is None
