"""Run the attacks and print their cost for the honest clients and the server.

python -m tests.http.hostile [NAME…] [--seconds 20] [--control]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .attacks import attack, names
from .harness import measure


def main() -> None:
    """Run the attacks of the command line; exit with 1 if a bound was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; without any, all of them")
    parser.add_argument("--seconds", type=float, default=20, help="the duration of each attack")
    parser.add_argument("--control", action="store_true", help="remove the defence: each attack must break a bound")
    options = parser.parse_args()
    table = Table("attack", "honest requests", "p99", "memory growth", "verdict")
    failed = False
    for name in options.names or names():
        with tempfile.TemporaryDirectory() as folder:
            figures = asyncio.run(measure(name, Path(folder), options.seconds, defended=not options.control))
        broken = figures.violations(attack(name))
        failed |= bool(broken) != options.control
        table.add_row(
            name,
            str(len(figures.latencies)),
            f"{figures.p99 * 1000:.0f} ms",
            f"{figures.growth:.0f} MiB",
            "; ".join(broken) or "within its bounds",
        )
    Console().print(table)
    sys.exit(failed)


if __name__ == "__main__":
    main()
