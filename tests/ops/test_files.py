"""The other files of ``examples/ops``, checked by their own tools as far as these are installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from treehub_level.cli.application import app

pytestmark = pytest.mark.once

OPS = Path(__file__).parents[2] / "examples" / "ops"
MANUAL = OPS.parents[1] / "docs" / "how-to" / "deploy.md"


def checked(*command: str) -> str:
    """Run the tool that checks a file, and return its output."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The units of systemd, with a program that exists here."""
    names = []
    for name in ("treehub-level.service", "treehub-level.socket"):
        text = (OPS / name).read_text().replace("/opt/treehub-level/bin/treehub-level", "/bin/true")
        (tmp_path / name).write_text(text)
        names.append(str(tmp_path / name))
    return names


def test_the_units_are_valid(units: list[str]) -> None:
    assert checked("systemd-analyze", "verify", *units) == ""
    Path(units[0]).write_text(Path(units[0]).read_text().replace("UMask=0077", "UMsk=0077"))
    assert "UMsk" in checked("systemd-analyze", "verify", *units), "control: a typo is found"


def test_the_service_is_hardened(units: list[str]) -> None:
    # From 0, no exposure, to 10; a service without settings has 9.6.
    checked("systemd-analyze", "security", "--offline=true", "--threshold=15", units[0])


def test_the_scrape_configuration_is_valid(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x")
    text = (OPS / "prometheus.yml").read_text()
    assert "/etc/prometheus/treehub-level.token" in text
    copy = tmp_path / "prometheus.yml"
    copy.write_text(text.replace("/etc/prometheus/treehub-level.token", str(token)))
    assert "SUCCESS" in checked("promtool", "check", "config", str(copy))


def test_a_rotated_log_goes_on_in_the_same_file(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    rules = tmp_path / "rules"
    rules.write_text((OPS / "treehub-level.logrotate").read_text().replace("/var/log/treehub-level", str(tmp_path)))
    with log.open("ab") as file:
        file.write(b"before\n")
        file.flush()
        checked("logrotate", "--force", "--state", str(tmp_path / "state"), str(rules))
        file.write(b"after\n")
    assert log.read_text() == "after\n"
    assert (tmp_path / "server.log.1").read_text() == "before\n"


def test_the_dockerfile_keeps_the_rules_of_hadolint() -> None:
    checked("hadolint", str(OPS / "Dockerfile"))


def test_the_image_and_the_compose_file_name_what_exists() -> None:
    compose = yaml.safe_load((OPS / "compose.yaml").read_text())
    server = compose["services"]["server"]
    assert (OPS / server["build"]["context"] / server["build"]["dockerfile"]).samefile(OPS / "Dockerfile")
    from typer.main import get_command

    command = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    known = {f"TREEHUB_LEVEL_SERVE_{parameter.name.upper()}" for parameter in command.params}
    assert {*server["environment"]} <= known
    image = (OPS / "Dockerfile").read_text()
    variables = {name for name in image.replace("=", " ").split() if name.startswith("TREEHUB_LEVEL_SERVE_")}
    assert variables <= known


def test_the_page_names_each_file_and_none_that_is_absent() -> None:
    linked = {Path(target).name for target in re.findall(r"examples/ops/([\w./-]+)\)", MANUAL.read_text())}
    assert linked <= {path.name for path in OPS.iterdir()}
    assert linked >= {"Caddyfile", "Dockerfile", "compose.yaml", "haproxy.cfg", "nginx.conf", "prometheus.yml"}
    assert linked >= {f"treehub-level.{kind}" for kind in ("logrotate", "service", "socket")} | {"treehub.toml"}
