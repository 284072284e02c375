"""Run the Python examples and the commands of README.md and of the pages in docs/, as printed."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.main import get_command

import treehub_level
from treehub_level import Level, blocking, http, testing
from treehub_level.aio.live import LiveSession
from treehub_level.cli.application import app

ROOT = Path(__file__).parents[2]

#: The pages with Python examples; each page is run in its own empty directory. (The examples of
#: `docs/testing.md` are run by tests/testing/test_documentation.py.)
PAGES = [
    "README.md",
    *(f"docs/{name}.md" for name in ("tutorial", "guide", "types", "key-value")),
    *(f"docs/how-to/{name}.md" for name in ("react-to-changes", "manage-databases", "back-up")),
    *(f"docs/{name}.md" for name in ("sync", "network", "storage", "errors")),
]
#: Pages without Python examples.
OTHER_PAGES = [f"docs/{name}.md" for name in ("api", "cli", "from-npm", "glossary", "index", "install")]

#: The address of the server in the examples. The tests replace it by one with a free port.
ADDRESS = "http://127.0.0.1:8421"

#: The pages whose examples need a server, and the keys that the server has after the last example.
KEYS_ON_THE_SERVER = {
    "README.md": ["bread", "milk"],
    "docs/tutorial.md": ["dairy/butter", "dairy/milk", "drinks/tea"],
    "docs/network.md": ["bread", "milk"],
}

#: The languages of code blocks. Blocks of ``python`` and ``sh`` are run. Blocks of ``text``
#: (commands that need a certificate or a database) and ``js`` (code for browsers) are not.
LANGUAGES = {"python", "sh", "text", "js"}

COMMAND_LINE = [sys.executable, "-m", "treehub_level.cli"]


class Block(NamedTuple):
    """A fenced code block of a page, and the number of its first line."""

    language: str
    line: int
    text: str


def read_blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(fence[1], text[: fence.start(2)].count("\n") + 1, fence[2]) for fence in fences]


def python_blocks(page: str) -> list[Block]:
    return [block for block in read_blocks(page) if block.language == "python"]


def needs_server(page: str) -> bool:
    """True if an example of the page connects to a server."""
    return any(ADDRESS in block.text for block in read_blocks(page) if block.language in ("python", "sh"))


def run(command: list[str], folder: Path) -> str:
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def run_python(blocks: list[Block], page: str, folder: Path, address: str = ADDRESS) -> None:
    """Run examples of a page in order in one process, each with a namespace of its own."""
    programs = []
    for block in blocks:
        # Empty lines in front make a traceback show the line of the page.
        program = folder / f"{Path(page).name} from line {block.line}.py"
        program.write_text("\n" * (block.line - 1) + block.text.replace(ADDRESS, address), encoding="utf-8")
        programs.append(program.name)
    runner = "import runpy, sys\nfor path in sys.argv[1:]: runpy.run_path(path, run_name='__main__')"
    run([sys.executable, "-W", "error", "-c", runner, *programs], folder)


def run_shell(script: str, folder: Path) -> None:
    """Run a script of the page, with the command `treehub-level` of this interpreter."""
    function = f'treehub-level() {{ {shlex.join(COMMAND_LINE)} "$@"; }}'
    run(["bash", "-euo", "pipefail", "-c", f"{function}\n{script}"], folder)


@contextmanager
def serving(arguments: list[str], folder: Path) -> Iterator[str]:
    """Run `treehub-level serve` with these arguments on a free port; yield the server's address."""
    command = [*COMMAND_LINE, "serve", *arguments, "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


def run_page(page: str, folder: Path, address: str) -> None:
    """Run the Python examples and commands of a page in order, with a server at ``address``."""
    for block in read_blocks(page):
        if block.language == "python":
            run_python([block], page, folder, address)
        elif block.language == "sh":
            commands = [line for line in block.text.splitlines() if re.match("treehub-level (?!serve)", line)]
            run_shell("\n".join(commands).replace(ADDRESS, address), folder)


def dump(store: str, folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run([*COMMAND_LINE, "dump", store], folder).splitlines()]


def test_the_readme_has_at_most_250_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES])
def test_every_block_is_of_a_language_that_is_tested_here(page: str) -> None:
    languages = {block.language for block in read_blocks(page)}
    assert languages <= ({"python", "sh"} if page == "README.md" else LANGUAGES)
    assert ("python" in languages) == (page in PAGES)
    assert needs_server(page) == (page in KEYS_ON_THE_SERVER)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_examples_run_in_order_in_one_empty_directory(page: str, tmp_path: Path) -> None:
    blocks = [block for block in python_blocks(page) if ADDRESS not in block.text]
    assert blocks or needs_server(page)
    if blocks:
        run_python(blocks, page, tmp_path)


