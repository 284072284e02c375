"""Replicas of a server. Tests import what they share from their folder: pytest is told so, ``python -m`` here."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
