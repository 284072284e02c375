"""The contract of both cores: the compiled one (``src/_core``) and its counterpart (``_core_py``).

Both cores offer these names, with the same results, the same exception types and the same messages
for the same arguments, including arguments of a wrong type; ``tests/core/test_counterparts.py``
compares them. ``docs/format.md`` documents the bytes, and ``tests/golden/`` holds examples of them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, final

from typing_extensions import Self

from .backends.base import Entries, Entry, Rows

# -------------------------------------------------------------------------------------------- keys

MAX_CID: Final[int]  # 2**53 - 1: the largest integer that JavaScript reads exactly from JSON
MAX_KEY_BYTES: Final[int]  # 1024, in the modes that synchronise
MAX_VALUE_BYTES: Final[int]  # 4 MiB of JSON, in the modes that synchronise
MAX_DEPTH: Final[int]  # 64 containers inside each other

def cid_key(cid: int) -> bytes:
    """Return the key of a CID, whose bytewise order is numeric order: 9 -> b"9", 10 -> b":10".

    Raises:
        TypeError: ``cid`` is not an int (a bool is not one).
        ValueError: ``cid`` is below 1 or above MAX_CID.
    """

def parse_cid_key(key: bytes) -> int:
    """Return the CID of a key that `cid_key` returns.

    Raises:
        TypeError: ``key`` is not bytes.
        ValueError: `cid_key` returns no such key.
    """

def encode_key(key: str) -> bytes:
    """Return a key in UTF-8.

    Raises:
        TypeError: ``key`` is not a str.
        InvalidKeyError: ``key`` holds a lone surrogate.
    """

def decode_key(key: bytes) -> str:
    """Return a stored key as a str.

    Raises:
        TypeError: ``key`` is not bytes.
        DecodeError: ``key`` is not UTF-8. The message quotes the bytes.
    """

def successor(prefix: bytes) -> bytes | None:
    """Return the least key above all keys that start with a prefix; None if there is none."""

def range_bounds(
    gt: bytes | None,
    gte: bytes | None,
    lt: bytes | None,
    lte: bytes | None,
    prefix: bytes | None,
    minimum: bytes | None,
) -> tuple[bytes | None, bytes | None]:
    r"""Return the start (inclusive) and the stop (exclusive) of the keys that meet all conditions.

    Args:
        gt: A key below all keys of the range. ``gt + b"\0"`` is the first key after it.
        gte: The least key of the range.
        lt: A key above all keys of the range.
        lte: The greatest key of the range.
        prefix: The first bytes of all keys of the range.
        minimum: The least start of any range: the start of user keys.

    Returns:
        The bounds, None for no bound. The range is empty if start is at or beyond stop.
    """

@final
class KeySpace:
    """The layout of the keys of one store, for one prefix: see "Keys" in ``docs/format.md``.

    Raises:
        TypeError: ``prefix`` is not a str.
        ValueError: ``prefix`` is empty, or holds a character outside "!" to "/".
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
    def log_key(self, cid: int) -> bytes:
        """Return the key of a change in the change log: P + cid_key(cid)."""
    def parse_log_key(self, key: bytes) -> int:
        """Return the CID of a log key. ValueError: ``key`` is not one."""
    def parse_log_rows(self, rows: Iterable[tuple[bytes, bytes]]) -> list[tuple[int, bytes]]:
        """Return the CID and the record of each row of the log.

        Raises:
            ValueError: A key is not a log key.
        """
    def dirty_key(self, key: bytes) -> bytes:
        """Return the key of the dirty change of a user key: P + key."""
    def own_key(self, name: str) -> bytes:
        """Return the key of one of the store's own records: P + P + name, such as "!!store"."""
    def check_key(self, key: str) -> bytes:
        """Return a key in UTF-8 if users may write it in SERVER and CLIENT mode.

        Raises:
            TypeError: ``key`` is not a str.
            InvalidKeyError: ``key`` is empty, below user_start, longer than MAX_KEY_BYTES, or holds
                a lone surrogate.
        """

# ----------------------------------------------------------------------------------------- records

