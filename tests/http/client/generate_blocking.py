"""Generate the blocking ``RemoteServer`` from the asyncio one.

    python tests/http/client/generate_blocking.py          write http/client/blocking.py
    python tests/http/client/generate_blocking.py --check  exit with status 1 if it is out of date

The two differ only in ``await`` and in a few names. `REPLACEMENTS` lists the names and phrases
that differ; a line of the source that ends in ``# asyncio only`` is left out. Ruff formats the
result.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
SOURCE: Final = ROOT / "src/treehub_level/http/client/remote.py"
TARGET: Final = ROOT / "src/treehub_level/http/client/blocking.py"
COMMAND: Final = "python tests/http/client/generate_blocking.py"
HEADER: Final = f"# Generated from remote.py: edit that file, then run\n#   {COMMAND}\n"

#: Asyncio → blocking. Where two of them match at the same place, the first one applies.
REPLACEMENTS: Final = {
    # Code
    "from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping": (
        "from collections.abc import Callable, Generator, Iterable, Iterator, Mapping"
    ),
    "AsyncGenerator[Change, None]": "Generator[Change, None, None]",
    "AsyncGenerator[tuple[str, Any], None]": "Generator[tuple[str, Any], None, None]",
    "AsyncGenerator[Any, None]": "Generator[Any, None, None]",
    "AsyncIterator": "Iterator",
    "Callable[[], str | Awaitable[str]]": "Callable[[], str]",
    "[entry async for entry in entries]": "[*entries]",
    "AsyncFramedTransport": "FramedTransport",
    "httpx.AsyncClient": "httpx.Client",
    "httpx.AsyncBaseTransport": "httpx.BaseTransport",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "aclose": "close",
    "aiter_raw": "iter_raw",
    "anext": "next",
    "asyncio.sleep": "time.sleep",
    "async def ": "def ",
    "await ": "",
    # Prose
    "(asyncio)": "(blocking)",
    "``treehub_level.http.blocking.RemoteServer`` is the blocking counterpart": (
        "``treehub_level.http.RemoteServer`` is the asyncio counterpart"
    ),
    "treehub_level.http.RemoteServer": "treehub_level.http.blocking.RemoteServer",
    "a callable (sync or async) that": "a callable that",
    "an ``async with``": "a ``with``",
    "async with": "with",
}
_PATTERN: Final = re.compile("|".join(map(re.escape, REPLACEMENTS)))
_ASYNCIO_ONLY: Final = re.compile(r".*# asyncio only\n")


def generate(source: str) -> str:
    """Return the blocking module for an asyncio module, formatted by ruff.

    Raises:
        ValueError: A word of asyncio is left in the result: `REPLACEMENTS` lacks an entry.
    """
    blocking = _PATTERN.sub(lambda match: REPLACEMENTS[match[0]], _ASYNCIO_ONLY.sub("", source))
    for line in blocking.splitlines():
        if re.search(r"\b(async|await|Awaitable|anext|aiter|Async\w+|asyncio\.\w+)\b", line):
            raise ValueError(f"REPLACEMENTS in {COMMAND} lacks an entry for: {line.strip()}")
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(TARGET), "-"]
    return subprocess.run(command, input=HEADER + blocking, check=True, capture_output=True, encoding="utf-8").stdout


def is_current(source: str, target: str) -> bool:
    """True if ``target`` is the module generated from ``source``, byte for byte."""
    return generate(source) == target


def main() -> int:
    """Write the generated module, or check it. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with status 1 if it is out of date")
    source = SOURCE.read_text(encoding="utf-8")
    if not parser.parse_args().check:
        TARGET.write_text(generate(source), encoding="utf-8")
        return 0
    if is_current(source, TARGET.read_text(encoding="utf-8")):
        return 0
    print(f"{TARGET} is out of date: run {COMMAND}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
