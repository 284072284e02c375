"""The JavaScript client passes the scenarios of the exchange, and reads its message vectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from js.clients import MODULE, PACKAGE
from treehub_level.testing.exchange import run_client
from treehub_level.testing.exchange.clients import SUITE

pytestmark = pytest.mark.once

#: The abilities that the client lacks (js/README.md, "Limits").
ABSENT = ("groups", "ranges", "halving", "read-only")
#: A thousand exchanges.
HEAVY = "a-session-of-short-pages-ends"


@pytest.mark.parametrize(
    "names",
    [[name for name in SUITE.scenarios if name != HEAVY], pytest.param([HEAVY], marks=pytest.mark.repeated)],
    ids=["most", "heavy"],
)
def test_the_javascript_client_passes_the_scenarios(node_executable: str, names: list[str]) -> None:
    driver = Path(__file__).with_name("conformance.mjs")
    outcomes = [*run_client([node_executable, str(driver), str(PACKAGE / "package.json"), str(MODULE)], only=names)]
    assert [outcome for outcome in outcomes if outcome.result == "failed"] == []
    skipped = [outcome.reason for outcome in outcomes if outcome.result == "skipped"]
    assert all(any(f'"{ability}"' in reason for ability in ABSENT) for reason in skipped)
    assert len(skipped) < len(outcomes) / 2