def encode_json_key(key: bytes) -> bytes:
    """Return the JSON string of a key in UTF-8, as orjson writes it, with non-ASCII unescaped."""

def join_record(key: bytes, value: bytes | None) -> bytes:
    """Return the change record of a put (`[key,value]`), or of a delete (`[key]`) if value is None.

    The bytes of the value are copied unaltered.
    """

def split_record(record: bytes) -> tuple[bytes, bytes | None]:
    """Return the key (UTF-8) and the value's bytes (None for a delete) of a change record.

    Any valid JSON is read, including white space, and escapes in the key. The value is neither
    decoded nor checked: its bytes are returned without the white space around them.

    Raises:
        ValueError: ``record`` is not a JSON array of a string, or of a string and a value.
    """

def split_rows(rows: list[bytes]) -> list[tuple[int, bytes]] | None:
    """Return the CID and the record of each row `[cid,record]` of a page in lines.

    Returns:
        None if a row has another form. The records are not checked.

    Raises:
        TypeError: A row is not bytes.
    """

# ------------------------------------------------------------------------------------------ values

class JSONBytes(bytes):
    """Bytes that are one compact JSON value. An Encoder writes them unaltered."""

def check_value(value: object) -> None:
    """Raise InvalidValueError unless JSON can round-trip a value (a tuple returns as a list).

    Allowed are None, bool, int from -2**63 to 2**64-1, finite float, str, list, tuple, dict with
    str keys, and those of their subclasses that orjson accepts, with at most MAX_DEPTH containers
    inside each other. The message names the fault and its path ("at $.a[3]").
    """

def encode_value(value: object, limit: int | None = None) -> bytes:
    """Return a value as compact JSON, in plain bytes, as orjson writes it; JSONBytes unaltered.

    Raises:
        InvalidValueError: `check_value` refuses the value, or its JSON is longer than ``limit``
            bytes.
    """

def json_value(text: bytes) -> JSONBytes:
    """Return a JSON document in canonical form: the result of `encode_value` for its value.

    Raises:
        TypeError: ``text`` is not bytes.
        InvalidValueError: ``text`` is not JSON (NaN and Infinity are not), `check_value` refuses
            its value, or JSON cannot round-trip it: an int beyond 64 bits, a lone surrogate, or an
            object with two equal keys. The message for a text of more than 64 KiB may have fewer
            details.
    """

def count_nodes(text: bytes) -> int:
    """Return an upper bound of the values and keys in a JSON text, without parsing the text.

    The bound is one more than the number of ``,``, ``:``, ``[`` and ``{`` outside of strings. A
    parsed document takes at most 90 bytes of memory for each node, plus the text of its strings,
    and its text has at least one byte for each.

    Raises:
        TypeError: ``text`` is not bytes.
    """

def split_items(text: bytes, brackets: bytes, limit: int) -> list[bytes] | None:
    """Return the items of a JSON array, or the members (`"name":value`) of a JSON object.

    Only strings and brackets are recognised. The text is JSON if each item is.

    Args:
        text: The array or object. White space around it and around its items is removed.
        brackets: ``b"[]"`` for an array, ``b"{}"`` for an object.
        limit: The largest number of items.

    Returns:
        The items, each as it is written. None if the text has other brackets, or they do not match;
        if an item is empty; or if there are more items than ``limit``.

    Raises:
        TypeError: ``text`` is not bytes.
        ValueError: ``brackets`` or ``limit`` is not one of these.
    """

def json_line(line: bytes) -> tuple[str, JSONBytes] | None:
    """Return the key and the value of a line that ``dump`` has written, without decoding it.

    Such a line is `{"key":"k","value":1}`, with white space only behind it. The value is the result
    of `json_value`.

    Returns:
        None for a line of another form, or of an invalid key or value. Such a line must be decoded.

    Raises:
        TypeError: ``line`` is not bytes.
    """

# ------------------------------------------------------------------------------------------- batch

