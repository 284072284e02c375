"""A server process that runs until it is killed: ``python -m tests.crash.server PATH ENGINE``.

Its output is its URL.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from refusing import check

from treehub_level.http import Hub
from treehub_level.http.server.run import ListenAddress, serve

from .history import options_of

if __name__ == "__main__":
    store, engine = Path(sys.argv[1]), sys.argv[2]
    hub = Hub(store.parent, backend=engine, check=check, **options_of(engine))
    serve(hub, ListenAddress(port=0), on_listening=lambda url: os.write(1, f"{url}/v1/{store.name}".encode()))
