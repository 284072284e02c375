"""Keys from tuples: ``str`` keys whose order in a store is the order of the tuples.

``encode(("JP", 42))`` is ``"sJP!ib42!"``. Each element is one letter for its type, a text, and an
exclamation mark. Tuples are ordered element by element. A tuple sorts before the longer ones that
begin with it, and `prefix` finds those.

Elements of one type are ordered like their values, and types by their letters:

    ========  ====================  ==========================================================
    letter    type                  text
    ========  ====================  ==========================================================
    ``0``     ``None``              none
    ``b``     ``bool``              ``F`` or ``T``
    ``d``     ``date``              ``2026-11-30``
    ``f``     ``float``             16 hexadecimal digits
    ``i``     ``int``               a letter for sign and length, and the decimal digits
    ``l``     ``datetime``, naive   ``2026-11-30T20:52:55.5``
    ``s``     ``str``               itself; the characters up to ``%`` as ``%`` and two digits
    ``t``     ``datetime``, aware   the same in UTC
    ``u``     ``UUID``              ``12345678-1234-5678-1234-567812345678``
    ``x``     ``bytes``             hexadecimal digits
    ========  ====================  ==========================================================

So an ``int`` sorts after each ``float``: convert the numbers of one element to one type, as the
views with ``key=ordered.Tuple[…]`` do. ``docs/format.md`` specifies each byte.
"""

from __future__ import annotations

import re
import struct
import types
from collections.abc import Callable
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any, Final, Union, get_args, get_origin
from uuid import UUID

from ._core import MAX_KEY_BYTES
from .errors import DecodeError, InvalidKeyError

if TYPE_CHECKING:
    from typing import Generic

    from typing_extensions import TypeVarTuple, Unpack

    Elements = TypeVarTuple("Elements")

__all__ = ["Tuple", "TupleKey", "decode", "encode", "prefix"]

#: The character that ends each element. It sorts before all characters of the texts.
_END: Final = "!"
#: The characters up to the escape character itself are escaped in strings.
_ESCAPED: Final = {code: f"%{code:02X}" for code in range(ord("%") + 1)}
_ESCAPE: Final = re.compile("%(..)", re.DOTALL)
#: The letters of an int: "a" for one digit to "y" for 25, and "Z" to "B" for negative numbers.
#: Longer ones have "z" or "A", the encoded number of digits, and the digits.
_LONGEST: Final = 25
#: The nines' complement reverses the order of digits.
_COMPLEMENT: Final = str.maketrans("0123456789", "9876543210")
#: More bits than any int whose key is short enough: larger ones are never converted to digits.
_MAX_BITS: Final = 4 * MAX_KEY_BYTES
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?", re.ASCII)


def encode(values: tuple[Any, ...]) -> str:
    """Return the key of a tuple.

    Args:
        values: At least one element. Each is a ``str`` of any code points, an ``int`` of any size,
            a ``float`` except NaN, a ``bool``, ``None``, a ``datetime``, a ``date``, a ``UUID`` or
            ``bytes``. A ``datetime`` with a time zone stands for its instant and is decoded in UTC;
            one without stays without, and sorts among its kind. ``-0.0`` is another key than
            ``0.0``, the one before it.

    Returns:
        A key that every store can hold, in every mode. It is printable ASCII if the strings are.

    Raises:
        TypeError: ``values`` is not a tuple, or an element is of another type.
        InvalidKeyError: The tuple is empty, an element is NaN or holds a lone surrogate, or the key
            would have more than 1024 bytes of UTF-8.
    """
    key = prefix(values)
    if not key:
        raise InvalidKeyError("an empty tuple has no key: give it an element")
    return key


def prefix(values: tuple[Any, ...]) -> str:
    """Return the beginning of the keys of all tuples that begin with these elements.

    The key of the tuple itself begins with it, too. The prefix of the empty tuple is the empty
    string.

    Args:
        values: The first elements: see `encode`.

    Raises:
        TypeError, InvalidKeyError: See `encode`.
    """
    if not isinstance(values, tuple):
        raise TypeError(f"an ordered key is made from a tuple, not from {_shown(values)}")
    key = "".join([_encode_element(values, index) for index in range(len(values))])
    _check_length(key, InvalidKeyError)
    return key


def decode(key: str) -> tuple[Any, ...]:
    """Return the tuple of a key.

    Raises:
        TypeError: The key is not a ``str``.
        DecodeError: `encode` does not make this key from any tuple.
    """
    if not isinstance(key, str):
        raise TypeError(f"an ordered key is a str, not {key!r:.80}")
    _check_length(key, DecodeError)
    if not key.endswith(_END):
        raise DecodeError(f"{key!r:.80} is not an ordered key: it does not end with {_END!r}")
    return tuple([_decode_element(key, element) for element in key[:-1].split(_END)])


def _shown(value: object) -> str:
    """Return a value for an error message: Python refuses to format ints of thousands of digits."""
    try:
        return f"{value!r:.80}"
    except ValueError:
        return f"a {type(value).__name__} with a very large int"