@final
class Encoder:
    """An encoder of user data into entries: (key, value) is a put, (key, None) is a delete.

    Args:
        space: Check keys and values by the rules of SERVER and CLIENT mode (KeySpace.check_key,
            MAX_VALUE_BYTES). None is for NORMAL mode: any UTF-8 key, any size.
        key_prefix: The prefix of every key (sublevels). It counts for the check of the key.
        raw_keys: Keys are bytes and stored unaltered, in NORMAL mode only. Others raise TypeError.
        raw_values: Values are bytes and stored unaltered, in NORMAL mode only. Others raise
            TypeError.
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
        """Encode the operations of a batch: Put, Delete, or dicts.

        A dict is {"type": "put" | "del", "key": …, "value": …}; other fields are ignored. The
        arguments are neither altered nor kept.

        Raises:
            TypeError: ``ops`` is not iterable (or is a str, bytes or dict), an operation is of
                another type, or a field is missing.
            ValueError: The "type" is unknown.
            InvalidKeyError: A key is invalid.
            InvalidValueError: A value is invalid. The message for an operation starts with
                "operation N: ", N from 0.
        """
    def pairs(self, pairs: Iterable[tuple[object, object]]) -> list[Entry]:
        """Encode (key, value) pairs as puts.

        Raises:
            TypeError: A pair is not a tuple or list of two. The message for a pair starts with
                "item N: ".
        """
    def changes(self, changes: Iterable[object]) -> list[Entry]:
        """Encode changes as on the wire: Change, or a list or tuple [key, value] or [key].

        Raises:
            ProtocolError: ``changes`` is not a list, or a change is invalid. The message starts
                with "change N: ", and the cause is the error of the key or value.
        """
    def records(self, records: Iterable[bytes]) -> list[Entry]:
        """Encode change records (see `split_record`), with `json_value` of each value.

        Raises:
            ProtocolError: As for `changes`.
        """

def server_batch(space: KeySpace, cid: int, entries: Sequence[Entry]) -> Entries:
    """Return the batch of a server's write: each entry and its change record, and last the new CID.

    The record of entry n, from 1, is under log_key(cid + n). The new CID is cid + len(entries). The
    batch is an empty list if there are no entries.

    Raises:
        ValueError: The new CID would exceed MAX_CID.
    """

def client_batch(space: KeySpace, entries: Sequence[Entry]) -> Entries:
    """Return the batch of a client's write: each entry, and its record under dirty_key(key)."""

def apply_batch(space: KeySpace, cid: int, entries: Sequence[Entry]) -> Entries:
    """Return the batch of a pulled page: entries, the deletes of their dirty keys, the new CID."""

# -------------------------------------------------------------------------------------------- scan

@final
class Decoder:
    """A decoder of stored rows into user data, in bulk.

    Every method raises DecodeError, with the key, for a key that is not UTF-8 or a value that is
    not JSON.

    Args:
        strip: The number of bytes to remove from the front of each key (sublevels).
        raw_keys: Return keys as bytes.
        raw_values: Return values as bytes.
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
    """Fetch and decode chunks until a chunk is empty or `limit` results are kept.

    The cyclic garbage collector would traverse the growing result again and again. It is therefore
    off throughout if there is no `keep`, and while a chunk is decoded if there is one. Its state is
    restored afterwards, also after an error. A large unfiltered result is moved to the collector's
    oldest generation, so that the next collection does not traverse it.

    Args:
        fetch: Return the next rows, at most as many as its argument; none at the end.
        decode: Return the results of the rows of a chunk.
        keep: Return true for each result to keep; None keeps all. A result of items is a pair.
        limit: The number of results; None for all.
        chunk: The number of rows to fetch at once.
    """

def decode_changes(records: Sequence[bytes]) -> list[Any]:
    """Decode change records, in bulk, into lists [key, value] or [key].

    Raises:
        ValueError: One of them is not a change record.
    """

def find_damaged(space: KeySpace, records: Sequence[bytes]) -> int | None:
    """Return the index of the first record that may not leave a server; None if all may.

    A change record may leave if it is JSON of the form [key] or [key,value], if no object in it
    names a member twice, and if its key is one that users may write. Values are not decoded if they
    have the form in which this package writes them.

    Raises:
        TypeError: A record is not bytes.
    """
