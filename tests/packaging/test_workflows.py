"""The workflows run only code that is pinned: actions by commit, packages by hash."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
#: An action at a commit, with the version in a comment, which Dependabot keeps current.
PINNED = re.compile(r"[\w.-]+/[\w.-]+(?:/[\w./-]+)?@[0-9a-f]{40} # v\d+\.\d+\.\d+")
#: A package of a lock file, with its hashes: the name and the version.
PACKAGE = r"^([\w.-]+)==(\S+)(?: ;.*)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+"
#: `pip install` with hashes, or of files that an earlier step has built.
REQUIREMENTS = r"\.github/requirements/\w+\.txt"
HASHED = re.compile(rf"pip install (--require-hashes --requirement {REQUIREMENTS}|--no-deps --no-index )")


def unpinned(text: str) -> list[str]:
    """Return the actions of a workflow that are not pinned to a commit with its version."""
    uses = [line.partition("uses:")[2].strip() for line in text.splitlines() if "uses:" in line]
    return [action for action in uses if not PINNED.fullmatch(action)]


def unhashed(text: str) -> list[str]:
    """Return the commands of a workflow that install packages without comparing hashes."""
    runs = [
        line
        for job in yaml.safe_load(text)["jobs"].values()
        for step in job["steps"]
        for line in step.get("run", "").splitlines()
    ]
    return [line for line in runs if "pip install" in line and not HASHED.search(line)]


def privileged(text: str) -> dict[str, list[str]]:
    """Return the actions of third parties in each job that may request an identity token."""
    jobs: dict[str, Any] = yaml.safe_load(text)["jobs"]
    return {
        name: [step["uses"] for step in job["steps"] if not step.get("uses", "actions/").startswith("actions/")]
        for name, job in jobs.items()
        if job.get("permissions", {}).get("id-token") == "write"
    }


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_to_a_commit(path: Path) -> None:
    assert unpinned(path.read_text(encoding="utf-8")) == []


def test_a_release_installs_packages_by_their_hashes_only() -> None:
    assert unhashed((ROOT / ".github/workflows/wheels.yml").read_text(encoding="utf-8")) == []
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    installs = re.findall(r'^before-(?:build|test) = "(.*)"$', settings, re.MULTILINE)
    assert len(installs) == 2
    assert all("--require-hashes" in command for command in installs)
    assert 'build-frontend = { name = "build", args = ["--no-isolation"] }' in settings


def test_the_job_that_publishes_runs_no_action_of_third_parties() -> None:
    assert privileged((ROOT / ".github/workflows/wheels.yml").read_text(encoding="utf-8")) == {"publish": []}


@pytest.mark.parametrize("path", sorted((ROOT / ".github/requirements").glob("*.txt")), ids=lambda path: path.stem)
def test_each_package_of_a_release_has_a_hash_and_the_version_of_the_tools(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    packages = re.findall(PACKAGE, text, re.MULTILINE)
    assert len(packages) == sum("==" in line for line in text.splitlines() if not line.startswith(" "))
    pins = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    for name, found in packages:
        pinned = set(re.findall(rf"^{re.escape(name)}==([^\s;]+)", pins, re.MULTILINE))
        assert not pinned or found in pinned, f"{name}: run `make lock`"


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (unpinned, "      - uses: actions/checkout@v4\n"),
        (unpinned, "      - uses: pypa/gh-action-pypi-publish@release/v1\n"),
        (unhashed, "jobs: {a: {steps: [{run: python -m pip install build}]}}"),
        (
            lambda text: privileged(text)["a"],
            "jobs: {a: {permissions: {id-token: write}, steps: [{uses: pypa/action@1}]}}",
        ),
    ],
)
def test_a_fault_in_a_workflow_is_found(check: Any, text: str) -> None:
    assert check(text)
