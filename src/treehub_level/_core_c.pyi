"""The contract of both cores: the compiled one (``src/_core/*.pyx``) and its twin (``_core_py/``).

Both offer these names, with the same results, the same exception types and the same messages for the same
arguments, wrong-typed ones included; ``tests/core/test_twins.py`` holds them to it.
What the bytes mean is in ``format.md`` of the design, and in ``tests/golden/``.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, final

from typing_extensions import Self

from .backends.base import Entries, Entry, Rows

# ---------------------------------------------------------------------------------------------------- keys

MAX_CID: Final[int]  # 2**53 - 1: what JSON, and so JavaScript, holds exactly
MAX_KEY_BYTES: Final[int]  # 1024, in the modes that synchronise
MAX_VALUE_BYTES: Final[int]  # 4 MiB of JSON, in the modes that synchronise
MAX_DEPTH: Final[int]  # 64 containers inside each other

def cid_key(cid: int) -> bytes:
    """A CID as a key whose bytewise order is numeric order (without prefix): 9 -> b"9", 10 -> b":10".

    Raises: TypeError: not an int (a bool is none). ValueError: below 1 or above MAX_CID.
    """

def parse_cid_key(key: bytes) -> int:
    """The inverse of cid_key. Strict: the exact form that cid_key writes, else ValueError (TypeError: not bytes)."""

def encode_key(key: str) -> bytes:
    """UTF-8. TypeError: not a str. InvalidKeyError: a lone surrogate."""

def decode_key(key: bytes) -> str:
    """From UTF-8. DecodeError (naming the bytes): it is none."""

def successor(prefix: bytes) -> bytes | None:
    """The least key above every key that starts with prefix, by incrementing bytes; None if there is none."""

def range_bounds(
    gt: bytes | None, gte: bytes | None, lt: bytes | None, lte: bytes | None, prefix: bytes | None, floor: bytes | None
) -> tuple[bytes | None, bytes | None]:
    r"""(start inclusive, stop exclusive) of the keys that meet every condition given.

    floor is a least start that no bound can undercut (the start of user keys), None for none. `k + b"\0"` is the key
    right after k. start may lie at or beyond stop: an empty range.
    """

@final
class KeySpace:
    """Where everything of one store lies, for one prefix (format.md, "Keys").

    Raises: TypeError: prefix is not a str. ValueError: it is empty, or holds a character outside "!" to "/".
    """

    def __new__(cls, prefix: str) -> Self: ...
    @property
    def prefix(self) -> bytes: ...  # P; also the key of the CID
    @property
    def user_start(self) -> bytes: ...  # succ(P): the first legal user key
    @property
    def log_start(self) -> bytes: ...  # P + "1"
    @property
    def log_stop(self) -> bytes: ...  # P + "I"
    @property
    def dirty_start(self) -> bytes: ...  # P + succ(P)
    @property
    def dirty_stop(self) -> bytes: ...  # succ(P)
    def log_key(self, cid: int) -> bytes: ...  # P + cid_key(cid)
    def parse_log_key(self, key: bytes) -> int: ...  # the CID of a log key; ValueError if it is none
    def dirty_key(self, key: bytes) -> bytes: ...  # P + key
    def own_key(self, name: str) -> bytes: ...  # P + P + name, e.g. "!!store"
    def check_key(self, key: str) -> bytes:
        """UTF-8 of a key that users may write in SERVER and CLIENT mode.

        TypeError: not a str. InvalidKeyError: empty, a lone surrogate, over MAX_KEY_BYTES, or below user_start.
        """

# ------------------------------------------------------------------------------------------------- records

def encode_json_key(key: bytes) -> bytes:
    """The JSON string of a key given as UTF-8, exactly as orjson writes it (no escaping of non-ASCII)."""

def join_record(key: bytes, value: bytes | None) -> bytes:
    """The change record of a put (`[key,value]`) or, value None, of a delete (`[key]`); the value's bytes are kept."""

def split_record(record: bytes) -> tuple[bytes, bytes | None]:
    """Key (UTF-8) and value bytes (None: a delete) of a record, without decoding the value.

    Any valid JSON is read (white space, escapes in the key); the value's bytes come back as they stand, stripped of
    the white space around. ValueError: not a record: `[string]` or `[string, something]`. That "something" is JSON is
    not checked.
    """

def split_rows(rows: list[bytes]) -> list[tuple[int, bytes]] | None:
    """The CID and the record of each row `[cid,record]`, as a page in lines has them; None if one has another form.

    What stands for the record is not looked at. TypeError: a row is not bytes.
    """

# -------------------------------------------------------------------------------------------------- values

class JSONBytes(bytes):
    """Bytes that are known to be one compact JSON value: an Encoder passes them through as they are."""

def check_value(value: object) -> None:
    """Raise InvalidValueError unless value would come back equal from JSON (tuples: as lists).

    None, bool, int from -2**63 to 2**64-1, finite float, str, list, tuple, dict with str keys, and their subclasses as
    far as orjson takes them; at most MAX_DEPTH containers inside each other. The message says what was found, and where
    ("at $.a[3]").
    """

def encode_value(value: object, limit: int | None = None) -> bytes:
    """Compact JSON as orjson writes it, in plain bytes. JSONBytes: the same bytes.

    InvalidValueError: see check_value; or longer than limit bytes.
    """

