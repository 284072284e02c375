"""Run one attack until this process is killed.

python -m tests.http.hostile.attacker NAME PORT TOKEN
"""

from __future__ import annotations

import asyncio
import sys

from .attacks import Target, attack


def main() -> None:
    """Run the attack of the command line."""
    name, port, token = sys.argv[1:]
    asyncio.run(attack(name).run(Target(int(port), token)))  # type: ignore[arg-type]  # it is a coroutine


if __name__ == "__main__":
    main()
