"""The standard streams of the process: closed, full and broken ones, and the escapes of a terminal.

Everything that a command prints passes through here. A command never fails with a traceback because
of a stream. If stdout cannot take its output, the command fails with one line on stderr. If stderr
cannot take a line, the line is dropped, and the exit code stays.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, BinaryIO, Final, NoReturn, cast

from ..escapes import escape_unsafe_in_lines
from .errors import CommandError

_STDOUT, _STDERR = 1, 2
_CLOSED: Final = "is closed: redirect it, for example to /dev/null"


class OutputError(CommandError):
    """The output of a command could not be written to stdout.

    Args:
        reason: The reason.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"stdout {reason}", code="CLI_OUTPUT")


class ReaderGoneError(Exception):
    """The reader of stdout has closed the pipe: there is nothing left to do."""


class _StandardFile(io.FileIO):
    """A standard stream, unbuffered, that fails at most once, and discards all later output.

    Python flushes the streams once more at exit, which would otherwise fail again.
    """

    _is_broken = False

    def write(self, data: Any) -> int:
        """Write bytes; see the class."""
        if self._is_broken:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self._is_broken = True
            self._fail(error)
            return len(data)

    def _fail(self, error: OSError) -> None:
        """Report the failure, or ignore it."""


class _StandardOutput(_StandardFile):
    """stdout: a failure ends the command."""

    def _fail(self, error: OSError) -> NoReturn:
        if isinstance(error, BrokenPipeError):
            raise ReaderGoneError from error
        raise OutputError(f"cannot be written: {error.strerror}") from error


def prepare_streams() -> None:
    """Prepare the standard streams of this process for `write_stdout` and `write_stderr`.

    A closed stream is opened on the null device first: the next file to be opened, one of a store
    perhaps, would take its number otherwise, and all that is written to the stream.
    """
    for descriptor in (0, _STDOUT, _STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    # A program that calls `main` may have replaced the streams: those stay.
    if sys.stdout is not None and sys.stdout is sys.__stdout__:
        sys.stdout = _text_stream(io.BufferedWriter(_StandardOutput(_STDOUT, "w", closefd=False)), line_buffering=False)
    if sys.stderr is sys.__stderr__:
        # Unbuffered, as each line of stderr is written at once.
        stderr = cast(Any, _StandardFile(_STDERR, "w", closefd=False))
        sys.stderr = _text_stream(stderr, line_buffering=True)


def _text_stream(binary: Any, *, line_buffering: bool) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        binary, encoding="utf-8", errors="backslashreplace", newline="\n", line_buffering=line_buffering
    )


def require_stdout() -> None:
    """Check that a command can print.

    Raises:
        OutputError: stdout was closed when the process started.
    """
    if sys.stdout is None:
        raise OutputError(_CLOSED)


def stdin() -> BinaryIO:
    """Return stdin.

    Raises:
        CommandError: stdin was closed when the process started, or cannot be read.
    """
    if sys.stdin is None:
        raise CommandError(f"stdin {_CLOSED}, or name a file", code="CLI_INPUT")
    return sys.stdin.buffer


def write_stdout(data: bytes) -> None:
    """Write UTF-8 to stdout: escaped on a terminal, byte for byte to a pipe or a file.

    Raises:
        OutputError: stdout is closed, or refuses the data.
    """
    require_stdout()
    if sys.stdout.isatty():
        data = escape_unsafe_in_lines(data.decode("utf-8", "surrogateescape")).encode()
    sys.stdout.buffer.write(data)


def flush_stdout() -> None:
    """Write out the output of the command so far.

    Raises:
        OutputError: stdout refuses the data.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


class StdoutWriter:
    """stdout, for functions that write bytes to a file: see `write_stdout`."""

    def write(self, data: bytes) -> int:
        """Write bytes, and return their number."""
        write_stdout(data)
        return len(data)


def write_stderr(line: str) -> None:
    """Write a line of text without control characters to stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
