"""T1 and T2: the protocol as a model, and the product, under schedules that one seed decides. See ``product.py``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `stores` and `databases` lie, however this is run
