"""Zstandard: from the standard library (Python 3.14 or later), or from the library `zstandard`.

If neither is installed, `AVAILABLE` is False and the server uses gzip.
"""

from __future__ import annotations

import sys
from typing import Final, Protocol

#: The largest window that RFC 8878 asks decoders to support. It bounds the memory for one stream.
_MAX_WINDOW_LOG: Final = 23
#: The window and the tables of a compressor, as base-2 logarithms: those of level 3 for 128 KiB.
#: The defaults of level 3 have a window of 2 MiB, which each slow client would hold.
_WINDOW_LOG, _CHAIN_LOG, _HASH_LOG = 17, 15, 16


class Compressor(Protocol):
    """A compressor of one stream."""

    def compress(self, data: bytes, /) -> bytes:
        """Compress more of the stream. The result may be empty until there is enough data."""

    def flush(self) -> bytes:
        """End the stream and return the rest of the compressed data."""


if sys.version_info >= (3, 14):
    from compression import zstd

    AVAILABLE = True

    def compressor() -> Compressor:
        """Return a compressor for a new stream."""
        parameter = zstd.CompressionParameter
        return zstd.ZstdCompressor(
            options={
                parameter.compression_level: 3,
                parameter.window_log: _WINDOW_LOG,
                parameter.chain_log: _CHAIN_LOG,
                parameter.hash_log: _HASH_LOG,
            }
        )

    def decompress(data: bytes, limit: int) -> bytes:
        """Decompress one complete frame, or stop after more than ``limit`` bytes of output.

        Raises:
            ValueError: The frame is damaged or incomplete, or more data follows it.
        """
        decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})
        try:
            plain = decompressor.decompress(data, limit + 1)
        except zstd.ZstdError as error:
            raise ValueError(str(error)) from error
        if len(plain) <= limit and (not decompressor.eof or decompressor.unused_data):
            raise ValueError("not exactly one complete frame")
        return plain

else:
    try:
        import zstandard

        AVAILABLE = True
    except ModuleNotFoundError:
        AVAILABLE = False

    #: Bytes decompressed in one step. Four bytes may become a block of 128 KiB, so a step yields at
    #: most 4 MiB: the output exceeds the limit by no more than that.
    _STEP_BYTES: Final = 128

    def compressor() -> Compressor:
        """Return a compressor for a new stream."""
        parameters = zstandard.ZstdCompressionParameters.from_level(
            3, window_log=_WINDOW_LOG, chain_log=_CHAIN_LOG, hash_log=_HASH_LOG
        )
        return zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def decompress(data: bytes, limit: int) -> bytes:
        """Decompress one complete frame, or stop after more than ``limit`` bytes of output.

        Raises:
            ValueError: The frame is damaged or incomplete, or more data follows it.
        """
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _MAX_WINDOW_LOG).decompressobj()
        plain = bytearray()
        try:
            for start in range(0, len(data), _STEP_BYTES):
                if decompressor.eof:
                    break
                plain += decompressor.decompress(data[start : start + _STEP_BYTES])
                if len(plain) > limit:
                    return bytes(plain)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
        if not decompressor.eof or decompressor.unused_data or start + _STEP_BYTES < len(data):
            raise ValueError("not exactly one complete frame")
        return bytes(plain)
