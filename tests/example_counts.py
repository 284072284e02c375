"""The number of examples that property tests draw (Hypothesis)."""

from __future__ import annotations

import os

#: Multiplies the number of examples, which are new ones then. `make soak ROWS=T3` sets it.
FACTOR = int(os.environ.get("TREEHUB_LEVEL_EXAMPLES", "1"))


def examples(share: int) -> int:
    """Return the number of examples to draw, from the share of the ordinary suite."""
    return share * FACTOR
