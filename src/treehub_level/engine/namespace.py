"""`Namespace`: the part of a store that a level or a sublevel shows, below both façades."""

from __future__ import annotations

from dataclasses import dataclass

from ..types import Mode
from .codec import Codec
from .retention import Retention
from .store import Store
from .typed_codec import TypedCodec


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

    def sublevel(self, name: str, separator: str) -> Namespace:
        """Return the namespace of a sublevel: see ``Level.sublevel``."""
        return Namespace(self.store, self.codec.inside(name, separator), self.durable)

    def typed(self, prefix: str, model: object, key: object) -> Namespace:
        """Return the namespace of a view of instances: see ``Level.typed``.

        Raises:
            TypeError: ``model`` is ``None``.
        """
        if model is None:
            raise TypeError("the type of a view is a class or a type, not None")
        return self.view(prefix, model, key)

    def view(self, prefix: str, model: object, key: object) -> Namespace:
        """Return the namespace of a typed view: see `TypedCodec`."""
        return Namespace(self.store, TypedCodec(self.codec, prefix, model, key), self.durable)


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


def check_retain(retain: object, mode: Mode) -> None:
    """Check the option ``retain``.

    Raises:
        TypeError: It is not a `Retention`, and not None.
        ValueError: It is given, and the mode is not SERVER.
    """
    if retain is not None and not isinstance(retain, Retention):
        raise TypeError(f"retain is a Retention or None, not {retain!r:.80}")
    if retain is not None and mode is not Mode.SERVER:
        raise ValueError(f"retain bounds the log of a server: it needs SERVER mode, not {mode.name}")


def check_audit(audit: object, mode: Mode) -> None:
    """Check the option ``audit``.

    Raises:
        TypeError: It is not a ``bool``.
        ValueError: It is True, and the mode is not SERVER.
    """
    if not isinstance(audit, bool):
        raise TypeError(f"audit is True or False, not {audit!r:.80}")
    if audit and mode is not Mode.SERVER:
        raise ValueError(f"audit=True records the writes of a server: it needs SERVER mode, not {mode.name}")


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
