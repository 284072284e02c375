"""The committed corpus: for each harness a file with an input a line, as Python writes bytes."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).with_name("corpus")


def corpus_of(harness: str) -> list[bytes]:
    """The inputs that fuzzing a harness begins with. What it has found once is among them."""
    lines = (FOLDER / f"{harness}.txt").read_text(encoding="ascii").splitlines()
    return [ast.literal_eval(line) for line in lines]
