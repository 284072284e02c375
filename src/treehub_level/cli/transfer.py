"""The commands ``load`` and ``dump``: import and export of JSON Lines."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, BinaryIO, cast

import typer

from ..blocking import Level
from ..errors import InvalidKeyError, InvalidValueError, LevelError
from ..types import Mode
from .errors import CommandError
from .lines import BadLineError, InputRecord, batched, read_records, write_record
from .options import (
    At,
    Backend,
    Dir,
    Gt,
    Gte,
    JSONOutput,
    Limit,
    Lt,
    Lte,
    MetadataPrefix,
    ModeOption,
    Prefix,
    Reverse,
    bounds,
)
from .output import counted, print_json, print_line
from .progress import Advance, progress_bar
from .stores import created_level, display_name, readable_state
from .streams import StdoutWriter, stdin

#: Records between two updates of the progress bar of ``dump``.
_PROGRESS_EVERY = 1000


def load(
    directory: Dir,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The JSON Lines file; - is stdin.")] = "-",
    key_field: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="FIELD",
            help="Store each whole line as a value, under the string or integer in its field FIELD.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Records per atomic batch.")] = 1000,
    as_json: JSONOutput = False,
    mode: ModeOption = None,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Store the records of a JSON Lines file.

    Each line is {"key": …, "value": …}. The store is created if it does not exist.

    A file is checked before anything is stored: if a line is invalid, no record is stored. Input
    from a pipe is stored batch by batch: an invalid line ends the load, and its batch is not
    stored.
    """
    source = "stdin" if file == "-" else file
    began = time.perf_counter()
    with (
        _open_input(file) as stream,
        created_level(directory, mode=mode, backend=backend, prefix=metadata_prefix, create_as=Mode.NORMAL) as level,
    ):
        loader = _Loader(level, source, lambda: batched(read_records(stream, source, key_field), batch_size))
        size = _bytes_left(stream)
        try:
            if size is not None:
                start = stream.tell()
                with progress_bar(f"check {source}", size, in_bytes=True) as advance:
                    loader.check(advance)
                stream.seek(start)
            with progress_bar(f"load {source}", size, in_bytes=True) as advance:
                loader.load(advance)
        except CommandError as error:
            raise CommandError(f"{error}; {loader.summary}", code=error.code) from error
        except LevelError as error:
            raise CommandError(f"{error}; {loader.summary} before that", code=error.code) from error
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted: {loader.summary}") from None
        cid = level.info()["cid"]
    if as_json:
        print_json({"loaded": loader.loaded, "cid": cid})
    else:
        print_line(f"{loader.summary} in {time.perf_counter() - began:.1f} s")


class _Loader:
    """Writes records in atomic batches, and counts the records stored."""

    def __init__(self, level: Level, source: str, read: Callable[[], Iterator[list[InputRecord]]]) -> None:
        self._level = level
        self._source = source
        self._read = read
        self.loaded = 0

    @property
    def summary(self) -> str:
        return f"loaded {counted(self.loaded, 'record')}"

    def check(self, advance: Advance) -> None:
        """Raise `BadLineError` for the first line that cannot be stored. Nothing is written."""
        checked = 0
        for records in self._read():
            self._check_lines(records)
            checked += sum(record.size for record in records)
            advance(checked)

    def load(self, advance: Advance) -> None:
        """Store all records, batch by batch."""
        stored = 0
        for records in self._read():
            self._store(records)
            self.loaded += len(records)
            stored += sum(record.size for record in records)
            advance(stored)

    def _store(self, records: list[InputRecord]) -> None:
        """Store records in one batch. They do not belong together as those of `batch` do."""
        try:
            self._level.load(((record.key, record.value) for record in records), batch_size=len(records) or 1)
        except (InvalidKeyError, InvalidValueError):
            self._check_lines(records)
            raise

    def _check_lines(self, records: list[InputRecord]) -> None:
        """Raise `BadLineError` for the first of these records that cannot be stored."""
        batch = self._level.write_batch()
        for record in records:
            try:
                batch.put(record.key, record.value)
            except (InvalidKeyError, InvalidValueError) as error:
                raise BadLineError(self._source, record.line, str(error), code=error.code) from error


@contextmanager
def _open_input(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield stdin()
        return
    with open(file, "rb") as stream:
        yield stream


def _bytes_left(stream: BinaryIO) -> int | None:
    """Return the bytes left to read, or ``None`` if the stream is not seekable (a pipe)."""
    if not stream.seekable():
        return None
    position = stream.tell()
    end = stream.seek(0, 2)
    stream.seek(position)
    return end - position


def dump(
    directory: Dir,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file to write; - is stdout.")] = "-",
    gt: Gt = None,
    gte: Gte = None,
    lt: Lt = None,
    lte: Lte = None,
    prefix: Prefix = None,
    reverse: Reverse = False,
    limit: Limit = None,
    at: At = None,
    as_json: JSONOutput = False,
    mode: ModeOption = None,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Write the records of a store or of a range as JSON Lines.

    Each line is {"key": …, "value": …}, as `load` reads it.
    """
    within = bounds(gt, gte, lt, lte, prefix)
    to_stdout = file == "-"
    # Open the store before the file: if the store cannot be opened, the file keeps its content.
    with (
        readable_state(directory, at, mode=mode, backend=backend, prefix=metadata_prefix) as level,
        _open_output(file) as stream,
    ):
        shown = sys.stderr.isatty() and not (to_stdout and sys.stdout is not None and sys.stdout.isatty())
        total = level.count(**within) if shown else None
        dumped = 0
        with progress_bar(f"dump {display_name(directory, backend=backend)}", total, shown=shown) as advance:
            for key, value in level.scan(**within, reverse=reverse, limit=limit):
                write_record(stream, key, value)
                dumped += 1
                if dumped % _PROGRESS_EVERY == 0:
                    advance(dumped)
    if to_stdout:
        return
    if as_json:
        print_json({"dumped": dumped})
    else:
        print_line(f"dumped {counted(dumped, 'record')} to {file}")


@contextmanager
def _open_output(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield cast(BinaryIO, StdoutWriter())
        return
    try:
        with open(file, "wb", opener=_open_private) as stream:
            yield stream
    except OSError as error:
        if error.filename is not None:
            raise
        raise CommandError(f"{file} cannot be written: {error.strerror}; it is incomplete", code="CLI_IO") from error


def _open_private(path: str, flags: int) -> int:
    """Open a file; a new one is for its owner only, as it holds the data of a store."""
    return os.open(path, flags, 0o600)