@pytest.mark.once
@pytest.mark.parametrize("page", KEYS_ON_THE_SERVER)
def test_the_page_runs_from_top_to_bottom_beside_the_server_that_it_starts(page: str, tmp_path: Path) -> None:
    [arguments] = [
        shlex.split(command)[2:]
        for block in read_blocks(page)
        if block.language == "sh"
        for command in block.text.splitlines()
        if command.startswith("treehub-level serve")
    ]
    with serving(arguments, tmp_path) as address:
        run_page(page, tmp_path, address)
    assert [row["key"] for row in dump("stores/notes", tmp_path)] == KEYS_ON_THE_SERVER[page]


@pytest.mark.once
def test_the_commands_of_the_command_line_run_in_order(tmp_path: Path) -> None:
    places: list[dict[str, Any]] = [
        {"key": key, "value": {"name": key[3:]}} for key in ("FR/Lyon", "FR/Paris", "JP/大阪", "PE/Cusco", "FS/none")
    ]
    (tmp_path / "cities.jsonl").write_text("".join(json.dumps(place) + "\n" for place in places))
    (tmp_path / "people.jsonl").write_text('{"id": "ada", "born": 1815}\n{"id": "alan", "born": 1912}\n')
    [script] = [block.text for block in read_blocks("docs/cli.md") if block.language == "sh"]

    run_shell(script, tmp_path)

    greeting = {"key": "greeting", "value": {"en": "hello"}}
    assert dump("laptop", tmp_path) == dump("copy", tmp_path)
    assert dump("copy", tmp_path) == sorted([*places, greeting], key=lambda row: row["key"])
    assert [row["key"] for row in dump("other", tmp_path)] == ["ada", "alan"]
    assert run(["gunzip", "-c", "france.jsonl.gz"], tmp_path).count("\n") == 2


@pytest.mark.once
@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES])
def test_every_other_command_is_a_target_of_the_makefile_or_installs_the_package(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    pyproject = (ROOT / "pyproject.toml").read_text()
    [section] = re.findall(r"^\[project.optional-dependencies\]\n(.*?)^\[", pyproject, re.MULTILINE | re.DOTALL)
    extras = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    for block in read_blocks(page):
        if block.language != "sh":
            continue
        for command in block.text.splitlines():
            match shlex.split(command, comments=True):
                case ["make", target, *_]:
                    assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
                case ["pip", "install", requirement]:
                    assert (match := re.fullmatch(r"\.(?:\[([a-z,]+)\])?", requirement)), requirement
                    assert set(match[1].split(",") if match[1] else []) <= extras, requirement
                case ["treehub-level", *_]:
                    pass
                case other:
                    pytest.fail(f"{page}: no test covers the command {other}")


def options_of(name: str) -> set[str]:
    """Return the options of a command, such as ``token add``."""
    command: Any = get_command(app)
    for word in name.split():
        command = command.commands[word]
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.once
def test_every_command_and_option_exists() -> None:
    for page in (*PAGES, *OTHER_PAGES):
        inline = re.findall(r"`(treehub-level [^`]*)`", (ROOT / page).read_text(encoding="utf-8"))
        code = "\n".join([*(block.text for block in read_blocks(page)), *inline])
        for command in re.findall(r"^treehub-level ([a-z][^|#\n]*)", code, re.MULTILINE):
            words = command.split()
            name = " ".join(words[:2] if words[0] == "token" else words[:1])
            options = {word for word in words if word.startswith("--")}
            assert options <= options_of(name), f"{page}: {command}"


@pytest.mark.once
def test_the_page_of_the_api_lists_every_public_name() -> None:
    words = set(re.findall(r"\w+", (ROOT / "docs/api.md").read_text(encoding="utf-8")))
    errors = set(re.findall(r"\w+", (ROOT / "docs/errors.md").read_text(encoding="utf-8")))
    for package in (treehub_level, treehub_level.backends, blocking, http, testing):
        assert set(package.__all__) <= words | errors, package
    for cls in (Level, LiveSession, http.RemoteServer):
        assert {name for name in dir(cls) if not name.startswith("_")} <= words, cls


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.once
@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES])
def test_every_link_leads_to_a_file_and_a_heading_of_it(page: str) -> None:
    path = ROOT / page
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.once
def test_the_index_lists_every_page() -> None:
    listed = set(re.findall(r"\]\((\w[\w-]*\.md)", (ROOT / "docs/index.md").read_text(encoding="utf-8")))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
