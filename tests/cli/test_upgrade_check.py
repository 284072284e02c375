"""``treehub-level check``: stores of earlier versions, of a later one, and of the npm package."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest
from golden import golden_stores

from treehub_level import Level, MemoryBackend, blocking
from treehub_level.backends import create
from treehub_level.maintenance.upgrade_check import check_upgrade

from .conftest import Cli

pytestmark = pytest.mark.once

GOLDEN = sorted(path.relative_to(golden_stores.FOLDER) for path in golden_stores.FOLDER.rglob("*.server.json"))
NAMES = [str(path).removesuffix(".server.json") for path in GOLDEN]


def write(path: Path, rows: dict[bytes, bytes]) -> str:
    """Make a store of these rows."""
    store = create("sqlite", str(path), {})
    store.open()
    with store.exclusive() as transaction:
        transaction.write([*rows.items()], durable=True)
    store.close()
    return str(path)


def stored(path: str) -> dict[bytes, bytes]:
    store = create("sqlite", path, {})
    store.open_read_only()
    cursor = store.scan(None, None)
    rows = dict(cursor.fetch(100_000))
    cursor.close()
    store.close()
    return rows


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("name", NAMES)
def test_the_answer_about_a_store_of_each_version_is_true(cli: Cli, tmp_path: Path, name: str, side: str) -> None:
    rows = golden_stores.read(name, side)
    twice = next(key for key in rows if key.endswith(b"store") and rows[key].startswith(b'{"id"'))[:-5].decode()
    prefix = twice[: len(twice) // 2]
    path = write(tmp_path / "store", rows)
    options = ("--backend", "sqlite", "--metadata-prefix", prefix)
    told = cli("check", path, *options, "--json").json
    assert stored(path) == rows, "check changes nothing"
    assert (told["mode"], told["written_by"], told["format"], told["opens"]) == (side, "treehub-level", 1, True)
    # The opening makes exactly the changes that check has told.
    mode = Level.SERVER if side == "server" else Level.CLIENT
    with blocking.Level(path, mode=mode, backend="sqlite", prefix=prefix, keep_base=None):
        pass
    assert (stored(path) == rows) == (told["changes"] == []) == told["returns"]
    assert told["returns"] == (not ("reset" in name and side == "client"))
    assert cli("check", path, *options, "--json").json["changes"] == [], "the second opening changes nothing"
    assert "opens         yes" in cli("check", path, *options).out


def test_a_store_of_a_later_format_is_refused_with_what_to_do(cli: Cli, tmp_path: Path) -> None:
    rows = golden_stores.read("plain", "server")
    record = orjson.loads(rows[b"!!store"])
    path = write(tmp_path / "store", {**rows, b"!!store": orjson.dumps({**record, "format": 2})})
    done = cli("check", path, "--backend", "sqlite", "--json", code=1)
    assert (done.json["opens"], done.json["format"], done.json["reads"]) == (False, 2, 1)
    assert "install the version that wrote the store, or a later one" in done.json["problem"]
    assert re.search(r"^opens +no: the store has format 2", cli("check", path, "--backend", "sqlite", code=1).out, re.M)


def test_a_store_of_the_npm_package_is_told_from_others(cli: Cli, tmp_path: Path) -> None:
    rows = {key: value for key, value in golden_stores.read("plain", "server").items() if not key.startswith(b"!!")}
    path = write(tmp_path / "npm", rows)
    told = cli("check", path, "--backend", "sqlite", "--json").json
    assert (told["written_by"], told["format"], told["returns"]) == ("@treehub/level", None, False)
    assert "gives the store an identity" in told["changes"][0]
    unordered = {b"!": b'["!",10]', **{f"!{i}".encode(): b'["k%d",1]' % i for i in range(1, 11)}}
    path = write(tmp_path / "unordered", unordered)
    told = cli("check", path, "--backend", "sqlite", "--json", code=1).json
    assert "treehub-level upgrade" in told["problem"]


def test_a_store_without_a_mode_and_a_damaged_one(cli: Cli, tmp_path: Path) -> None:
    with blocking.Level(tmp_path / "plain") as level:
        level.put("a", 1)
    told = cli("check", str(tmp_path / "plain"), "--json").json
    assert (told["mode"], told["written_by"], told["opens"], told["changes"]) == ("normal", None, True, [])
    rows = golden_stores.read("plain", "server")
    path = write(tmp_path / "damaged", {**rows, b"!!store": b'{"id":1,"mode":"server","format":1}'})
    told = cli("check", path, "--backend", "sqlite", "--json", code=1).json
    assert told["problem"] is not None
    assert cli("check", str(tmp_path / "absent"), code=1).err.startswith("error: there is no store at")


def test_a_store_that_a_server_has_open_is_checked_beside_it(cli: Cli, tmp_path: Path) -> None:
    with blocking.Level(tmp_path / "notes", mode=Level.SERVER) as level:
        level.put("a", 1)
        assert cli("check", str(tmp_path / "notes"), "--json").json["opens"]


def test_the_check_of_a_store_in_memory_is_the_same_function() -> None:
    store = MemoryBackend("memory")
    with blocking.Level("memory", backend=lambda _: store, mode=Level.SERVER) as level:
        level.put("a", 1)
    assert check_upgrade("memory", backend=lambda _: store).problem is None
