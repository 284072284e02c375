"""A short run of `writers`, and its controls."""

from __future__ import annotations

from pathlib import Path

import pytest

from .writers import run

pytestmark = pytest.mark.once


def test_nothing_acknowledged_is_lost_when_writers_are_killed(tmp_path: Path) -> None:
    figures = run(str(tmp_path / "store"), cycles=8, seed=1)
    assert figures["acknowledged"] > 0


@pytest.mark.parametrize(
    ("fault", "found"),
    [("memory", "CID|log and data|writes nothing"), ("early", "was acknowledged, but the store ends")],
)
def test_a_faulty_writer_is_detected(tmp_path: Path, fault: str, found: str) -> None:
    with pytest.raises(AssertionError, match=found):
        run(str(tmp_path / "store"), cycles=8, seed=1, fault=fault)
