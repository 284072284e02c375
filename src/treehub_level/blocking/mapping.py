"""A level as a mapping: the protocol of `collections.abc.MutableMapping`."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Generic, TypeVar, overload

from ..errors import ConditionError
from ..types import MISSING, Default, Found, Key, MissingType, Put, Value, Written
from .reads import ReadVerbs
from .transact import DecisionVerbs, LevelTransaction
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
    DecisionVerbs[Key, Value, Found, Written],
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
        self.pop(key)

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

        def take(tx: LevelTransaction[Key, Value, Found, Written]) -> Any:
            value = tx.get(key, MISSING)
            if value is not MISSING:
                tx.delete(key)
            return value

        value = self.transact(take)
        if value is not MISSING:
            return value
        if default is MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[Key, Value]:
        """Remove the first key, and return it with its value.

        Raises:
            KeyError: There are no keys.
        """

        def take(tx: LevelTransaction[Key, Value, Found, Written]) -> list[tuple[Key, Value]]:
            pairs = tx.query(limit=1)
            for key, _ in pairs:
                tx.delete(key)
            return pairs

        for pair in self.transact(take):
            return pair
        raise KeyError("the level is empty")

    def setdefault(self, key: Key, default: Any = None) -> Any:
        """Return the value of a key; if it is absent, store ``default`` and return it.

        Raises:
            InvalidKeyError, InvalidValueError: The key or ``default`` cannot be stored.
        """
        value = self.get(key, MISSING)
        if value is not MISSING:
            return value
        try:
            self.put(key, default, if_absent=True)
        except ConditionError as error:  # another writer was faster
            return error.found
        return self.get(key, default)

    @overload  # type: ignore[override]
    def update(self, key: Key, fn: Callable[[Found], Written], *, durable: bool | None = None) -> Value: ...

    @overload
    def update(
        self, key: Key, fn: Callable[[Found], Written | MissingType], *, durable: bool | None = None
    ) -> Value | MissingType: ...

    @overload
    def update(
        self,
        key: Mapping[Key, Written] | Iterable[tuple[Key, Written]] = (),
        fn: None = None,
        *,
        durable: bool | None = None,
        **entries: Written,
    ) -> None: ...

    def update(self, key: Any = (), fn: Any = None, *, durable: bool | None = None, **entries: Any) -> Any:
        """Replace the value of a key by ``fn(value)``; or store all items of a mapping.

        ``update(key, fn)`` is the verb of both APIs. No other write comes in between: see
        `transact`, whose rules hold for ``fn``. A counter: ``update("n", lambda n: (n or 0) + 1)``.

        ``update(items)`` is the method of a mapping. It stores the items in one atomic batch. Keys
        named ``key``, ``fn`` and ``durable`` cannot be given by keyword.

        Args:
            key: The key; without ``fn`` a mapping, an object with ``keys()``, or an iterable of
                pairs.
            fn: The function, not an async one. Its argument is the present value; ``None`` if the
                key is absent. If it returns `MISSING`, the key is deleted; one that is absent
                stays so, and nothing is written.
            durable: True to wait for the fsync; ``None`` for the level's setting.
            **entries: Further items, without ``fn``.

        Returns:
            The new value, as `get` would return it; `MISSING` if the key was deleted. ``None``
            without ``fn``.

        Raises:
            NotOpenError, StateError, StorageError: As `transact`.
            TypeError: As `transact`; or ``key`` is neither a key with ``fn``, nor items.
            InvalidKeyError, InvalidValueError: An item cannot be stored. Nothing was written.
            DecodeError: The present value cannot be decoded.
        """
        if fn is not None:
            if entries:
                raise TypeError(f"update() with a function takes no items by keyword, such as {min(entries)}")
            return super().update(key, fn, durable=durable)
        if isinstance(key, (str, bytes)):
            raise TypeError(f"update() of the key {key!r:.80} needs a function: update(key, fn)")
        items = [*_operations(key), *(Put(name, value) for name, value in entries.items())]
        self.batch(items, durable=durable)
        return None

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
