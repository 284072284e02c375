"""The time at which a certificate expires (RFC 5280, section 4.1).

The module ``ssl`` tells the validity of a peer's certificate, never of one's own. The one field is
read here, since the package ``cryptography`` would be a dependency of every server for it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Final

_CERTIFICATE: Final = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
#: Tags of DER: the optional version of a certificate, and the two forms of a time.
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
#: A two-digit year from this one on belongs to the 20th century.
_FIRST_YEAR: Final = 50


def certificate_expiry(pem: str) -> float | None:
    """Return the time at which the first certificate of a chain expires, in seconds since 1970.

    Args:
        pem: The chain, as in a PEM file.

    Returns:
        The time; ``None`` if the certificate cannot be read.
    """
    found = _CERTIFICATE.search(pem)
    if found is None:
        return None
    try:
        ((_, certificate),) = _elements(ssl.PEM_cert_to_DER_cert(found[0]))
        _, body = next(_elements(certificate))
        fields = [content for tag, content in _elements(body) if tag != _VERSION]
        _, _, _, validity, *_ = fields  # after the serial number, the algorithm and the issuer
        _, (tag, text) = _elements(validity)
        return _seconds(tag, text.decode("ascii"))
    except (ValueError, IndexError, StopIteration):
        return None


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each element of a sequence in DER.

    Raises:
        ValueError, IndexError: The sequence is malformed.
    """
    position = 0
    while position < len(der):
        tag, length = der[position], der[position + 1]
        position += 2
        if length & 0x80:  # the long form: the number of bytes of the length
            size = length & 0x7F
            length = int.from_bytes(der[position : position + size], "big")
            position += size
        if position + length > len(der):
            raise ValueError("an element is longer than its sequence")
        yield tag, der[position : position + length]
        position += length


def _seconds(tag: int, text: str) -> float:
    """Return a time in seconds since 1970.

    Raises:
        ValueError: It is malformed.
    """
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= _FIRST_YEAR else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError(f"the tag {tag:#x} is none of a time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()
