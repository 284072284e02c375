"""The package of the client in JavaScript."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from js.clients import MODULE, PACKAGE

pytestmark = pytest.mark.once


def test_its_types_are_sound(node_executable: str) -> None:
    compiler = PACKAGE / "node_modules" / "typescript" / "bin" / "tsc"
    checked = subprocess.run([node_executable, compiler, "-p", PACKAGE], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_it_is_one_module_that_depends_on_nothing() -> None:
    manifest = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    assert "dependencies" not in manifest
    assert manifest["files"] == [MODULE.name]
    text = MODULE.read_text(encoding="utf-8")
    assert re.findall(r"^\s*import\b|\brequire\(|(?<!\{)\bimport\(", text, re.MULTILINE) == []
    assert len(text.splitlines()) <= 300


def test_its_lock_names_packages_and_not_where_they_come_from() -> None:
    lock = json.loads((PACKAGE / "package-lock.json").read_text(encoding="utf-8"))
    packages = [package for name, package in lock["packages"].items() if name]
    assert all(package["dev"] and "integrity" in package and "resolved" not in package for package in packages)
