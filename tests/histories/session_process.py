"""A recorded session in its own process, until a line or the end of stdin.

    python -m tests.histories.session_process OPTIONS

OPTIONS is a JSON object: ``style``, ``name``, ``url``, ``stores``, ``histories``, ``seed`` and
``pace`` of `open_session`; ``page``, the number of changes that a request asks for; and
``prelude``, Python statements that put in a fault.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from treehub_level.replication import client

from .recorded_sessions import open_session


def main(options: dict[str, str]) -> None:
    """Run the session."""
    client.PAGE_CHANGES = int(options["page"])  # few, so that histories of all sizes have many pages
    exec(options["prelude"], {})
    stop = threading.Event()

    def wait_for_line() -> None:
        sys.stdin.readline()
        stop.set()

    threading.Thread(target=wait_for_line, daemon=True).start()
    with open_session(
        options["style"],
        options["name"],
        options["url"],
        Path(options["stores"]),
        Path(options["histories"]),
        seed=options["seed"],
        pace=float(options["pace"]),
    ) as session:
        session.run(stop)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
