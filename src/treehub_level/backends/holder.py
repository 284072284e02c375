"""The process that has a store open, as its lock file names it.

The lock itself is the kernel's. The content of the lock file only names its owner, and it may be
old: the process has ended, or another process has its id now. So it is compared with the processes
of this machine before a message repeats it.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from ..errors import LockedError

#: The most bytes of a lock file that are read.
_MAX_BYTES: Final = 4096
#: The name of a database: see ``docs/http.md``.
_DATABASE: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a store open.

    Attributes:
        pid: Its process id.
        started: The time of its start, in a unit of the system; ``None`` if the system tells none.
        host: The name of its machine.
        boot: The id of the machine's start and of the namespace of process ids, in which ``pid`` is
            unique; ``None`` if the system tells none.
        program: The name of its program.
        url: The URL of the server that it runs; ``None`` if it is no ``treehub-level serve``.
    """

    pid: int
    started: int | None
    host: str
    boot: str | None
    program: str
    url: str | None

    def to_stored(self) -> bytes:
        """Return the content of a lock file."""
        return orjson.dumps(asdict(self), option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def read(cls, path: str) -> Holder | None:
        """Return the holder that a lock file names; ``None`` if it names none."""
        try:
            with open(path, "rb") as file:
                found = orjson.loads(file.read(_MAX_BYTES))
        except (OSError, ValueError):
            return None
        match found:
            case {"pid": int(pid), "host": str(host), "program": str(program)}:
                started, boot, url = (found.get(name) for name in ("started", "boot", "url"))
                return cls(
                    pid,
                    started if isinstance(started, int) else None,
                    host[:255],
                    boot if isinstance(boot, str) else None,
                    program[:255],
                    url[:255] if isinstance(url, str) else None,
                )
        return None

    @property
    def is_this_process(self) -> bool:
        """True if it is the running process."""
        return self.pid == os.getpid() and self.is_local and self.started in (None, _start_of(self.pid))

    @property
    def is_local(self) -> bool:
        """True if the id of its process can be looked up here."""
        return (self.host, self.boot) == (socket.gethostname(), _boot())

    @property
    def has_ended(self) -> bool:
        """True if it is known that the process does not run any more."""
        if not self.is_local:
            return False
        try:
            os.kill(self.pid, 0) if sys.platform != "win32" else None
        except ProcessLookupError:
            return True
        except OSError:  # of another user
            pass
        started = _start_of(self.pid)
        return None not in (started, self.started) and started != self.started


class _Announced:
    """The description of this process, for the locks that it takes."""

    program: str | None = None
    url: str | None = None


def announce(*, program: str | None = None, url: str | None = None) -> None:
    """Set the name of this program, or the URL of its server, for the locks taken from now on."""
    _Announced.program = program or _Announced.program
    _Announced.url = url or _Announced.url


def this_process() -> Holder:
    """Return the running process."""
    pid = os.getpid()
    program = _Announced.program or _program_in(sys.argv[0] if sys.argv else "")
    return Holder(pid, _start_of(pid), socket.gethostname(), _boot(), program, _Announced.url)


def locked_error(kind: str, path: str, holder: Holder | None) -> LockedError:
    """Return the exception for a store that another level has open.

    Args:
        kind: The kind of the store: ``"LevelDB"``.
        path: The path of the store.
        holder: The holder that its lock file names; ``None`` without one.
    """
    subject = f"the {kind} store at {path!r} is open already"
    if holder is None or holder.has_ended:  # another process is about to write its own name
        return LockedError(
            f"{subject}, in this process or another, and only one can have it open: close it there; or serve it over "
            "HTTP from the process that has it open, and sync a store of your own with it"
        )
    details: dict[str, Any] = {name: getattr(holder, name) for name in ("pid", "host", "program", "url")}
    if holder.is_this_process:
        return LockedError(
            f"{subject} in this process, and only one can have it open: use that Level, or close it", **details
        )
    where = "" if holder.is_local else f" on {holder.host}, as its lock file says"
    subject = f"{subject} in process {holder.pid} ({holder.program}){where}, and only one can have it open"
    if holder.url is None:
        return LockedError(
            f"{subject}: close it there, or read it with read_only=True; or serve it over HTTP from that process, and "
            "sync a store of your own with it",
            **details,
        )
    name = os.path.basename(os.path.abspath(path))
    url = f"{holder.url}/v1/{name}" if _DATABASE.fullmatch(name) else holder.url
    return LockedError(
        f"{subject}: it serves the store at {url}: use that URL, read the store with read_only=True, or stop the "
        "server",
        **{**details, "url": url},
    )


def _program_in(argument: str) -> str:
    """Return the name of the program whose first argument this is: a script, or a package."""
    folder, name = os.path.split(argument)
    name = os.path.basename(folder) if name == "__main__.py" else name
    return "python" if name in ("", "-c", "-m") else name


@lru_cache(maxsize=1)
def _boot() -> str | None:
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    return None


def _start_of(pid: int) -> int | None:
    """Return the time at which a process started, in ticks since the start of the machine."""
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])  # field 22; the name, field 2, may have spaces
    return None
