"""Fuzzing by a command line: ``make fuzz``, or

    python -m tests.fuzz --inputs 100000
    python -m tests.fuzz --together 10000000
    python -m tests.fuzz keys records --seconds 600 --seed 7
    python -m tests.fuzz urls --faulty

Each harness runs in a process of its own. A find is printed as a line for its file in ``corpus/``, and ends the run
with 1.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .corpus import FOLDER, corpus_of
from .engines import ENGINES, FoundError, run_atheris, run_mutator

ROOT = Path(__file__).parents[2]
#: What atheris keeps between two runs: `make clean` deletes it.
KEPT = ROOT / "build" / "fuzz"
#: Behind the socket there is another process, whose coverage nobody sees here.
BLIND = {"socket"}


def main() -> None:
    """Run harnesses as the command line says."""
    names = sorted(path.stem for path in FOLDER.glob("*.txt"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="HARNESS", help=f"which ones, by default all: {', '.join(names)}")
    parser.add_argument("--inputs", type=int, help="how many inputs for each")
    parser.add_argument("--seconds", type=float, help="or how long for each")
    parser.add_argument("--together", type=int, help="or how many for all of them, most to the fast ones")
    parser.add_argument("--seed", type=int, default=1, help="decides everything")
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument("--faulty", action="store_true", help="put a fault into what is tested; it must be found")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = {*arguments.names} - {*names}
    if unknown:
        parser.error(f"there is no harness {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    if arguments.inputs is None and arguments.seconds is None and arguments.together is None:
        arguments.inputs = 20_000
    if arguments.alone:
        fuzz(arguments.names[0], arguments)
        return
    share: dict[str, int] = {}
    if arguments.together is not None:
        from .harnesses import shares  # not above: atheris instruments what the harness's own process imports

        share = shares(arguments.together)
    failed = [
        name
        for name in arguments.names or names
        if not in_a_process(name, arguments, share.get(name, arguments.inputs))
    ]
    sys.exit(f"found something in: {', '.join(failed)}" if failed else 0)


def fuzz(name: str, arguments: argparse.Namespace) -> None:
    """Run one harness in this process."""
    limits = {"inputs": arguments.inputs, "seconds": arguments.seconds, "seed": arguments.seed}
    corpus = corpus_of(name)
    if arguments.engine == "atheris" and name not in BLIND:
        import atheris

        with atheris.instrument_imports(include=["treehub_level"]):
            from .harnesses import harness
        with harness(name, faulty=arguments.faulty) as check:
            run_atheris(check, corpus, KEPT / name, **limits)
    from .harnesses import harness

    with harness(name, faulty=arguments.faulty) as check:
        try:
            count = run_mutator(check, corpus, **limits)
        except FoundError as found:
            print(found, file=sys.stderr)
            raise
    print(f"Done {count} runs")


def in_a_process(name: str, arguments: argparse.Namespace, inputs: int | None) -> bool:
    """Run one harness in a process of its own, so that a crash is seen as one. Whether nothing was found."""
    command = [sys.executable, "-m", "tests.fuzz", name, "--alone", "--seed", str(arguments.seed)]
    command += ["--engine", arguments.engine, *(["--faulty"] if arguments.faulty else [])]
    command += [] if inputs is None else ["--inputs", str(inputs)]
    command += [] if arguments.seconds is None else ["--seconds", str(arguments.seconds)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:  # atheris ends its process before that could tidy up
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0", "TMPDIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
        )
    runs = re.search(r"Done (\d+) runs", done.stdout)
    well = done.returncode == 0 and runs is not None
    what = "nothing found" if well else f"FOUND (exit code {done.returncode}):\n{done.stdout[-6000:]}"
    count = f"{int(runs[1]):,}" if runs else "?"
    print(f"{name}: {count} inputs in {time.monotonic() - began:.1f} s, seed {arguments.seed}: {what}", flush=True)
    return well


if __name__ == "__main__":
    main()
