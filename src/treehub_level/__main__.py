"""``python -m treehub_level``: the same program as ``treehub-level``, for a PATH without it."""

from .cli import main

main()