def json_value(text: bytes) -> JSONBytes:
    """One JSON document as UTF-8 text, as encode_value would write what it says: the same bytes, if it is in that form.

    TypeError: not bytes. InvalidValueError: no JSON (NaN and Infinity are none), or a value that check_value refuses or
    that would not come back equal: an int beyond 64 bits, a lone surrogate, two equal keys in an object.
    """

def json_line(line: bytes) -> tuple[str, JSONBytes] | None:
    """Key and value of a line of JSON Lines in the form that dump writes: `{"key":"k","value":1}`, white space behind.

    The value is what json_value returns. None for any other line, or if json_value refuses its key or value: then it
    must be decoded to be understood. TypeError: not bytes.
    """

# --------------------------------------------------------------------------------------------------- batch

@final
class Encoder:
    """From what users hand in to entries of bytes: (key, value) to put, (key, None) to delete.

    Args:
        space: Check keys and values by the rules of SERVER and CLIENT mode (KeySpace.check_key, MAX_VALUE_BYTES);
            None for NORMAL mode: any UTF-8 key, any size.
        key_prefix: Put before every key, before it is checked (sublevels).
        raw_keys: Keys are bytes and stored as they are. TypeError for others. (NORMAL mode only.)
        raw_values: Values are bytes and stored as they are. TypeError for others. (NORMAL mode only.)
    """

    def __new__(
        cls,
        space: KeySpace | None = None,
        *,
        key_prefix: str | bytes = "",
        raw_keys: bool = False,
        raw_values: bool = False,
    ) -> Self: ...
    def key(self, key: object) -> bytes: ...
    def value(self, value: object) -> bytes: ...
    def put(self, key: object, value: object) -> Entry: ...
    def delete(self, key: object) -> Entry: ...
    def ops(self, ops: Iterable[object]) -> list[Entry]:
        """A batch as users write it: Put, Delete, or dicts {"type": "put" | "del", "key": …, "value": …}.

        Other fields of a dict are ignored. Nothing handed in is changed or kept. TypeError: not iterable (or a str,
        bytes or dict), or an operation of another type, or with a field missing. ValueError: an unknown "type".
        InvalidKeyError, InvalidValueError. What is wrong with an operation starts with "operation N: ", N from 0.
        """
    def pairs(self, pairs: Iterable[tuple[object, object]]) -> list[Entry]:
        """(key, value) pairs to put.

        Anything that is not a tuple or list of two is a TypeError; messages start with "item N: ".
        """
    def changes(self, changes: Iterable[object]) -> list[Entry]:
        """Changes as on the wire: Change, or a list or tuple [key, value] or [key]. Used with a space.

        Any fault is a ProtocolError that says "change N: …", with the key's or the value's own error as its cause.
        A str, bytes or dict in place of the list is a ProtocolError too.
        """
    def records(self, records: Iterable[bytes]) -> list[Entry]:
        """Changes as change records (see split_record); values become what json_value returns. Errors as in changes."""

def server_batch(space: KeySpace, cid: int, entries: Sequence[Entry]) -> Entries:
    """Entries and, for the n-th of them, its change record under log_key(cid + n); last, the new CID under the prefix.

    For no entries: an empty list. The new CID is cid + len(entries). ValueError: it would pass MAX_CID.
    """

def client_batch(space: KeySpace, entries: Sequence[Entry]) -> Entries:
    """Each entry, followed by its change record under dirty_key(key)."""

def apply_batch(space: KeySpace, cid: int, entries: Sequence[Entry]) -> Entries:
    """What a pulled page does to a client: each entry, then the deletion of its dirty_key(key); last, the new CID."""

# ---------------------------------------------------------------------------------------------------- scan

@final
class Decoder:
    """From stored rows to what users get, in bulk.

    Args:
        strip: How many bytes of each key to leave out at the front (sublevels).
        raw_keys: Keys come back as bytes.
        raw_values: Values come back as bytes.

    Every method raises DecodeError, naming the key, for a key that is not UTF-8 or a value that is not JSON.
    """

    def __new__(cls, *, strip: int = 0, raw_keys: bool = False, raw_values: bool = False) -> Self: ...
    def key(self, key: bytes) -> Any: ...
    def value(self, key: bytes, value: bytes) -> Any: ...
    def items(self, rows: Rows) -> list[tuple[Any, Any]]: ...
    def keys(self, keys: Sequence[bytes]) -> list[Any]: ...
    def values(self, rows: Rows) -> list[Any]: ...

def collect(
    fetch: Callable[[int], Any],
    decode: Callable[[Any], list[Any]],
    keep: Callable[[Any], object] | None,
    limit: int | None,
    chunk: int,
) -> list[Any]:
    """Fetch chunk after chunk until one is empty, or limit results are kept.

    Each is decoded in bulk, and those results stay for which keep(result) is true; for items, a result is the pair.
    The cyclic garbage collector would walk the growing result again and again: it rests throughout if there is no keep,
    else while a chunk is decoded, and is as it was afterwards, whatever is raised. A large unfiltered result goes to
    its oldest generation, so that it does not stop every thread to walk it as soon as it goes on.
    """

def decode_changes(records: Sequence[bytes]) -> list[Any]:
    """Change records, decoded in bulk to plain lists ([key, value] or [key]). ValueError: one of them is no record."""
