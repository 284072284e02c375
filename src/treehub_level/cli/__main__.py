"""``python -m treehub_level.cli``: the same as ``treehub-level``, where scripts are not on the path."""

from . import main

main()
