"""Key spaces, order-preserving CID keys, range bounds. The counterpart of ``keys.pyx``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from ..errors import DecodeError, InvalidKeyError

MAX_CID: Final = 2**53 - 1
MAX_KEY_BYTES: Final = 1024
MAX_VALUE_BYTES: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 64

#: The character before a number of n digits, from two on, is 0x38 + n. Frozen: it is on disk.
_LENGTH_BASE: Final = 0x38


def cid_key(cid: int) -> bytes:
    """See ``_core_c.pyi``."""
    check_cid(cid, 1)
    digits = b"%d" % cid
    return digits if cid < 10 else bytes((_LENGTH_BASE + len(digits),)) + digits


def parse_cid_key(key: bytes) -> int:
    """See ``_core_c.pyi``."""
    check_bytes(key, "a CID key")
    digits = key if len(key) == 1 else key[1:]
    well_formed = digits.isdigit() and digits[0] != 0x30
    if well_formed and len(key) > 1:
        well_formed = key[0] == _LENGTH_BASE + len(digits) and 2 <= len(digits) <= len(str(MAX_CID))
    if not well_formed or int(digits) > MAX_CID:
        raise ValueError(f"{quoted(key)} is not the key of a change id")
    return int(digits)


def encode_key(key: str) -> bytes:
    """See ``_core_c.pyi``."""
    if not isinstance(key, str):
        raise TypeError(f"a key must be a str, not {type(key).__name__}")
    try:
        return str.encode(key)
    except UnicodeEncodeError as error:
        raise InvalidKeyError(
            f"the key {quoted(key)} holds a lone surrogate at index {error.start}: it is not Unicode text, remove it"
        ) from None


def decode_key(key: bytes) -> str:
    """See ``_core_c.pyi``."""
    check_bytes(key, "a stored key")
    try:
        return bytes.decode(key)
    except UnicodeDecodeError as error:
        raise DecodeError(f"the stored key {quoted(key)} is not UTF-8: {error.reason} at byte {error.start}") from None


def successor(prefix: bytes) -> bytes | None:
    """See ``_core_c.pyi``."""
    check_bytes(prefix, "a prefix")
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes((head[-1] + 1,)) if head else None


def range_bounds(
    gt: bytes | None,
    gte: bytes | None,
    lt: bytes | None,
    lte: bytes | None,
    prefix: bytes | None,
    minimum: bytes | None,
) -> tuple[bytes | None, bytes | None]:
    """See ``_core_c.pyi``."""
    for bound in (gt, gte, lt, lte, prefix, minimum):
        if bound is not None:
            check_bytes(bound, "a bound")
    starts = [bound for bound in (gte, prefix, minimum) if bound is not None]
    if gt is not None:
        starts.append(gt + b"\0")
    after_prefix = None if prefix is None else successor(prefix)
    stops = [bound for bound in (lt, after_prefix) if bound is not None]
    if lte is not None:
        stops.append(lte + b"\0")
    return max(starts, default=None), min(stops, default=None)


@final
class KeySpace:
    """See ``_core_c.pyi``."""

    __slots__ = ("dirty_start", "dirty_stop", "log_start", "log_stop", "prefix", "user_start")

    def __init__(self, prefix: str) -> None:
        if not isinstance(prefix, str):
            raise TypeError(f"a prefix must be a str, not {type(prefix).__name__}")
        if not prefix or not all("!" <= character <= "/" for character in prefix):
            raise ValueError(f'the prefix {quoted(prefix)} is not made of one or more characters from "!" to "/"')
        self.prefix: Final = encode_key(prefix)
        self.user_start: Final = self.prefix[:-1] + bytes((self.prefix[-1] + 1,))
        self.log_start: Final = self.prefix + b"1"
        self.log_stop: Final = self.prefix + b"I"
        self.dirty_start: Final = self.prefix + self.user_start
        self.dirty_stop: Final = self.user_start

    def log_key(self, cid: int) -> bytes:
        """See ``_core_c.pyi``."""
        return self.prefix + cid_key(cid)

    def parse_log_key(self, key: bytes) -> int:
        """See ``_core_c.pyi``."""
        check_bytes(key, "a log key")
        if not key.startswith(self.prefix):
            raise ValueError(f"{quoted(key)} is not a log key: it does not start with {quoted(self.prefix)}")
        return parse_cid_key(key[len(self.prefix) :])

    def parse_log_rows(self, rows: Iterable[tuple[bytes, bytes]]) -> list[tuple[int, bytes]]:
        """See ``_core_c.pyi``."""
        return [(self.parse_log_key(key), record) for key, record in rows]

    def dirty_key(self, key: bytes) -> bytes:
        """See ``_core_c.pyi``."""
        check_bytes(key, "a key in bytes")
        return self.prefix + key

    def own_key(self, name: str) -> bytes:
        """See ``_core_c.pyi``."""
        return self.prefix + self.prefix + encode_key(name)

    def check_key(self, key: str) -> bytes:
        """See ``_core_c.pyi``."""
        return check_user_key(self, encode_key(key))


def check_user_key(space: KeySpace, key: bytes) -> bytes:
    """Return a key in UTF-8 if users may write it in SERVER and CLIENT mode.

    Raises:
        InvalidKeyError: The key is empty, too long, or below the first user key.
    """
    if key >= space.user_start and len(key) <= MAX_KEY_BYTES:
        return key
    if not key:
        raise InvalidKeyError("a key must not be empty in SERVER and CLIENT mode")
    if key < space.user_start:
        raise InvalidKeyError(
            f"the key {quoted(key)} sorts before {quoted(space.user_start)}, the first key that users "
            f"may write in SERVER and CLIENT mode: choose another key, or another prefix for the store"
        )
    raise InvalidKeyError(
        f"the key {quoted(key)} has {len(key)} bytes of UTF-8, and in SERVER and CLIENT mode at most {MAX_KEY_BYTES} "
        f"are allowed: shorten it"
    )


def check_bytes(value: object, noun: str) -> None:
    """Raise TypeError unless value is bytes."""
    if not isinstance(value, bytes):
        raise TypeError(f"{noun} must be bytes, not {type(value).__name__}")


def check_cid(cid: int, lowest: int) -> None:
    """Raise TypeError or ValueError unless cid is an int from lowest to MAX_CID."""
    if type(cid) is not int:
        raise TypeError(f"a change id must be an int, not {type(cid).__name__}")
    if not lowest <= cid <= MAX_CID:
        raise ValueError(f"a change id lies between {lowest} and {MAX_CID}, and this one is {describe_int(cid)}")


def quoted(key: str | bytes) -> str:
    """Return a key for an error message: as text where it is UTF-8, and cut after 60 characters."""
    text = key if isinstance(key, str) else key[:240].decode(errors="backslashreplace")
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}…"


def describe_int(number: int) -> str:
    """Return an int for an error message: Python refuses to format ints of thousands of digits."""
    return str(number) if number.bit_length() <= 128 else f"an int of {number.bit_length()} bits"
