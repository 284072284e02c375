"""The rules of language that a program can check, in docstrings, comments and Markdown.

Each rule is a generator of findings, so that a test can run it over the project and over a made-up
text that breaks it. Python's width is checked by ruff (W505), with the same limit.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]

#: Columns of a line of prose.
WIDTH: Final = 100

#: Words that no text uses: pronouns for unknown people, and names that the project has given up.
BANNED: Final = re.compile(
    r"\b(nobody|somebody|everybody|anybody|whoever|whomever|whatever|whichever|wherever"
    r"|amiss|turmoil|the seed|the original|news|by itself)(?:'s)?\b",
    re.IGNORECASE,
)

#: Clauses that take the place of a noun, such as `what is written` for "the written bytes".
CLAUSES: Final = re.compile(
    r"\b(what|who|whom)(?:'s| (?:is|was|are|were|has|had|it|they|he|we|can|cannot|could|will|would|may|might|must|shall"
    r"|does|did|do|came|comes|becomes|became|stands|lies|goes|went|waits|asks|gets|got|makes|made|takes|took|holds|needs"
    r"|says|knows|reads|writes|wrote|calls|lost|happens|happened|the|a|this|that|there))\b",
    re.IGNORECASE,
)

#: Words with which no docstring begins: it begins with a verb in the imperative or with a noun.
FIRST_WORDS: Final = {
    *("how", "it", "that", "there", "they", "this", "what", "whatever", "when", "where", "which"),
    *("who", "whoever", "whom", "whose", "whether", "why"),
}

#: Words of the glossary that any reader of a database's pages knows. Every other one is linked
#: where a page first uses it.
KNOWN: Final = {
    "backend",
    "batch",
    "change",
    "check",
    "client",
    "commit",
    "conflict",
    "core",
    "counterpart",
    "durable",
    "fill",
    "group",
    "key",
    "page",
    "prefix",
    "range",
    "refusal",
    "server",
    "snapshot",
    "store",
    "token",
    "value",
}


class Text(NamedTuple):
    """A piece of prose.

    Attributes:
        kind: "docstring", "comment" or "markdown".
        path: The file.
        line: The number of its first line.
        text: Its lines. A comment on a line of its own keeps its indentation, to count
            its columns.
    """

    kind: str
    path: str
    line: int
    text: str


class Finding(NamedTuple):
    """A place that breaks a rule."""

    path: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}"


# ----------------------------------------------------------------------------------- where prose is


def files() -> list[Path]:
    """Return the files with prose: those under version control, without git those in the tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    paths = [ROOT / name for name in listed.split("\0") if name] or sorted(ROOT.rglob("*"))
    return [path for path in paths if path.is_file() and _has_prose(path.relative_to(ROOT))]


def _has_prose(path: Path) -> bool:
    folders = {"src", "tests", "benchmarks", "examples", "js", "docs"}
    skipped = {"node_modules", "__pycache__", "corpus"}
    if (path.parts[0] not in folders and path.suffix != ".md") or skipped & set(path.parts):
        return False
    return path.suffix in {".py", ".pyi", ".pyx", ".pxd", ".cmake", ".c", ".js", ".mjs", ".md"}


