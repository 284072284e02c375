"""T9: replicas of a server over one database, while everything fails. See ``soak.py`` for longer runs."""

from __future__ import annotations

import pytest

from .soak import EACH, Soak, folder

pytestmark = pytest.mark.once


async def test_nothing_is_lost_and_all_are_equal_whatever_failed() -> None:
    with folder() as path:
        soak = Soak(path, seed=9)
        assert await soak.run(EACH) == []
    assert {*EACH} <= {*soak.counts}
    assert soak.counts["acknowledged"] > 500
    assert soak.counts["resets"] > 0
