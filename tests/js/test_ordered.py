"""Ordered keys in JavaScript have the bytes of those in Python: the same golden vectors."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from js.clients import MODULE

pytestmark = pytest.mark.once

VECTORS = Path(__file__).parents[1] / "golden" / "ordered.json"


def run(node: str, vectors: Path) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("ordered.mjs")
    return subprocess.run([node, script, MODULE, vectors], capture_output=True, text=True, check=False)


def test_the_golden_vectors_of_ordered_keys_hold_in_javascript(node_executable: str) -> None:
    done = run(node_executable, VECTORS)
    assert (done.returncode, done.stderr) == (0, "")
    assert "101 keys" in done.stdout


@pytest.mark.parametrize(
    ("right", "wrong"), [('"ib42!"', '"ib43!"'), ('"ia05!"', '"ia5!"'), ('"float": "bff8', '"float": "bff9')]
)
def test_control_a_changed_vector_is_found(node_executable: str, right: str, wrong: str, tmp_path: Path) -> None:
    text = VECTORS.read_text(encoding="utf-8")
    assert right in text
    changed = tmp_path / "ordered.json"
    changed.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    assert run(node_executable, changed).returncode == 1
