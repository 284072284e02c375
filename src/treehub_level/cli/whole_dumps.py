"""Dumps of whole stores: ``dump --all``, and ``load`` of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, cast

from ..backends import create
from ..maintenance.whole_dump import HEADER, dump_whole, load_whole
from .errors import CommandError
from .output import counted, print_json, print_line
from .progress import progress_bar
from .stores import check_prefix, display_name, no_store_error
from .streams import StdoutWriter


def is_whole_dump(stream: BinaryIO) -> bool:
    """Return True if a file, of which nothing was read yet, is a dump of a whole store."""
    if stream.seekable():
        start = stream.tell()
        found = stream.read(len(HEADER))
        stream.seek(start)
    else:
        peek = getattr(stream, "peek", lambda size: b"")
        found = peek(len(HEADER))[: len(HEADER)]
    return found == HEADER


def dump_all(directory: str, file: str, *, as_json: bool, backend: str, prefix: str) -> None:
    """Write all rows of a store to a file, which keeps its content if the store cannot be read."""
    check_prefix(prefix)
    if not create(backend, directory, {}).exists():
        raise no_store_error(directory, backend=backend)
    with (
        ExitStack() as opened,
        progress_bar(f"dump {display_name(directory, backend=backend)}", None, shown=file != "-") as advance,
    ):
        count = dump_whole(
            directory,
            lambda: opened.enter_context(open_output(file)),
            backend=backend,
            prefix=prefix,
            progress=advance,
        )
    if file == "-":
        return
    if as_json:
        print_json({"dumped": count})
    else:
        print_line(f"dumped {counted(count, 'row')} to {file}, with the metadata: `load` makes the same store of it")


def load_all(stream: BinaryIO, source: str, directory: str, *, as_json: bool, backend: str, prefix: str) -> None:
    """Make a new store of a dump of a whole store."""
    check_prefix(prefix)
    with progress_bar(f"load {source}", None, in_bytes=True) as advance:
        mode, count = load_whole(stream, source, directory, backend=backend, prefix=prefix, progress=advance)
    if as_json:
        print_json({"loaded": count, "mode": mode.value})
    else:
        name = display_name(directory, backend=backend)
        print_line(f"loaded {counted(count, 'row')}: {name} is the same {mode.value} store as the one that was dumped")


@contextmanager
def open_output(file: str) -> Iterator[BinaryIO]:
    """Open a file to write a dump to; ``-`` is stdout. A new file is for its owner only."""
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
