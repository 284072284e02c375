"""`Codec`: converts between the keys and values of users and the stored bytes."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, Final

import orjson

from .. import _core
from ..errors import InvalidKeyError
from ..types import Mode

KEY_ENCODINGS: Final = ("utf8", "bytes")
VALUE_ENCODINGS: Final = ("json", "bytes")
#: A run of digits that may be an integer beyond 64 bits, which orjson silently rounds to a float.
LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")


class RepeatedMemberError(ValueError):
    """A JSON object names a member twice. A parser would silently drop one of the two values."""


class Codec:
    """Encodes keys, values and operations, decodes rows, and tells metadata keys from user keys.

    Args:
        mode: The mode of the store.
        space: The key space; ``None`` in NORMAL mode, where no key is reserved.
        key_encoding: ``"utf8"`` (``str`` keys) or, in NORMAL mode, ``"bytes"``.
        value_encoding: ``"json"`` or, in NORMAL mode, ``"bytes"``.
        namespace: The beginning of every key of a sublevel, as a user writes it.

    Raises:
        ValueError: An unknown encoding, or ``"bytes"`` in a mode that synchronises.
    """

    def __init__(
        self,
        mode: Mode,
        space: _core.KeySpace | None,
        *,
        key_encoding: str = "utf8",
        value_encoding: str = "json",
        namespace: str | bytes = "",
    ) -> None:
        for option, encoding, known in (
            ("key_encoding", key_encoding, KEY_ENCODINGS),
            ("value_encoding", value_encoding, VALUE_ENCODINGS),
        ):
            if encoding not in known:
                raise ValueError(f"{option} must be one of {', '.join(known)}, not {encoding!r}")
            if encoding == "bytes" and mode is not Mode.NORMAL:
                raise ValueError(f'{option}="bytes" needs NORMAL mode: the change log and the wire hold JSON')
        self.mode = mode
        self.space = space
        self.key_encoding = key_encoding
        self.value_encoding = value_encoding
        self.namespace = namespace
        # The prefix of metadata keys, where `get` can read them: not in NORMAL mode, not in a
        # sublevel.
        self._metadata = "" if space is None or namespace else space.prefix.decode()
        raw = {"raw_keys": key_encoding == "bytes", "raw_values": value_encoding == "bytes"}
        self._bounds = _core.Encoder(None, key_prefix=namespace, **raw)
        self.encoder = _core.Encoder(space, key_prefix=namespace, **raw)
        self.start = self._bounds.key("" if key_encoding == "utf8" else b"")
        self.decoder = _core.Decoder(strip=len(self.start), **raw)

    def inside(self, name: str, separator: str) -> Codec:
        """Return the codec of the sublevel ``name``.

        Raises:
            TypeError: The name or the separator is not a ``str``.
            InvalidKeyError: The name is empty, contains the separator, or cannot begin a key.
        """
        if self.key_encoding != "utf8":
            raise TypeError('sublevels need str keys; this level was opened with key_encoding="bytes"')
        if not isinstance(name, str) or not isinstance(separator, str):
            raise TypeError(f"a sublevel's name and separator are str, not {name!r} and {separator!r}")
        if not name or not separator or separator in name:
            raise InvalidKeyError(
                f"{name!r} cannot name a sublevel: a name is not empty and does not contain the separator {separator!r}"
            )
        self.encoder.key(name + separator)
        return Codec(
            self.mode,
            self.space,
            key_encoding=self.key_encoding,
            value_encoding=self.value_encoding,
            namespace=f"{self.namespace!s}{name}{separator}",
        )

    def stored_key(self, key: object) -> bytes:
        """Return the stored key to read for ``key``.

        Metadata keys have the form of `@treehub/level`.
        """
        if self._metadata and isinstance(key, str) and key.startswith(self._metadata):
            return self._metadata_key(key)
        return self.encoder.key(key)

    def _metadata_key(self, key: str) -> bytes:
        assert self.space is not None
        stored = self._bounds.key(key)
        cid = unpadded_cid(stored[len(self.space.prefix) :]) if self.mode is Mode.SERVER else None
        return stored if cid is None else self.space.log_key(cid)

    def bounds(
        self, gt: object, gte: object, lt: object, lte: object, prefix: object
    ) -> tuple[bytes | None, bytes | None]:
        """Return the stored keys of a range of user keys: start inclusive, stop exclusive.

        Raises:
            TypeError: A bound is not a key.
            ValueError: ``gt`` with ``gte``, or ``lt`` with ``lte``.
            InvalidKeyError: A bound holds a lone surrogate.
        """
        if gt is not None and gte is not None:
            raise ValueError("give gt or gte, not both")
        if lt is not None and lte is not None:
            raise ValueError("give lt or lte, not both")
        gt_, gte_, lt_, lte_, prefix_ = (
            None if bound is None else self._bounds.key(bound) for bound in (gt, gte, lt, lte, prefix)
        )
        if prefix_ is None and self.start:
            prefix_ = self.start
        return _core.range_bounds(gt_, gte_, lt_, lte_, prefix_, None if self.space is None else self.space.user_start)


def unpadded_cid(name: bytes) -> int | None:
    """Parse a CID in bare decimal digits, as in `@treehub/level`; ``None`` for other bytes."""
    if name.isdigit() and name[:1] != b"0" and len(name) <= len(str(_core.MAX_CID)) and int(name) <= _core.MAX_CID:
        return int(name)
    return None


def decode_json(text: bytes, max_nodes: int | None = None) -> Any:
    """Decode JSON from outside, and refuse a document that orjson would alter silently.

    orjson keeps the last of several members with one name, and rounds integers beyond 64 bits.

    Args:
        text: The JSON text.
        max_nodes: The most values and keys, as `_core.count_nodes` counts them before anything is
            parsed: each may take 90 bytes of memory. ``None`` for any number.

    Raises:
        ValueError: The text is not JSON, names a member twice, holds an integer beyond 64 bits, is
            nested too deep, or has more values than ``max_nodes``.
    """
    if max_nodes is not None and len(text) > max_nodes and _core.count_nodes(text) > max_nodes:
        raise ValueError(f"it holds more than {max_nodes:,} values")
    try:
        document = orjson.loads(text)
        if LONG_NUMBER.search(text) or not is_complete(document, text):
            json.loads(text, object_pairs_hook=unique_members, parse_int=_exact)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except TypeError as error:  # orjson refuses to write a deeply nested document
        raise ValueError(str(error)) from None
    return document


def is_complete(document: Any, text: bytes) -> bool:
    """Return True if a document certainly has all the members of its text.

    Each member that the parser drops had a colon, and only an escape adds a colon.
    """
    return b"\\u003" not in text and orjson.dumps(document).count(b":") == text.count(b":")


def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of an object, for the argument ``object_pairs_hook`` of `json.loads`.

    Raises:
        RepeatedMemberError: Two members have the same name.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        names = Counter(name for name, _ in pairs)
        repeated = next(name for name, count in names.items() if count > 1)
        raise RepeatedMemberError(f"an object names the member {repeated!r:.80} twice")
    return members


def _exact(digits: str) -> int:
    # 20 digits and a sign. The conversion of longer ones takes quadratic time.
    number = int(digits) if len(digits) <= 21 else None
    if number is None or not -(2**63) <= number < 2**64:
        raise ValueError(f"{digits:.40} is an int beyond 64 bits")
    return number
