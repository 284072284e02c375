"""T19: check the histories of real processes over a bad network.

    python -m tests.histories --operations 5000 --sessions 8 --seed 1
    python -m tests.histories --operations 5000 --replicas
    python -m tests.histories --control

Servers and sessions are killed and paused meanwhile. With ``--control`` each fault of ``faults.py``
is put into a client or a server, and must be found.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .checker import Verdict, check
from .faults import CLIENT_FAULTS, REPLICA_FAULTS, SERVER_FAULTS, Fault
from .workload import STYLES, Workload, one_server, replicas

#: Anomalies that are printed.
_SHOWN: Final = 20
#: Operations of a run with a fault.
_CONTROL: Final = 1500
#: Operations between two processes that are killed or paused.
_DISTURBED: Final = 300


def run(folder: Path | None, **options: Any) -> Verdict:
    """Run a workload, print its outcome, and return the verdict on its history.

    Args:
        folder: The folder for the stores and the histories; ``None`` for a temporary one.
        **options: Arguments of `Workload`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        workload = Workload(folder or Path(temporary), **options)
        verdict = check(asyncio.run(workload.run()))
    print(f"{verdict}; faults: {dict(workload.counts)}", flush=True)
    return verdict


def run_controls(styles: Sequence[str], seed: int) -> list[str]:
    """Run a workload with each fault, and return the names of those that were not found."""
    missed = []
    runs: list[tuple[str, Fault, dict[str, Any]]] = []
    for name, fault in CLIENT_FAULTS.items():
        runs.append((f"a client that {name}", fault, {"client_prelude": fault.prelude}))
    for name, fault in SERVER_FAULTS.items():
        runs.append((f"a server that {name}", fault, {"server_prelude": fault.prelude}))
    for name, fault in REPLICA_FAULTS.items():
        runs.append((f"replicas that {name}", fault, {"server_prelude": fault.prelude, "topology": replicas}))
    for name, fault, options in runs:
        print(f"{name}: ", end="", flush=True)
        try:
            verdict = run(None, operations=_CONTROL, styles=styles, seed=seed, **options)
        except AssertionError as error:  # of a session that has failed, which proves nothing
            print(error, flush=True)
            missed.append(name)
            continue
        found = verdict.names & fault.anomalies
        print(f"  found: {', '.join(sorted(found)) or 'NOTHING'}; also: {', '.join(sorted(verdict.names - found))}")
        if not found:
            missed.append(name)
    return missed


def main() -> None:
    """Run with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=5000, help="number of operations (default: 5000)")
    parser.add_argument("--sessions", type=int, default=8, help="number of sessions, of all styles in turn")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random decisions")
    parser.add_argument("--replicas", action="store_true", help="three servers over one PostgreSQL")
    parser.add_argument("--control", action="store_true", help="put in each fault, which must be found")
    parser.add_argument("--folder", type=Path, help="an empty folder, in which the history is kept")
    arguments = parser.parse_args()
    styles = [STYLES[number % len(STYLES)] for number in range(arguments.sessions)]
    if arguments.control:
        missed = run_controls(styles, arguments.seed)
        sys.exit(f"not found: {', '.join(missed)}" if missed else 0)
    verdict = run(
        arguments.folder,
        operations=arguments.operations,
        styles=styles,
        seed=arguments.seed,
        topology=replicas if arguments.replicas else one_server,
        disturb=_DISTURBED,
    )
    print("\n".join(map(str, verdict.anomalies[:_SHOWN])))
    sys.exit(bool(verdict.anomalies))


if __name__ == "__main__":
    main()
