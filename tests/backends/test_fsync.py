"""Syncing on macOS, whose ``fsync`` leaves data in the cache of the disk."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from treehub_level import fsync

pytestmark = pytest.mark.once


@pytest.mark.parametrize("supported", [True, False])
def test_a_sync_on_macos_empties_the_cache_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    calls: list[object] = []

    def fcntl(descriptor: int, command: object) -> None:
        calls.append(command)
        if not supported:
            raise OSError(45, "Operation not supported")

    monkeypatch.setattr(fsync, "fcntl", SimpleNamespace(fcntl=fcntl, F_FULLFSYNC="full"), raising=False)
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("fsync"))
    monkeypatch.setattr(sys, "platform", "darwin")
    with open(tmp_path / "file", "wb") as file:
        fsync.sync_descriptor(file.fileno(), data_only=True)
    assert calls == (["full"] if supported else ["full", "fsync"])
