"""The commands ``load`` and ``dump``: import and export of JSON Lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, BinaryIO

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
from .streams import stdin
from .whole_dumps import dump_all, is_whole_dump, load_all, open_output

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

    Each line is {"key": …, "value": …}. The store is created if it does not exist. A file that
    `dump --all` has written makes a new store, the same one as was dumped.

    A file is checked before anything is stored: if a line is invalid, no record is stored. Input
    from a pipe is stored batch by batch: an invalid line ends the load, and its batch is not
    stored.
    """
    source = "stdin" if file == "-" else file
    with _open_input(file) as stream:
        if is_whole_dump(stream):
            if key_field is not None or mode is not None:
                raise typer.BadParameter(
                    f"{source} is a dump of a whole store (dump --all): leave out --key and --mode"
                )
            load_all(stream, source, directory, as_json=as_json, backend=backend, prefix=metadata_prefix)
            return
        began = time.perf_counter()
        with created_level(
            directory, mode=mode, backend=backend, prefix=metadata_prefix, create_as=Mode.NORMAL
        ) as level:
            loader = _Loader(level, source, lambda: batched(read_records(stream, source, key_field), batch_size))
            loader.run(stream)
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

    def run(self, stream: BinaryIO) -> None:
        """Check the records of a file, and store them. Those of a pipe are not checked before."""
        size = _bytes_left(stream)
        try:
            if size is not None:
                start = stream.tell()
                with progress_bar(f"check {self._source}", size, in_bytes=True) as advance:
                    self.check(advance)
                stream.seek(start)
            with progress_bar(f"load {self._source}", size, in_bytes=True) as advance:
                self.load(advance)
        except CommandError as error:
            raise CommandError(f"{error}; {self.summary}", code=error.code) from error
        except LevelError as error:
            raise CommandError(f"{error}; {self.summary} before that", code=error.code) from error
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted: {self.summary}") from None

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
    whole: Annotated[
        bool, typer.Option("--all", help="Write all of the store, with its change log, journal and identity.")
    ] = False,
    as_json: JSONOutput = False,
    mode: ModeOption = None,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Write the records of a store or of a range as JSON Lines.

    Each line is {"key": …, "value": …}, as `load` reads it. `load` makes a new store of them: the
    change log, the journal and the identity stay behind, so clients cannot go on with it. With
    --all, they are part of the dump, and `load` makes the same store of it. `backup` does the same
    faster.
    """
    if whole:
        if {gt, gte, lt, lte, prefix, limit, at, mode} != {None} or reverse:
            raise typer.BadParameter("--all is the whole store: leave out the options for a range, --at and --mode")
        dump_all(directory, file, as_json=as_json, backend=backend, prefix=metadata_prefix)
        return
    within = bounds(gt, gte, lt, lte, prefix)
    to_stdout = file == "-"
    # Open the store before the file: if the store cannot be opened, the file keeps its content.
    with (
        readable_state(directory, at, mode=mode, backend=backend, prefix=metadata_prefix) as level,
        open_output(file) as stream,
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
