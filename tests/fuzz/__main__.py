"""The command line of the fuzzing tests: ``make fuzz``, or

    python -m tests.fuzz --inputs 100000
    python -m tests.fuzz --together 10000000
    python -m tests.fuzz keys records --seconds 600 --seed 7
    python -m tests.fuzz urls --faulty

Each harness runs in a process of its own. A finding is printed as a line for the harness's file in
``corpus/``, and the exit status is 1.
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
from .engines import ENGINES, FindingError, run_atheris, run_mutator

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # the harness of stored records uses the package ``crash``
#: The folder in which atheris keeps its corpus between runs; `make clean` deletes it.
ATHERIS_FOLDER = ROOT / "build" / "fuzz"
#: Harnesses whose code runs in another process, so that atheris cannot measure its coverage.
WITHOUT_COVERAGE = {"socket"}


def main() -> None:
    """Run the harnesses that the command line names."""
    names = sorted(path.stem for path in FOLDER.glob("*.txt"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="HARNESS", help=f"harnesses to run; default: {', '.join(names)}")
    parser.add_argument("--inputs", type=int, help="number of inputs for each harness")
    parser.add_argument("--seconds", type=float, help="seconds for each harness, instead of --inputs")
    parser.add_argument(
        "--together", type=int, help="number of inputs for all harnesses, most of them for the fast ones"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of all random choices")
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument("--faulty", action="store_true", help="add a fault to the tested code, which must be found")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = {*arguments.names} - {*names}
    if unknown:
        parser.error(f"unknown harness {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
    if arguments.inputs is None and arguments.seconds is None and arguments.together is None:
        arguments.inputs = 20_000
    if arguments.in_process:
        fuzz(arguments.names[0], arguments)
        return
    inputs: dict[str, int] = {}
    if arguments.together is not None:
        from .harnesses import shares  # late: atheris instruments the imports of the harness's process

        inputs = shares(arguments.together)
    failed = [
        name
        for name in arguments.names or names
        if not run_subprocess(name, arguments, inputs.get(name, arguments.inputs))
    ]
    sys.exit(f"findings in: {', '.join(failed)}" if failed else 0)


def fuzz(name: str, arguments: argparse.Namespace) -> None:
    """Run one harness in this process."""
    limits = {"inputs": arguments.inputs, "seconds": arguments.seconds, "seed": arguments.seed}
    corpus = corpus_of(name)
    if arguments.engine == "atheris" and name not in WITHOUT_COVERAGE:
        import atheris

        with atheris.instrument_imports(include=["treehub_level"]):
            from .harnesses import harness
        with harness(name, faulty=arguments.faulty) as check:
            run_atheris(check, corpus, ATHERIS_FOLDER / name, **limits)
    from .harnesses import harness

    with harness(name, faulty=arguments.faulty) as check:
        try:
            count = run_mutator(check, corpus, **limits)
        except FindingError as finding:
            print(finding, file=sys.stderr)
            raise
    print(f"Done {count} runs")


def run_subprocess(name: str, arguments: argparse.Namespace, inputs: int | None) -> bool:
    """Run one harness in a process of its own: a crash is a finding. True if there was none."""
    command = [sys.executable, "-m", "tests.fuzz", name, "--in-process", "--seed", str(arguments.seed)]
    command += ["--engine", arguments.engine, *(["--faulty"] if arguments.faulty else [])]
    command += [] if inputs is None else ["--inputs", str(inputs)]
    command += [] if arguments.seconds is None else ["--seconds", str(arguments.seconds)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:  # atheris ends its process without deleting files
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
    passed = done.returncode == 0 and runs is not None
    verdict = "no finding" if passed else f"FINDING (exit code {done.returncode}):\n{done.stdout[-6000:]}"
    count = f"{int(runs[1]):,}" if runs else "?"
    print(f"{name}: {count} inputs in {time.monotonic() - began:.1f} s, seed {arguments.seed}: {verdict}", flush=True)
    return passed


if __name__ == "__main__":
    main()