def _check_length(key: str, error: type[InvalidKeyError | DecodeError]) -> None:
    size = len(key.encode(errors="surrogatepass"))
    if size > MAX_KEY_BYTES:
        raise error(f"the ordered key {key!r:.60}… has {size} bytes of UTF-8, and at most {MAX_KEY_BYTES} are allowed")


# ------------------------------------------------------------------------------------- the elements


def _encode_element(values: tuple[Any, ...], index: int) -> str:
    value = values[index]
    letter = letter_of(value)
    if letter is None:
        raise TypeError(
            f"element {index} of the tuple is of type {type(value).__name__}: an ordered key holds "
            f"str, int, float, bool, None, datetime, date, UUID and bytes"
        )
    try:
        return f"{letter}{_ENCODERS[letter](value)}{_END}"
    except ValueError as error:
        raise InvalidKeyError(f"element {index} of the tuple cannot be part of an ordered key: {error}") from None


def letter_of(value: object) -> str | None:
    """Return the letter of a value's type, or ``None`` if it cannot be an element.

    A ``bool`` is no ``int`` here, and a ``datetime`` no ``date``.
    """
    if value is None:
        return "0"
    if isinstance(value, datetime):
        return "l" if value.utcoffset() is None else "t"
    return next((letter for letter, kind in _KINDS if isinstance(value, kind)), None)


def _decode_element(key: str, element: str) -> Any:
    """Decode an element, strictly: the same value must encode to the same text."""
    letter, text = element[:1], element[1:]
    decoder = _DECODERS.get(letter)
    if decoder is None:
        raise DecodeError(
            f"{key!r:.80} is not an ordered key: {element!r:.60} does not begin with the letter of a type"
        )
    try:
        value = decoder(text)
        if letter_of(value) == letter and _ENCODERS[letter](value) == text:
            return value
    except (ValueError, OverflowError):
        pass
    raise DecodeError(f"{key!r:.80} is not an ordered key: {element!r:.60} is not the text of a {_NAMES[letter]}")


def _encode_str(value: str) -> str:
    try:
        str.encode(value)
    except UnicodeEncodeError as error:
        raise ValueError(f"a lone surrogate at index {error.start} is not Unicode text, remove it") from None
    return str.translate(value, _ESCAPED)


