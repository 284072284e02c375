"""Processes that are killed, and disks that fail (T4 to T7)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of the shared helpers
