"""The command line of a row that runs each share of its work in a process of its own.

So a share that crashes or hangs is a finding, and the others run all the same.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
#: The first word of the output of a process that found nothing.
_DONE: Final = "done "


@dataclass(frozen=True)
class SoakProgram:
    """A program for shares of a kind of work over a backend.

    The process of a share is given ``--alone`` with a folder for its stores. It prints its result
    by `report`.

    Attributes:
        module: The module of the program.
        unit: The option for the size of a share: "rounds".
        flags: Options of the interpreter.
        timeout: Seconds after which a process counts as hanging; ``None`` for no limit.
    """

    module: str
    unit: str
    flags: Sequence[str] = ()
    timeout: float | None = None

    def parse(
        self, description: str | None, *, default: int, backends: Sequence[str], kinds: Iterable[str]
    ) -> argparse.Namespace:
        """Read the command line.

        Returns:
            The arguments ``size``, ``seed``, ``backend``, ``kind``, and ``alone``, which is
            ``None`` in the process that starts the others.
        """
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument(f"--{self.unit}", dest="size", type=int, default=default, help=f"number of {self.unit}")
        parser.add_argument(
            "--seed", type=int, default=1, help="selects the calls, but not the interleaving of threads"
        )
        parser.add_argument("--backend", choices=backends, help="only this one")
        parser.add_argument("--kind", choices=[*kinds], help="only this one")
        parser.add_argument("--alone", metavar="FOLDER", help=argparse.SUPPRESS)
        return parser.parse_args()

    def run(self, kind: str, backend: str, size: int, seed: int) -> str | None:
        """Run a share in a new process, and print its result.

        Returns:
            The result; ``None`` if the process crashed, hung or failed.
        """
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, *self.flags, "-m", self.module, "--alone", folder, "--kind", kind]
            command += ["--backend", backend, f"--{self.unit}", str(size), "--seed", str(seed)]
            paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])
            try:
                done = subprocess.run(
                    command,
                    cwd=ROOT,
                    env={**os.environ, "PYTHONPATH": paths},
                    capture_output=True,
                    text=True,
                    timeout=self.timeout,
                )
                code, output = done.returncode, done.stdout + done.stderr
            except subprocess.TimeoutExpired as hung:
                code, output = -1, f"it hangs: {hung.stderr!r:.3000}"
        result = output.strip().removeprefix(_DONE) if code == 0 and output.startswith(_DONE) else None
        shown = result or f"FAILED (exit code {code}):\n{output[-6000:]}"
        print(f"{kind} over {backend}, seed {seed}: {shown} in {time.monotonic() - began:.1f} s", flush=True)
        return result


def report(result: str) -> None:
    """Print the result of a share that found nothing, in its own process."""
    print(f"{_DONE}{result}")


def finish(failures: int) -> None:
    """End the process that has started the others, with an error if shares have failed."""
    sys.exit(f"{failures} processes failed" if failures else 0)
