"""T19: recorded histories of real processes, and the consistency models that they satisfy.

The tests import helpers from the folder ``tests``. pytest adds that folder to the module search
path by its configuration; the line below does so for ``python -m tests.histories``.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
