"""Replicas of a server. The modules of tests find each other in the tests' folder: pytest is told, ``python -m`` here."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
