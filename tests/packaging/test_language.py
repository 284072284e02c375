"""The language of docstrings, comments and pages: the rules that a program can check."""

from __future__ import annotations

from pathlib import Path

import pytest
from rules import language
from rules.language import KNOWN, ROOT, Text

pytestmark = pytest.mark.once

FILES = [path.relative_to(ROOT).as_posix() for path in language.files()]
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md") if path.name != "glossary.md")
GLOSSARY = """
# Glossary

## Change

One put or delete.

## Change log

The record of all changes.

## Epoch

One period of writing.
"""
TERMS = {"change": "change", "change log": "change-log", "epoch": "epoch"}


def found_in(name: str, source: str) -> list[str]:
    """The findings in a made-up file."""
    return language.findings(language.texts_in(name, source))


# ---------------------------------------------------------------------------------- words and width


def test_the_files_of_all_kinds_are_checked() -> None:
    assert {"README.md", "src/treehub_level/types.py", "tests/rules/language.py"} <= set(FILES)
    assert {"src/_core/keys.pyx", "src/_core/find_leveldb.cmake", "docs/protocol.md", "js/README.md"} <= set(FILES)
    assert {Path(name).suffix for name in FILES} == {
        *(".c", ".cmake", ".js", ".md", ".mjs", ".pxd", ".py", ".pyi", ".pyx")
    }


@pytest.mark.parametrize("name", FILES)
def test_prose_keeps_the_rules(name: str) -> None:
    found = language.findings(language.texts_of(ROOT / name))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a.py", "# Called by nobody.\n"),
        ("a.py", '"""Wake whoever waits."""\n'),
        (
            "a.py",
            'class A:\n    def f(self) -> None:\n        """Return.\n\n        What is left is dropped.\n        """\n',
        ),
        ("a.pyi", "x: int  # what was written\n"),
        ("a.pyx", 'cdef int f():\n    """Write whatever is there."""\n'),
        ("a.pyx", "x = 1  # somebody's\n"),
        ("a.cmake", "# Whatever is installed\n"),
        ("a.c", "/* for whoever asks */\n"),
        ("a.js", "// what the server says\n"),
        ("a.mjs", " * who is there\n"),
        ("a.md", "Wherever it is, it stays.\n"),
    ],
)
def test_a_banned_word_is_found(name: str, source: str) -> None:
    assert found_in(name, source) != []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a.py", '"""Say `nobody`."""\n'),  # code
        ("a.py", 'x = "nobody"\n'),
        ("a.js", 'const url = "http://nobody"\n'),
        ("a.md", "```\nnobody\n```\n"),
        ("a.md", "The error says what to install.\n"),
    ],
)
def test_code_and_plain_words_are_allowed(name: str, source: str) -> None:
    assert found_in(name, source) == []


@pytest.mark.parametrize("word", ["Whether", "What", "Where", "It", "This", "Who", "When", "That"])
def test_a_docstring_that_begins_with_no_verb_and_no_noun_is_found(word: str) -> None:
    assert found_in("a.py", f'def f() -> None:\n    """{word} ends.\n    """\n') != []
    assert found_in("a.pyx", f'def f():\n    """{word} ends."""\n') != []


def test_a_docstring_that_begins_with_a_verb_or_a_noun_is_allowed() -> None:
    assert found_in("a.py", '"""True if all is well."""\n\n\ndef f() -> None:\n    """Return the whole."""\n') == []


@pytest.mark.parametrize(
    ("name", "prefix"), [("a.py", "# "), ("a.py", "    # "), ("a.pyx", "# "), ("a.js", "// "), ("a.md", "")]
)
def test_a_line_of_prose_is_at_most_100_columns_wide(name: str, prefix: str) -> None:
    line = prefix.ljust(100, "x")
    source = f"if x:\n{line}\n    pass\n" if prefix.startswith(" ") else f"{line}\n"
    assert found_in(name, source) == []
    assert found_in(name, source.replace(line, f"{line}x")) != []


def test_ruff_checks_the_width_of_docstrings() -> None:
    assert f"max-doc-length = {language.WIDTH} " in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", [f"| {'x' * 100} |", f"# {'x' * 100}", f"see https://{'x' * 100}"])
def test_lines_that_cannot_be_wrapped_may_be_wide(line: str) -> None:
    assert found_in("a.md", f"{line}\n") == []


# ------------------------------------------------------------------------------------- the glossary


@pytest.fixture(scope="module")
def terms() -> dict[str, str]:
    """The words of the glossary that are not declared known, with their anchors."""
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    return {term: anchor for term, anchor in language.glossary_terms(glossary).items() if term not in KNOWN}


@pytest.mark.parametrize("page", PAGES)
def test_words_of_the_glossary_are_linked_at_their_first_use(page: str, terms: dict[str, str]) -> None:
    assert language.unlinked_terms((ROOT / "docs" / page).read_text(encoding="utf-8"), terms) == []


def test_known_words_are_in_the_glossary() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert language.glossary_terms(glossary).keys() >= KNOWN


def test_the_terms_of_a_glossary_have_the_anchors_of_their_headings() -> None:
    assert {term: anchor for term, anchor in language.glossary_terms(GLOSSARY).items() if term != "glossary"} == TERMS


@pytest.mark.parametrize(
    ("page", "missing"),
    [
        ("An epoch begins.", ["epoch"]),
        ("Epochs begin.", ["epoch"]),
        ("An epoch begins. An [epoch](glossary.md#epoch) ends.", ["epoch"]),
        ("An [epoch](protocol.md) begins.", ["epoch"]),
        ("The change\nlog grows.", ["change log"]),
        ("The [change log](glossary.md#change-log) has each change.", ["change"]),
    ],
)
def test_a_word_that_is_not_linked_is_found(page: str, missing: list[str]) -> None:
    assert language.unlinked_terms(page, TERMS) == missing


@pytest.mark.parametrize(
    "page",
    [
        "An [epoch](glossary.md#epoch) begins. The epoch ends.",
        "[Epochs](glossary.md#epoch) begin.",
        "A [period](glossary.md#epoch), or epoch, begins.",
        "# Epoch\n\nThe call `epoch()` has\n\n```\nepoch\n```\n",
        "It is unchanged, and of an epochal size.",
        "The [change log](glossary.md#change-log) grows.",
    ],
)
def test_a_word_that_is_linked_or_not_used_is_allowed(page: str) -> None:
    assert language.unlinked_terms(page, TERMS) == []


def test_text_keeps_its_columns() -> None:
    source = "if x:\n    # y\n    pass  # z\n"
    assert list(language.texts_in("a.py", source)) == [
        Text("comment", "a.py", 2, "    # y"),
        Text("comment", "a.py", 3, "# z"),
    ]
