"""The environment that libpq and psycopg read: errors name it, and are errors of this package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from backends.tables import Table

from treehub_level import StorageError
from treehub_level.backends.postgres.settings import checked_settings

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGSSLMODE", "junk"),
        ("PGSERVICE", "nowhere"),
        ("PGOPTIONS", "-c junk=1"),
        ("PGOPTIONS", "--junk"),
        ("PGGEQO", "junk"),
        ("PGTZ", "junk"),
        ("PGTARGETSESSIONATTRS", "junk"),
        ("PGREQUIREAUTH", "junk"),
        ("PGCHANNELBINDING", "junk"),
        ("PGSSLMINPROTOCOLVERSION", "junk"),
        ("PGHOSTADDR", "junk"),
    ],
)
def test_a_variable_that_prevents_a_connection_is_named(
    table: Table, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(StorageError, match=rf"the environment sets .*{variable}") as raised:
        table.open()
    assert "Try again later" not in str(raised.value)


@pytest.mark.parametrize("content", [None, "[one]\nport=abc\njunk\n"])
def test_a_service_file_that_cannot_be_used_is_named(
    table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "services"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    monkeypatch.setenv("PGSERVICE", "one")
    with pytest.raises(StorageError, match=r"service file.*PGSERVICE, PGSERVICEFILE"):
        table.open()


@pytest.mark.parametrize("encoding", ["junk", "SQL_ASCII", "EUC_TW", "LATIN1"])
def test_the_encoding_of_the_environment_has_no_effect(
    table: Table, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", encoding)
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "junk")
    backend = table.open()
    backend.write([("é".encode(), b"1")])
    assert backend.get("é".encode()) == b"1"


@pytest.mark.parametrize("host", ["a" * 70, "a..b", "\udcff", "fine,a..b"])
def test_the_name_of_a_host_that_cannot_be_looked_up_is_an_error(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    options = {"connections": 4, "lock_timeout": 1.0, "statement_timeout": 1.0, "notify": False}
    monkeypatch.setenv("PGHOST", host)
    with pytest.raises(StorageError, match="in the environment variable PGHOST is not a valid host name"):
        checked_settings("postgresql:///db", "t", **options)  # type: ignore[arg-type]
    monkeypatch.setenv("PGHOST", "/run/" + "a" * 70)
    checked_settings("postgresql:///db", "t", **options)  # type: ignore[arg-type]
    if host.isascii():
        with pytest.raises(StorageError, match="in the URL is not a valid host name"):
            checked_settings(f"postgresql://{host}/db", "t", **options)  # type: ignore[arg-type]


def test_an_implementation_of_psycopg_that_is_missing_is_an_error() -> None:
    program = (
        "from treehub_level import LevelError, blocking\n"
        "try: blocking.Level('postgresql:///db', backend='postgres').open()\n"
        "except LevelError as error: print(error)\n"
    )
    environment = {**os.environ, "PSYCOPG_IMPL": "junk"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "implementation 'junk'" in done.stdout
