"""`WeakRegistry`: the objects of a kind that are alive."""

from __future__ import annotations

from typing import Generic, TypeVar
from weakref import ref

T = TypeVar("T")


class WeakRegistry(Generic[T]):
    """A set of objects that it does not keep alive, and that any thread may change.

    ``weakref.WeakSet`` does the same, but has Python code that an interrupt can leave half done.
    Each method here changes the set by one call into C.
    """

    __slots__ = ("_references",)

    def __init__(self) -> None:
        self._references: dict[ref[T], None] = {}

    def add(self, item: T) -> None:
        """Add an object. It leaves the set when it is collected."""
        self._references[ref(item, self._references.pop)] = None

    def discard(self, item: T) -> None:
        """Remove an object, if it is in the set."""
        self._references.pop(ref(item), None)

    def __len__(self) -> int:
        return len(self._references)

    def alive(self) -> list[T]:
        """Return the objects."""
        return [item for reference in tuple(self._references) if (item := reference()) is not None]
