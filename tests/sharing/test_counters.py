"""A short run of `counters`, and its control."""

from __future__ import annotations

from pathlib import Path

import pytest

from .counters import run

pytestmark = pytest.mark.once


def test_two_processes_lose_no_increment_on_sqlite(tmp_path: Path) -> None:
    assert run("sqlite", str(tmp_path / "store"), increments=200)["counter"] == 400


def test_two_processes_lose_no_increment_on_postgres(postgres_url: str) -> None:
    assert run("postgres", postgres_url, increments=100)["counter"] == 200


def test_get_and_put_lose_increments(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="increments are lost"):
        run("sqlite", str(tmp_path / "store"), increments=400, ways=("get-put", "get-put"))
