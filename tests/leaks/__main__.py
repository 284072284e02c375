"""The command that counts leaks, function by function: ``python -m tests.leaks --calls 100000``."""

from __future__ import annotations

import argparse
import ctypes
import sys
from importlib.util import find_spec

from .counting import count_leaks
from .subjects import Subject, engine, functions


def main() -> None:
    """Make the calls that the command line asks for. The exit status is 1 if a function leaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="number of calls of each function")
    parser.add_argument(
        "--faulty", choices=["block", "reference", "bytes"], help="test a function that leaks at each call"
    )
    arguments = parser.parse_args()
    leaking = []
    for name, subject in _subjects(arguments.faulty).items():
        leaking += [] if _passes(name, subject, arguments.calls) else [name]
    if not arguments.faulty and find_spec("treehub_level._store_c") is not None:
        with engine() as subject:
            leaking += [] if _passes("the native engine", subject, arguments.calls) else ["the native engine"]
    sys.exit(f"these leak: {', '.join(leaking)}" if leaking else 0)


def _passes(name: str, subject: Subject, calls: int) -> bool:
    growth = count_leaks(subject.calls, calls, subject.watched)
    print(f"{name}: {calls:,} calls: {growth}", flush=True)
    return growth.is_within_limits


def _subjects(faulty: str | None) -> dict[str, Subject]:
    if faulty is None:
        return functions()
    kept: list[object] = []
    item = object()
    faults = {
        "block": lambda: kept.append(b"%d" % len(kept)),
        "reference": lambda: ctypes.pythonapi.Py_IncRef(ctypes.py_object(item)),
        "bytes": lambda: ctypes.CDLL(None).malloc(256),
    }
    return {f"a function that leaks a {faulty}": Subject([faults[faulty]], [item])}


if __name__ == "__main__":
    main()
