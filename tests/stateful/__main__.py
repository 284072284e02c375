"""Longer runs of the state machines, with both cores unless TREEHUB_LEVEL_CORE names one.

With both cores, all property tests (Hypothesis) follow, with more examples.

python -m tests.stateful --examples 100000 --seed 1
python -m tests.stateful --examples 1000 --only blocking-memory-client
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of `stores` and `ranges`

#: The property tests. Hypothesis marks them; the state machines of this folder have their own loop.
PROPERTIES = ["-m", "hypothesis and not repeated", "tests", "--ignore=tests/stateful"]


def main() -> None:
    """Run examples as the command line demands. Hypothesis prints a minimal failing example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--examples", type=int, default=2000, help="the number of examples, of all variants and cores together"
    )
    parser.add_argument("--seed", type=int, default=0, help="the random seed of the examples")
    parser.add_argument("--only", help="run this variant only")
    arguments = parser.parse_args()
    if "TREEHUB_LEVEL_CORE" not in os.environ:
        _run_both_cores(arguments)
    from databases import database_url

    from treehub_level import _core

    from .machine import run, shares

    chosen = [share for share in shares(arguments.examples) if arguments.only in (None, str(share[0]))]
    needs_database = any(variant.backend == "postgres" for variant, _ in chosen)
    with database_url() if needs_database else nullcontext("") as url:
        for variant, examples in chosen:
            number = arguments.examples if arguments.only else examples
            started = time.monotonic()
            run(variant, number, with_seed=arguments.seed, url=url)
            seconds = time.monotonic() - started
            print(f"{_core.CORE}-{variant}: {number} examples, no difference, {seconds:.0f} s", flush=True)


def _run_both_cores(arguments: argparse.Namespace) -> None:
    only = ["--only", arguments.only] if arguments.only else []
    half = ["--examples", str(-(-arguments.examples // 2)), "--seed", str(arguments.seed), *only]
    for core in ("c", "python"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.stateful", *half], env=os.environ | {"TREEHUB_LEVEL_CORE": core}
        )
        if done.returncode:
            sys.exit(done.returncode)
    sys.exit(0 if arguments.only else _test_properties(arguments.examples))


def _test_properties(examples: int) -> int:
    """Run the property tests with more examples. Return their exit code."""
    factor = str(max(1, examples // 5000))
    command = [sys.executable, "-m", "pytest", "-q", "--numprocesses=auto", *PROPERTIES]
    return subprocess.run(command, env=os.environ | {"TREEHUB_LEVEL_EXAMPLES": factor}).returncode


if __name__ == "__main__":
    main()
