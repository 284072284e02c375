"""Conditional requests (RFC 9110, section 13): ``ETag``, ``If-Match`` and ``If-None-Match``."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from starlette.requests import Request

from ...errors import ConditionError
from .refusals import RefusedError, bad_request

#: The most characters of a header with entity tags, and the most tags in it.
_MAX_CHARACTERS: Final = 8192
_MAX_TAGS: Final = 100
#: Values of at least this many bytes are hashed in a thread.
_THREAD_BYTES: Final = 64 << 10
#: An entity tag and the white space around it, at the begin of a list; or an empty element.
_ELEMENT: Final = re.compile(r'[ \t]*(?:(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*)?(?:,|\Z)')
#: The end of the tag of a compressed representation, which has a strong tag of its own.
_CODING: Final = re.compile(r"-(?:gzip|zstd)\Z")


class EntityTag(NamedTuple):
    """An entity tag of a request.

    Attributes:
        opaque: The text between the quotes, without the name of a content coding at its end: each
            coding of a value is the same value.
        is_weak: True for a weak tag.
    """

    opaque: str
    is_weak: bool


class AnyTag(NamedTuple):
    """``*``: any value of the key."""


Tags = AnyTag | tuple[EntityTag, ...]


class Preconditions(NamedTuple):
    """The conditions of a request.

    Attributes:
        if_match: The tags of ``If-Match``; ``None`` without the header.
        if_none_match: The same for ``If-None-Match``.
    """

    if_match: Tags | None
    if_none_match: Tags | None

    def __bool__(self) -> bool:
        return self.if_match is not None or self.if_none_match is not None

    def require_match(self, tag: str | None) -> None:
        """Check ``If-Match``, by the strong comparison: a weak tag never matches.

        Args:
            tag: The tag of the present value, without quotes; ``None`` if the key is absent.

        Raises:
            RefusedError: The present value is another one.
        """
        if self.if_match is None:
            return
        if tag is None or not (isinstance(self.if_match, AnyTag) or EntityTag(tag, False) in self.if_match):
            raise condition_failed(tag)

    def names_present(self, tag: str | None) -> bool:
        """Return True if ``If-None-Match`` names the present value, by the weak comparison."""
        if self.if_none_match is None or tag is None:
            return False
        return isinstance(self.if_none_match, AnyTag) or any(found.opaque == tag for found in self.if_none_match)

    def require_for_write(self, value: bytes | None) -> None:
        """Check the conditions of a write.

        Args:
            value: The present value; ``None`` if the key is absent.

        Raises:
            RefusedError: They do not hold.
        """
        tag = None if value is None else digest(value)
        self.require_match(tag)
        if self.names_present(tag):
            raise condition_failed(tag)


def preconditions(request: Request) -> Preconditions:
    """Parse the conditions of a request.

    Raises:
        RefusedError: A header is malformed, or too long.
    """
    headers = request.headers
    return Preconditions(*(_parse(name, headers.getlist(name)) for name in ("if-match", "if-none-match")))


def refuse_conditions(request: Request) -> None:
    """Refuse conditions of a request that writes several keys: ignored, they would lose an update.

    Raises:
        RefusedError: The request has conditions.
    """
    for name in ("if-match", "if-none-match"):
        if name in request.headers:
            raise bad_request(f"the header {name} is for one key: send it with PUT or DELETE of /entries/{{key}}")


def _parse(name: str, lines: Sequence[str]) -> Tags | None:
    """Parse the lines of a header with entity tags."""
    if not lines:
        return None
    text = ",".join(lines).strip(" \t")
    if text == "*":
        return AnyTag()
    if len(text) > _MAX_CHARACTERS or text.count(",") >= _MAX_TAGS:
        raise bad_request(f"the header {name} is too long: send at most {_MAX_TAGS} entity tags")
    tags: list[EntityTag] = []
    position = 0
    while position < len(text):
        element = _ELEMENT.match(text, position)
        if element is None:
            raise _malformed(name)
        if element[2] is not None:
            tags.append(EntityTag(_CODING.sub("", element[2]), element[1] is not None))
        position = element.end()
    if not tags:
        raise _malformed(name)
    return tuple(tags)


def _malformed(name: str) -> RefusedError:
    return bad_request(f'the header {name} cannot be read: send * or entity tags as the server sends them, like "abc"')


def digest(value: bytes) -> str:
    """Return the tag of a stored value, without quotes."""
    return hashlib.sha256(value).hexdigest()[:32]


async def digest_soon(value: bytes) -> str:
    """Return the tag of a stored value, without blocking the event loop for a large one."""
    return await asyncio.to_thread(digest, value) if len(value) >= _THREAD_BYTES else digest(value)


def etag_header(tag: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> tuple[bytes, bytes]:
    """Return the header ``ETag`` of a value.

    Args:
        tag: Its tag.
        headers: The other headers of the response: a compressed value has a tag of its own.
    """
    coding = next((value.decode() for name, value in headers if name == b"content-encoding"), "")
    return b"etag", f'"{tag}{"-" if coding else ""}{coding}"'.encode()


def condition_failed(tag: str | None) -> RefusedError:
    """Return the refusal of a request whose conditions do not hold.

    Args:
        tag: The tag of the present value; ``None`` if the key is absent.
    """
    return RefusedError(
        412,
        ConditionError.code,
        "the key has another value than If-Match or If-None-Match ask for, and nothing was written: read it again, "
        "and decide anew",
        headers={} if tag is None else {"etag": f'"{tag}"'},
        details={"etag": None if tag is None else f'"{tag}"'},
    )
