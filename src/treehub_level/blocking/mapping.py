"""A level as a mapping: the protocol of `collections.abc.MutableMapping`."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Generic, TypeVar, overload

from ..types import MISSING, Default, Found, Key, Put, Value, Written
from .reads import ReadVerbs
from .writes import WriteVerbs

M = TypeVar("M", bound="MappingVerbs[Any, Any, Any, Any]")


class LevelItems(ItemsView[Key, Value]):
    """The pairs of a level as a set-like view. Each iteration reads one snapshot, in key order."""

    _mapping: MappingVerbs[Key, Value, Any, Any]

    def __iter__(self) -> Iterator[tuple[Key, Value]]:
        return self._mapping.scan()


class MappingVerbs(  # type: ignore[misc]  # keys() and values() return lists, clear() returns a number
    ReadVerbs[Key, Value, Found],
    WriteVerbs[Key, Written],
    MutableMapping[Key, Value],
    Generic[Key, Value, Found, Written],
):
    """The operators and methods of a mutable mapping, in key order.

    ``keys()`` and ``values()`` are the verbs that read ranges, so they return lists. An empty level
    is false. A level equals another mapping with the same items; of levels, sublevels and views it
    equals only itself, and so it can be a member of a set.
    """

    def __getitem__(self, key: Key) -> Value:
        value = self.get(key, MISSING)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Key, value: Written) -> None:  # type: ignore[override]  # a level reads Any
        self.put(key, value)

    def __delitem__(self, key: Key) -> None:
        if not self.has(key):
            raise KeyError(key)
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        return self.has(key)  # type: ignore[arg-type]  # a key of another type is a TypeError, as everywhere

    def __iter__(self) -> Iterator[Key]:
        return (key for key, _ in self.scan())

    def __reversed__(self) -> Iterator[Key]:
        return (key for key, _ in self.scan(reverse=True))

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:
        return bool(self.keys(limit=1))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, MappingVerbs) or not isinstance(other, Mapping):
            return NotImplemented
        return dict(self.scan()) == dict(other.items())

    __hash__ = object.__hash__

    def items(self) -> ItemsView[Key, Value]:
        """Return the pairs as a set-like view, which reads them as they are at each use.

        Iterating takes one snapshot and bounded memory, as `scan` does.
        """
        return LevelItems(self)

    @overload
    def pop(self, key: Key) -> Value: ...

    @overload
    def pop(self, key: Key, default: Default) -> Value | Default: ...

    def pop(self, key: Key, default: Any = MISSING) -> Any:
        """Remove a key, and return its value.

        Args:
            key: The key.
            default: The result if the key is absent.

        Raises:
            KeyError: The key is absent, and there is no ``default``.
        """
        value = self.get(key, MISSING)
        if value is not MISSING:
            self.delete(key)
            return value
        if default is MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[Key, Value]:
        """Remove the first key, and return it with its value.

        Raises:
            KeyError: There are no keys.
        """
        for key, value in self.query(limit=1):
            self.delete(key)
            return key, value
        raise KeyError("the level is empty")

    def setdefault(self, key: Key, default: Any = None) -> Any:
        """Return the value of a key; if it is absent, store ``default`` and return it.

        Raises:
            InvalidKeyError, InvalidValueError: The key or ``default`` cannot be stored.
        """
        value = self.get(key, MISSING)
        if value is not MISSING:
            return value
        self.put(key, default)
        return self[key]

    def update(self, items: Any = (), **entries: Any) -> None:
        """Store all items of a mapping, or pairs, in one atomic batch.

        Args:
            items: A mapping, an object with ``keys()``, or an iterable of pairs.
            **entries: Further items, by keyword.

        Raises:
            InvalidKeyError, InvalidValueError: An item cannot be stored. Nothing was written.
        """
        self.batch([*_operations(items), *(Put(key, value) for key, value in entries.items())])

    def __ior__(self: M, items: Any) -> M:
        self.update(items)
        return self


def _operations(items: Any) -> Iterable[Put]:
    """Return the puts of the argument of ``update``, of any type that `dict.update` takes."""
    if isinstance(items, Mapping):
        return [Put(key, value) for key, value in items.items()]
    if hasattr(items, "keys"):
        return [Put(key, items[key]) for key in items.keys()]  # noqa: SIM118  # it may not be iterable
    return [Put(key, value) for key, value in items]
