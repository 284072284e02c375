"""The mapping protocol of `blocking.Level`. The asyncio API lacks it: it cannot be awaited."""

from pathlib import Path
from typing import Any

import pytest

from treehub_level import InvalidKeyError, Level, Mode, NotOpenError, blocking


@pytest.fixture
def level(tmp_path: Path, backend: str, mode: Mode) -> Any:
    """An open level of each mode."""
    with blocking.Level(str(tmp_path / "store"), backend=backend, mode=mode) as level:
        yield level


def test_items_are_set_got_and_deleted(level: Any) -> None:
    level["a"] = {"x": 1}
    assert level["a"] == {"x": 1}
    assert level.get("a") == {"x": 1}
    del level["a"]
    assert "a" not in level
    assert level.query() == []


def test_a_missing_item_is_a_key_error(level: Any) -> None:
    with pytest.raises(KeyError, match="nothing"):
        level["nothing"]
    with pytest.raises(KeyError, match="nothing"):
        del level["nothing"]


def test_deleting_a_missing_item_writes_nothing() -> None:
    with blocking.Level("x", backend="memory", mode=Level.SERVER) as server:
        with pytest.raises(KeyError):
            del server["nothing"]
        assert server.cid == 0


def test_a_stored_none_is_an_item(level: Any) -> None:
    level["a"] = None
    assert "a" in level
    assert level["a"] is None


def test_iterating_gives_the_keys_in_order(level: Any) -> None:
    for key in "cab":
        level[key] = key
    assert list(level) == ["a", "b", "c"]


def test_an_invalid_key_is_refused(level: Any) -> None:
    with pytest.raises(TypeError):
        level[5] = 1
    with pytest.raises(TypeError):
        level[5]
    with pytest.raises(TypeError):
        assert 5 in level
    with pytest.raises(InvalidKeyError):
        level["\ud800"] = 1


def test_the_mapping_of_a_closed_level_raises_not_open() -> None:
    level = blocking.Level("x", backend="memory")
    with pytest.raises(NotOpenError):
        level["a"]
    with pytest.raises(NotOpenError):
        level["a"] = 1
    with pytest.raises(NotOpenError):
        del level["a"]
    with pytest.raises(NotOpenError):
        assert "a" in level
    with pytest.raises(NotOpenError):
        list(level)


def test_the_repr_shows_name_mode_and_state() -> None:
    level = blocking.Level("notes", backend="memory", mode=Level.CLIENT)
    assert "'notes'" in repr(level)
    assert "CLIENT" in repr(level)
    assert "closed" in repr(level)
    with level:
        assert "open" in repr(level)
