"""`Namespace`: the part of a store that a level or a sublevel shows, below both façades."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import _core
from ..backends.base import Backend
from ..backends.registry import create
from ..types import Mode
from .codec import Codec
from .store import Store


@dataclass(frozen=True, slots=True)
class Namespace:
    """A store, the codec for the keys of one level or sublevel, and the default durability.

    Attributes:
        store: The store.
        codec: The codec.
        durable: True if each write waits for the fsync unless it says otherwise.
    """

    store: Store
    codec: Codec
    durable: bool

    @classmethod
    def of_level(
        cls,
        name: str | os.PathLike[str],
        *,
        backend: str | type[Backend] | Callable[..., Backend] = "leveldb",
        mode: Mode = Mode.NORMAL,
        prefix: str = "!",
        key_encoding: str = "utf8",
        value_encoding: str = "json",
        durable: bool = False,
        read_only: bool = False,
        keep_base: bool | None = False,
        **backend_options: Any,
    ) -> Namespace:
        """Return the namespace of a ``Level``'s whole store, after a check of its arguments."""
        if not isinstance(mode, Mode):
            raise ValueError(f"mode is Level.NORMAL, Level.SERVER or Level.CLIENT, not {mode!r:.80}")
        name = os.fspath(name)
        if not isinstance(name, str):
            raise TypeError(f"the name of a level is a str or a path, not {name!r:.80}")
        space = _core.KeySpace(prefix)
        durable = check_durable(durable, False)
        if not isinstance(read_only, bool):
            raise TypeError(f"read_only is True or False, not {read_only!r:.80}")
        check_keep_base(keep_base, mode)
        codec = Codec(
            mode, None if mode is Mode.NORMAL else space, key_encoding=key_encoding, value_encoding=value_encoding
        )
        store = Store(create(backend, name, backend_options), mode, space, read_only=read_only, keep_base=keep_base)
        return cls(store, codec, durable)

    def sublevel(self, name: str, separator: str) -> Namespace:
        """Return the namespace of a sublevel: see ``Level.sublevel``."""
        return Namespace(self.store, self.codec.inside(name, separator), self.durable)


def check_durable(durable: object, default: bool) -> bool:
    """Return ``durable`` if it is a ``bool``, and ``default`` if it is ``None``.

    Raises:
        TypeError: ``durable`` has another type.
    """
    if durable is None:
        return default
    if not isinstance(durable, bool):
        raise TypeError(f"durable is True, False or None, not {durable!r:.80}")
    return durable


def check_keep_base(keep_base: object, mode: Mode) -> None:
    """Check the option ``keep_base``.

    Raises:
        TypeError: It is neither a ``bool`` nor ``None``.
        ValueError: It is True, and the mode is not CLIENT.
    """
    if keep_base is not None and not isinstance(keep_base, bool):
        raise TypeError(f"keep_base is True, False or None, not {keep_base!r:.80}")
    if keep_base and mode is not Mode.CLIENT:
        raise ValueError(
            f"keep_base=True needs CLIENT mode, not {mode.name}: a base value is the server's value of a dirty key"
        )
