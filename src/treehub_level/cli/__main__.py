"""``python -m treehub_level.cli``: the same program as ``treehub-level``."""

from . import main

main()
