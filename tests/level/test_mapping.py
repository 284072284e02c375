"""The mapping protocol of `blocking.Level`. The asyncio API lacks it: it cannot be awaited."""

import shelve
import threading
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from treehub_level import MISSING, InvalidKeyError, InvalidValueError, Level, Mode, NotOpenError, blocking


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


def test_a_level_a_sublevel_and_a_view_are_mutable_mappings(level: Any) -> None:
    for mapping in (level, level.sublevel("a"), level.typed(int, prefix="b/")):
        assert isinstance(mapping, MutableMapping)
        assert not mapping
        mapping["k"] = 1
        assert mapping
        assert len(mapping) == 1 or mapping is level


def test_the_methods_of_a_mapping_do_what_those_of_a_dict_do(level: Any) -> None:
    plain: dict[str, Any] = {}
    mapping: Any
    for mapping in (level, plain):
        mapping.update({"b": 1, "a": 2})
        mapping.update([("c", 3), ("a", None)], d=[4])
        mapping |= {"e": 5}
        mapping |= [("f", 6)]
    assert dict(level) == plain
    assert level.keys() == sorted(plain)
    assert level.values() == [plain[key] for key in sorted(plain)]
    assert set(level.keys()) == plain.keys()
    assert list(level.items()) == sorted(plain.items())
    assert ("b", 1) in level.items()
    assert ("b", 2) not in level.items()
    assert len(level.items()) == len(level) == 6
    assert list(reversed(level)) == sorted(plain, reverse=True)

    for mapping in (level, plain):
        assert mapping.pop("b") == 1
        assert mapping.pop("b", "gone") == "gone"
        assert mapping.pop("b", None) is None
        assert mapping.pop("a") is None
        with pytest.raises(KeyError, match="b"):
            mapping.pop("b")
        assert mapping.setdefault("c", 9) == 3
        assert mapping.setdefault("g", {"x": 1}) == {"x": 1}
        assert mapping.setdefault("h") is None
    assert dict(level) == plain
    assert level.popitem() == ("c", 3)
    level.clear()
    assert dict(level) == {}
    with pytest.raises(KeyError):
        level.popitem()


def test_setdefault_returns_the_value_as_it_is_stored(level: Any) -> None:
    assert level.setdefault("a", (1, 2)) == [1, 2]


def test_an_update_is_one_batch() -> None:
    with blocking.Level("x", backend="memory", mode=Level.SERVER) as server:
        with pytest.raises(InvalidValueError):
            server.update({"a": 1, "b": object()})  # type: ignore[arg-type]
        assert server.cid == 0
        server.update({"a": 1, "b": 2}, c=3)
        assert [change.by for change in server.changes(0).changes] == [None] * 3
        assert server.cid == 3


@pytest.mark.parametrize("items", [5, [1], [("a",)], "ab", [("a", 1, 2)]])
def test_an_update_from_something_else_is_refused(level: Any, items: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        level.update(items)
    assert not level


def test_a_level_equals_a_dict_with_its_items_and_of_levels_only_itself(level: Any) -> None:
    level.update(a=1, b=[2])
    assert level == {"b": [2], "a": 1}
    assert level == {"a": 1, "b": [2]}
    assert level != {"a": 1}
    assert level != [("a", 1), ("b", [2])]
    assert level == level
    with blocking.Level("y", backend="memory") as other:
        other.update(level)
        assert other != level
        assert len({level, other, level}) == 2
        assert other == dict(level)


def test_items_are_read_from_one_snapshot_at_each_iteration(level: Any) -> None:
    level.update(a=1, b=2)
    items = level.items()
    iterator = iter(items)
    assert next(iterator) == ("a", 1)
    level["b"] = level["c"] = 3
    assert list(iterator) == [("b", 2)]
    assert list(items) == [("a", 1), ("b", 3), ("c", 3)]


def test_a_mapping_of_bytes_is_a_mapping() -> None:
    with blocking.Level("x", backend="memory", key_encoding="bytes", value_encoding="bytes") as raw:
        mapping: Any = raw
        mapping.update({b"a": b"1"})
        assert dict(mapping.items()) == {b"a": b"1"}
        assert mapping == {b"a": b"1"}


def test_a_shelf_may_be_replaced_by_a_level(tmp_path: Path) -> None:
    def count_words(shelf: MutableMapping[str, Any], text: str) -> None:
        for word in text.split():
            shelf[word] = shelf.get(word, 0) + 1

    with shelve.open(str(tmp_path / "shelf")) as shelf, blocking.Level(tmp_path / "level") as level:
        for mapping in (shelf, level):
            count_words(mapping, "to be or not to be")
        assert dict(shelf) == dict(level) == {"to": 2, "be": 2, "or": 1, "not": 1}


def test_update_with_a_function_is_the_verb_of_both_apis(level: Any) -> None:
    assert level.update("n", lambda n: (n or 0) + 1) == 1
    assert level.update("n", fn=lambda n: n + 1, durable=True) == 2
    assert level.update("n", lambda n: MISSING) is MISSING
    assert not level
    assert level.update({"n": 1}, durable=True) is None
    with pytest.raises(TypeError, match="needs a function"):
        level.update("n")
    with pytest.raises(TypeError, match="keyword"):
        level.update("n", lambda n: 5, other=1)
    assert level == {"n": 1}


def test_each_item_is_popped_once_by_several_threads(level: Any) -> None:
    level.update({f"{n:03}": n for n in range(100)})
    popped: list[Any] = []

    def pop_all() -> None:
        with suppress(KeyError):
            while True:
                popped.append(level.popitem())

    threads = [threading.Thread(target=pop_all) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(popped) == [(f"{n:03}", n) for n in range(100)]
