"""The code blocks of README.md do what they say: each is executed here as it stands there."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

#: Where the server of the README listens. Here it is given whatever port is free.
ADDRESS = "http://127.0.0.1:8421"

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: Any) -> Any:
    """The blocks of a language: the line each begins at, and its text."""
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        yield README[: match.start(1)].count("\n") + 1, match[1]


def run(command: Any, folder: Path) -> Any:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_block_is_of_a_kind_that_is_tested_here() -> None:
    assert set(re.findall(r"^```(\w+)$", README, re.MULTILINE)) == {"python", "sh"}


def test_the_python_blocks_run_in_order_in_one_empty_directory(tmp_path: Path) -> None:
    programs = [(line, program) for line, program in blocks("python") if ADDRESS not in program]
    assert programs
    for line, program in programs:
        # Empty lines in front, so that a traceback names the line of the README.
        (tmp_path / "README.md.py").write_text("\n" * (line - 1) + program)
        run([sys.executable, "-W", "error", "README.md.py"], tmp_path)


@pytest.mark.once
def test_the_client_syncs_with_the_server_in_one_line(tmp_path: Path) -> None:
    ((_, program),) = ((line, program) for line, program in blocks("python") if ADDRESS in program)
    (command,) = re.findall(r"^    treehub-level (serve .*?) +#", README, re.MULTILINE)
    server = subprocess.Popen(
        [sys.executable, "-m", "treehub_level.cli", *shlex.split(command), "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            (tmp_path / "client.py").write_text(program.replace(ADDRESS, address))
            run([sys.executable, "-W", "error", "client.py"], tmp_path)
        finally:
            server.terminate()
    stored = run([sys.executable, "-m", "treehub_level.cli", "dump", "stores/notes"], tmp_path)
    assert [json.loads(line)["key"] for line in stored.splitlines()] == ["bread", "milk"]


@pytest.mark.once
def test_the_commands_of_the_command_line_run_in_order(tmp_path: Path) -> None:
    places: list[dict[str, Any]] = [
        {"key": key, "value": {"name": key[3:]}} for key in ("FR/Lyon", "FR/Paris", "JP/大阪", "PE/Cusco", "FS/none")
    ]
    (tmp_path / "cities.jsonl").write_text("".join(json.dumps(place) + "\n" for place in places))
    (tmp_path / "people.jsonl").write_text('{"id": "ada", "born": 1815}\n{"id": "alan", "born": 1912}\n')
    (script,) = (text for _, text in blocks("sh") if "treehub-level" in text)
    command_line = shlex.join([sys.executable, "-m", "treehub_level.cli"])

    run(["bash", "-euo", "pipefail", "-c", f'treehub-level() {{ {command_line} "$@"; }}\n{script}'], tmp_path)

    def dumped(*args: Any) -> Any:
        output = run([sys.executable, "-m", "treehub_level.cli", "dump", *args], tmp_path)
        return [json.loads(line) for line in output.splitlines()]

    greeting = {"key": "greeting", "value": {"en": "hello"}}
    assert dumped("laptop") == dumped("copy") == sorted([*places, greeting], key=lambda row: row["key"])
    assert [row["key"] for row in dumped("other")] == ["ada", "alan"]
    assert run(["gunzip", "-c", "france.jsonl.gz"], tmp_path).count("\n") == 2


@pytest.mark.once
def test_the_other_commands_are_targets_of_the_makefile_or_install_the_package() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for _, text in blocks("sh"):
        for command in text.splitlines():
            match shlex.split(command, comments=True):
                case ["make", target, *_]:
                    assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
                case ["pip", "install", "."] | ["treehub-level", *_]:
                    pass
                case other:
                    pytest.fail(f"nothing tests {other}")
