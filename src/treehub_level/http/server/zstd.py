"""Zstandard, from wherever it comes: Python's own from 3.14 on, else the library, else not at all."""

from __future__ import annotations

import sys
from typing import Final, Protocol

#: The largest window that RFC 8878 asks a decoder to support: it bounds what one stream makes it allocate.
_MAX_WINDOW_LOG: Final = 23


class Compressor(Protocol):
    """Compresses a stream, piece by piece."""

    def compress(self, data: bytes, /) -> bytes:
        """What the next piece becomes; perhaps nothing yet."""

    def flush(self) -> bytes:
        """The rest."""


if sys.version_info >= (3, 14):
    from compression import zstd

    AVAILABLE = True

    def compressor() -> Compressor:
        """One for a new stream."""
        return zstd.ZstdCompressor(level=3)

    def decompress(data: bytes, limit: int) -> bytes:
        """What one whole frame holds, or more than ``limit`` bytes of it.

        Raises:
            ValueError: It is damaged, or something follows it.
        """
        decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})
        try:
            plain = decompressor.decompress(data, limit + 1)
        except zstd.ZstdError as error:
            raise ValueError(str(error)) from error
        if len(plain) <= limit and (not decompressor.eof or decompressor.unused_data):
            raise ValueError("it is not one whole frame")
        return plain

else:
    try:
        import zstandard

        AVAILABLE = True
    except ModuleNotFoundError:
        AVAILABLE = False

    #: Four bytes may become a block of 128 KiB, so this many become at most 4 MiB: what may come beyond the limit.
    _STEP: Final = 128

    def compressor() -> Compressor:
        """One for a new stream."""
        return zstandard.ZstdCompressor(level=3).compressobj()

    def decompress(data: bytes, limit: int) -> bytes:
        """What one whole frame holds, or more than ``limit`` bytes of it.

        Raises:
            ValueError: It is damaged, or something follows it.
        """
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _MAX_WINDOW_LOG).decompressobj()
        plain = bytearray()
        try:
            for start in range(0, len(data), _STEP):
                if decompressor.eof:
                    break
                plain += decompressor.decompress(data[start : start + _STEP])
                if len(plain) > limit:
                    return bytes(plain)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
        if not decompressor.eof or decompressor.unused_data or start + _STEP < len(data):
            raise ValueError("it is not one whole frame")
        return bytes(plain)
