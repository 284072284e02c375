"""The committed corpus: a file for each harness, with one input a line, as a bytes literal."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).with_name("corpus")


def corpus_of(harness: str) -> list[bytes]:
    """The first inputs of a harness, including its former findings."""
    lines = (FOLDER / f"{harness}.txt").read_text(encoding="ascii").splitlines()
    return [ast.literal_eval(line) for line in lines]
