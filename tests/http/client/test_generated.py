"""The blocking `RemoteServer` is generated from the asyncio one, and up to date."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from .generate_blocking import SOURCE, TARGET, generate, is_current

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(find_spec("ruff") is None, reason="ruff, which formats the generated file, is not installed"),
    pytest.mark.skipif(not SOURCE.exists(), reason="the package is tested without its source tree"),
]


def test_the_blocking_remote_server_is_generated_from_the_asyncio_one() -> None:
    assert TARGET.read_text(encoding="utf-8") == generate(SOURCE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("timeout: float = 30.0", "timeout: float = 20.0"),
        ("self._is_closed = True", "self._is_closed = bool(1)"),
        ("Maximum number of retries of a call.", "The number of retries of a call."),
    ],
)
def test_an_edit_by_hand_is_detected(old: str, new: str) -> None:
    source, target = SOURCE.read_text(encoding="utf-8"), TARGET.read_text(encoding="utf-8")
    edited = target.replace(old, new)
    assert edited != target
    assert not is_current(source, edited)
    assert not is_current(source.replace(old, new), target)


@pytest.mark.parametrize("line", ["async for item in items: ...", "aiter(items)", "class C(AsyncMock): ..."])
def test_a_missing_replacement_is_detected(line: str) -> None:
    with pytest.raises(ValueError, match="REPLACEMENTS"):
        generate(f"{line}\n")
