"""Random mutation of inputs: used alone, and as a custom mutator of atheris."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Sequence
from typing import Any, Final

#: The length of the longest input, in bytes.
MAX_BYTES: Final = 4096

# fmt: off
_PUNCTUATION: Final = [
    b'"', b"\\", b"[", b"]", b"{", b"}", b",", b":", b" ", b"\n", b"\r\n", b"\t", b"\0", b"!", b"!!", b"/", b"%2F",
]
_CHARACTERS: Final = [
    b"\\u0000", b"\\ud800", b"\\udc00", b"\\u003a", b"\\u00e9", "é".encode(), "😀".encode(),
    b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
]
_WORDS_AND_NUMBERS: Final = [
    b"null", b"true", b"NaN", b"Infinity", b"-0", b"1e400", b"1e-400", b"0.1", b"9223372036854775807",
    b"9223372036854775808", b"18446744073709551615", b"18446744073709551616", b"-1", b"01",
    b"9007199254740991", b"9007199254740992", b":10", b"G9007199254740991",
]
_CONTAINERS: Final = [
    b"[[]]", b"[" * 65, b"{}" * 3, b'{"key":', b',"value":', b'"changes":', b'"kind":"page"', b'"__proto__"',
]
_URL: Final = [b"%", b"%ff", b"%00", b"?", b"&", b"="]
_HEADERS: Final = [
    b"content-length: 9\r\n", b"transfer-encoding: chunked\r\n", b"host: localhost\r\n", b"\r\n\r\n", b"HTTP/1.1",
]
# fmt: on
_SIZES: Final = [struct.pack("@N", size) for size in (0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1)]

#: Bytes that decoders treat specially, and edge cases.
TOKENS: Final = _PUNCTUATION + _CHARACTERS + _WORDS_AND_NUMBERS + _CONTAINERS + _URL + _HEADERS + [b"&", b"="] + _SIZES

# fmt: off
_SCALARS: Final = [
    None, True, False, 0, 1, -1, 2**53, 2**63, 2**64, 10**30, 0.5, 1e308, "", "a", "!", "é", "😀", "a" * 1025, "\0",
]
_CHANGES_AND_CONTAINERS: Final = [
    [], [[]], {}, {"a": 1}, ["a"], ["a", 1], [1, ["a", 2]], [["e", 1], ["f", 0]], "0" * 32, "\ud800",
]
# fmt: on
#: Values of unexpected types and sizes.
UNEXPECTED: Final[list[Any]] = [*_SCALARS, *_CHANGES_AND_CONTAINERS]


def mutate(data: bytes, corpus: Sequence[bytes], rng: random.Random) -> bytes:
    """Return a mutated input: JSON with a value replaced, or bytes with some of them changed."""
    if rng.random() < 0.4:
        changed = _mutate_json(data, rng)
        if changed is not None:
            return changed[:MAX_BYTES]
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randint(0, len(made))
        end = min(len(made), at + rng.choice((1, 1, 2, 4, 16, 256)))
        change = rng.randrange(6)
        if change == 0 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            made[at:at] = rng.choice(TOKENS)
        elif change == 2:
            made[at:end] = rng.choice(TOKENS)
        elif change == 3:
            del made[at:end]
        elif change == 4:
            made[at:at] = made[at:end]
        else:
            other = rng.choice(corpus)
            made[at:] = other[rng.randint(0, len(other)) :]
    return bytes(made[:MAX_BYTES])


def _mutate_json(data: bytes, rng: random.Random) -> bytes | None:
    """Replace, delete or repeat a value of JSON, which may follow lines of other text.

    Returns:
        ``None`` if there is no JSON.
    """
    head, line_break, text = data.rpartition(b"\n") if rng.random() < 0.5 else (b"", b"", data)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    places: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        container = waiting.pop()
        if isinstance(container, dict | list):
            steps = [*container] if isinstance(container, dict) else range(len(container))
            places += [(container, step) for step in steps]
            waiting += [container[step] for step in steps]
    if not places:
        document = rng.choice(UNEXPECTED)
    else:
        container, step = rng.choice(places)
        change = rng.randrange(4)
        if change == 0:
            del container[step]
        elif change == 1 and isinstance(container, list):
            container.append(container[step])
        else:
            container[step] = rng.choice(UNEXPECTED)
    separators = rng.choice(((",", ":"), (", ", ": ")))
    return (
        head
        + line_break
        + json.dumps(document, separators=separators, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")
    )
