"""The protocol as a model (T1) and the product (T2), under schedules decided by a seed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of `stores` and `databases`