def _decode_str(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def _encode_int(value: int) -> str:
    if int.bit_length(value) > _MAX_BITS:
        raise ValueError(f"an int of {int.bit_length(value)} bits makes a key over {MAX_KEY_BYTES} bytes")
    digits = int.__repr__(abs(value))
    length = len(digits)
    if value >= 0:
        return (chr(0x60 + length) if length <= _LONGEST else f"z{_encode_int(length)}") + digits
    head = chr(0x5B - length) if length <= _LONGEST else f"A{_encode_int(-length)}"
    return head + digits.translate(_COMPLEMENT)


def _decode_int(text: str) -> int:
    negative, digits = text[:1] < "a", text[1:]
    if text[:1] in ("A", "z"):
        digits = digits[1 + _short_length(digits) :]
    if not digits.isascii() or not digits.isdigit():
        raise ValueError("no digits")
    return -int(digits.translate(_COMPLEMENT)) if negative else int(digits)


def _short_length(text: str) -> int:
    """Return the number of digits that the letter of an int of up to 25 digits announces."""
    letter = ord(text[:1] or "!")
    return letter - 0x60 if letter > 0x60 else 0x5B - letter


def _encode_float(value: float) -> str:
    if value != value:
        raise ValueError("NaN has no place in an order")
    (bits,) = struct.unpack(">Q", struct.pack(">d", value))
    return f"{bits ^ (0xFFFF_FFFF_FFFF_FFFF if bits >> 63 else 1 << 63):016x}"


def _decode_float(text: str) -> float:
    bits = int(text, 16)
    value: float
    (value,) = struct.unpack(">d", (bits ^ (1 << 63 if bits >> 63 else 0xFFFF_FFFF_FFFF_FFFF)).to_bytes(8, "big"))
    return value


def _encode_naive(value: datetime) -> str:
    text = f"{value.year:04}-{value.month:02}-{value.day:02}T{value.hour:02}:{value.minute:02}:{value.second:02}"
    return f"{text}.{value.microsecond:06}".rstrip("0") if value.microsecond else text


def _encode_aware(value: datetime) -> str:
    try:
        return _encode_naive(value.astimezone(timezone.utc))
    except OverflowError:
        raise ValueError(f"{value} is before the year 1 or after the year 9999 in UTC") from None


def _decode_naive(text: str) -> datetime:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("no time")
    return datetime.fromisoformat(f"{match[1]}.{match[2] or '0':0<6}")


def _encode_date(value: date) -> str:
    return f"{value.year:04}-{value.month:02}-{value.day:02}"


#: The types that have one letter each. A subclass comes before its base class.
_KINDS: Final[tuple[tuple[str, type], ...]] = (
    ("s", str),
    ("b", bool),
    ("i", int),
    ("f", float),
    ("d", date),
    ("u", UUID),
    ("x", bytes),
)
_ENCODERS: Final[dict[str, Callable[[Any], str]]] = {
    "0": lambda value: "",
    "b": lambda value: "T" if value else "F",
    "d": _encode_date,
    "f": _encode_float,
    "i": _encode_int,
    "l": _encode_naive,
    "s": _encode_str,
    "t": _encode_aware,
    "u": UUID.__str__,
    "x": bytes.hex,
}
_DECODERS: Final[dict[str, Callable[[str], Any]]] = {
    "0": lambda text: None,
    "b": lambda text: text == "T",
    "d": date.fromisoformat,
    "f": _decode_float,
    "i": _decode_int,
    "l": _decode_naive,
    "s": _decode_str,
    "t": lambda text: _decode_naive(text).replace(tzinfo=timezone.utc),
    "u": UUID,
    "x": bytes.fromhex,
}
_NAMES: Final = {
    "0": "None",
    "b": "bool",
    "d": "date",
    "f": "float",
    "i": "int",
    "l": "datetime without a time zone",
    "s": "str",
    "t": "datetime",
    "u": "UUID",
    "x": "bytes",
}


# ---------------------------------------------------------------------------- tuples of given types


class TupleKey:
    """The type of the keys of a view: `encode` and `decode` for tuples of given types.

    Made by ``ordered.Tuple[str, int]``.
    """

    def __init__(self, types: tuple[Any, ...]) -> None:
        self._letters = tuple([_letters_of(kind) for kind in types])
        self._names = ", ".join([getattr(kind, "__name__", str(kind)) for kind in types])

    def encode(self, values: object) -> str:
        """Return the key of a tuple of these types.

        An ``int`` where a ``float`` belongs is converted.

        Raises:
            TypeError: It is not a tuple, has another length, or an element has another type.
            InvalidKeyError: See `ordered.encode`.
        """
        if not isinstance(values, tuple) or len(values) != len(self._letters):
            raise TypeError(f"a key of this view is a tuple of {self._names}, not {_shown(values)}")
        return encode(self._checked(values))

    def prefix(self, values: object) -> str:
        """Return the beginning of the keys of all tuples that begin with these elements.

        Raises:
            TypeError: It is not a tuple, has too many elements, or an element has another type.
            InvalidKeyError: See `ordered.encode`.
        """
        if not isinstance(values, tuple) or len(values) > len(self._letters):
            raise TypeError(f"a bound of this view is a tuple of the first of {self._names}, not {_shown(values)}")
        return prefix(self._checked(values))

    def decode(self, key: str) -> tuple[Any, ...]:
        """Return the tuple of a key.

        Raises:
            DecodeError: It is not the key of such a tuple.
        """
        values = decode(key)
        if len(values) != len(self._letters) or not all(
            letter_of(value) in letters for value, letters in zip(values, self._letters, strict=True)
        ):
            raise DecodeError(f"the key {key!r:.80} holds {_shown(values)}, which is not a tuple of {self._names}")
        return values

    def _checked(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        checked = []
        for index, (value, letters) in enumerate(zip(values, self._letters, strict=False)):
            letter = letter_of(value)
            if letter == "i" and "i" not in letters and "f" in letters:
                value, letter = _exact_float(value), "f"
            if letter not in letters:
                raise TypeError(
                    f"element {index} of the key {_shown(values)} is of type {type(value).__name__}: "
                    f"a key of this view is a tuple of {self._names}"
                )
            checked.append(value)
        return tuple(checked)

    def __repr__(self) -> str:
        return f"ordered.Tuple[{self._names}]"


def _exact_float(value: int) -> float:
    try:
        converted = float(value)
    except OverflowError:
        converted = 0.0
    if converted != value:
        raise InvalidKeyError(f"the int {_shown(value)} is not exactly a float: give a float")
    return converted


def _letters_of(kind: Any) -> frozenset[str]:
    """Return the letters of a type or a union of types."""
    if get_origin(kind) in (Union, types.UnionType):
        return frozenset().union(*map(_letters_of, get_args(kind)))
    if kind is None or kind is type(None):
        return frozenset("0")
    if kind is datetime:
        return frozenset("lt")
    for letter, known in _KINDS:
        if kind is known:
            return frozenset(letter)
    raise TypeError(
        f"{kind!r:.80} cannot be the type of an element: "
        f"an ordered key holds str, int, float, bool, None, datetime, date, UUID and bytes"
    )


class _TupleTypes:
    """The maker of the types of the keys of a view: ``Tuple[str, int]`` is a `TupleKey`."""

    def __getitem__(self, types: Any) -> TupleKey:
        return TupleKey(types if isinstance(types, tuple) else (types,))

    def __repr__(self) -> str:
        return "ordered.Tuple"


if TYPE_CHECKING:

    class Tuple(Generic[Unpack[Elements]]):
        """The type of the keys of a view, for type checkers."""

else:
    #: The type of the keys of a view: ``sublevel("orders", key=ordered.Tuple[str, int])``. A type
    #: may be a union: ``str | None``.
    Tuple = _TupleTypes()
