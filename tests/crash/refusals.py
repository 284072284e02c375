"""Changes that the server of T4 and T5 refuses: none of them may be lost without a record.

A client writes them in pairs: one change that a rule refuses, and one that belongs together with
it.
"""

from __future__ import annotations

from typing import NamedTuple

from refusing import BESIDE, REFUSED, refused_pair

from treehub_level import blocking


class Pair(NamedTuple):
    """Two changes that belong together.

    Attributes:
        cycle: The cycle in which they are written.
        number: Their number among those of the cycle.
    """

    cycle: int
    number: int

    @property
    def keys(self) -> list[str]:
        """Both keys."""
        return [change.key for change in refused_pair(str(self.cycle), self.number)]

    @property
    def is_durable(self) -> bool:
        """True if the write waits for fsync."""
        return self.number % 3 == 0

    def write(self, level: blocking.Level) -> None:
        """Write both changes in one batch."""
        level.batch(refused_pair(str(self.cycle), self.number), durable=self.is_durable)


def check_refusals(client: blocking.Level, server: blocking.Level, required: list[Pair]) -> int:
    """Check that each pair was refused whole, and that none is lost. Empty the journal.

    Args:
        client: The client, after a sync.
        server: The server.
        required: The pairs that the client must have.

    Returns:
        The number of refused pairs.

    Raises:
        AssertionError: A pair is lost, or was accepted or refused in part.
    """
    for level in (client, server):
        for prefix in (REFUSED, BESIDE):
            left = level.keys(prefix=prefix)
            assert not left, f"{level.name} has changes that belong to refused ones: {left!r:.200}"
    refused = {conflict.key for conflict in client.conflicts() if conflict.kind == "refused"}
    for pair in required:
        assert refused.issuperset(pair.keys), f"the refused changes of {pair.keys} are not in the journal"
    pairs = {key.partition("/")[2] for key in refused}
    parts = [name for name in pairs if not refused.issuperset({REFUSED + name, BESIDE + name})]
    assert not parts, f"these pairs were refused in part: {parts!r:.200}"
    client.dismiss_all()
    return len(pairs)
