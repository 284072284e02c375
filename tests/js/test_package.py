"""The package of the JavaScript client."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from js.clients import MODULE, PACKAGE

pytestmark = pytest.mark.once


def modules() -> list[Path]:
    """The entry of the package and the modules behind it."""
    return [MODULE, *(PACKAGE / "src").glob("*.js")]


def imports_of(module: Path) -> list[str]:
    """The paths of the modules that a module imports or re-exports from."""
    statement = r"^(?:import|export)\b[^'\"]*\bfrom\s+['\"]([^'\"]+)['\"]|^import\s+['\"]([^'\"]+)['\"]"
    matches = re.findall(statement, module.read_text(encoding="utf-8"), re.MULTILINE)
    return [path or bare for path, bare in matches]


def test_the_types_are_correct(node_executable: str) -> None:
    compiler = PACKAGE / "node_modules" / "typescript" / "bin" / "tsc"
    checked = subprocess.run([node_executable, compiler, "-p", PACKAGE], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_package_has_no_dependencies() -> None:
    manifest = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    assert "dependencies" not in manifest
    for module in modules():
        text = module.read_text(encoding="utf-8")
        assert re.findall(r"\brequire\(|(?<!\{)\bimport\(", text) == []
        assert all(path.startswith("./") for path in imports_of(module))


def test_the_package_contains_all_modules() -> None:
    manifest = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    assert manifest["files"] == [MODULE.name, "src"]
    reachable, found = set[Path](), [MODULE]
    while found:
        module = found.pop()
        if module not in reachable:
            reachable.add(module)
            found += [(module.parent / path).resolve() for path in imports_of(module)]
    assert reachable == set(modules())


def test_the_lock_file_names_packages_without_their_registry() -> None:
    lock = json.loads((PACKAGE / "package-lock.json").read_text(encoding="utf-8"))
    packages = [package for name, package in lock["packages"].items() if name]
    assert all(package["dev"] and "integrity" in package and "resolved" not in package for package in packages)