def texts_of(path: Path) -> list[Text]:
    """Return the prose of a file."""
    return list(texts_in(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")))


def texts_in(path: str, source: str) -> Iterator[Text]:
    """Yield the prose in a source, whose kind its file name tells."""
    suffix = Path(path).suffix
    if suffix == ".md":
        yield from _markdown(path, source)
    elif suffix in (".py", ".pyi"):
        yield from _python(path, source)
    else:
        yield from _other(path, source, suffix)


def _python(path: str, source: str) -> Iterator[Text]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if (docstring := ast.get_docstring(node, clean=False)) is not None:
            yield Text("docstring", path, node.body[0].lineno, docstring)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            alone = token.line.lstrip().startswith("#")  # behind code, it may be as wide as code
            yield Text("comment", path, token.start[0], token.line.rstrip() if alone else token.string)


def _other(path: str, source: str, suffix: str) -> Iterator[Text]:
    mark = r"//|/\*|^\s*\*" if suffix in (".c", ".js", ".mjs") else "#"
    for number, line in enumerate(source.split("\n"), 1):
        if found := re.search(rf"(?:^|\s)({mark})(?!\S*[\"'])\s?(.*)", line):
            yield Text("comment", path, number, line if line.lstrip().startswith(found[1].strip()) else found[0])
    if suffix in (".pyx", ".pxd"):
        for found in re.finditer(r'"""(.*?)"""', source, re.DOTALL):
            yield Text("docstring", path, source[: found.start()].count("\n") + 1, found[1])


def _markdown(path: str, source: str) -> Iterator[Text]:
    in_code = False
    for number, line in enumerate(source.split("\n"), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code and not line.startswith("    "):
            yield Text("markdown", path, number, line)


# ---------------------------------------------------------------------------------------- the rules


def banned_words(text: Text) -> Iterator[Finding]:
    """Find banned words and clauses in the place of a noun. Code in backticks is left out."""
    for offset, line in enumerate(re.sub(r"`[^`]*`", "`x`", text.text).split("\n")):
        for rule, name in ((BANNED, "banned word"), (CLAUSES, "clause in the place of a noun")):
            for found in rule.finditer(line):
                yield Finding(text.path, text.line + offset, f"{name} {found[0]!r}: {line.strip()}")


def first_words(text: Text) -> Iterator[Finding]:
    """Find docstrings that do not begin with a verb or a noun."""
    if text.kind == "docstring":
        word = re.match(r"\W*([A-Za-z]+)", text.text)
        if word and word[1].lower() in FIRST_WORDS:
            yield Finding(text.path, text.line, f"the docstring begins with {word[1]!r}: {text.text.strip()[:60]}")


def wide_lines(text: Text) -> Iterator[Finding]:
    """Find lines of prose that are too long, except tables, headings and links of Markdown."""
    for offset, line in enumerate(text.text.split("\n")):
        unbroken = text.kind == "markdown" and re.match(r"\||#|\s*(\[|!\[|<)", line)
        if len(line) > WIDTH and not unbroken and "://" not in line:
            yield Finding(text.path, text.line + offset, f"{len(line)} columns of prose, more than {WIDTH}")


def findings(texts: Iterable[Text]) -> list[str]:
    """Return all that these texts break of the three rules."""
    return [str(found) for text in texts for rule in (banned_words, first_words, wide_lines) for found in rule(text)]


# ------------------------------------------------------------------------------------- the glossary


def glossary_terms(glossary: str) -> dict[str, str]:
    """Return the words that a glossary defines, one a heading, with the anchors of the headings."""
    headings: list[str] = re.findall(r"^## (.+)$", glossary, re.MULTILINE)
    return {heading.lower(): re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def unlinked_terms(page: str, terms: dict[str, str]) -> list[str]:
    """Return the words of the glossary that a page uses before it links them to the glossary.

    Headings and code do not count as a use. The plural counts. A word inside a longer term of the
    glossary does not: a "change log" is not a use of "change".
    """
    text = "\n".join(text.text for text in _markdown("", page) if not text.text.startswith("#"))
    text = re.sub(r"`[^`]*`", "`x`", text)
    text = re.sub(r"\[[^\]]*\]\(glossary\.md#([\w-]+)\)", r"\0\1\0", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    missing = []
    for term in sorted(terms, key=len, reverse=True):
        word = re.compile(
            rf"(?<![\w\0-]){re.escape(term).replace(chr(92) + ' ', chr(92) + 's+')}s?(?![\w\0])", re.IGNORECASE
        )
        used, linked = word.search(text), text.find(f"\0{terms[term]}\0")
        if used and (linked < 0 or used.start() < linked):
            missing.append(term)
        text = word.sub(lambda found: "x" * len(found[0]), text)
    return sorted(missing)
