"""Tests with several replicas of a server over one database.

The tests import helpers from the folder ``tests``. pytest adds that folder to the module search
path by its configuration; the line below does so for ``python -m tests.replicas.soak``.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
