"""The rules of a server: a function of the application that may refuse the changes of clients.

The function ``check(call, changes, read)`` runs in the write transaction, once for each group of
changes. It refuses a group by `Refused`. Any other exception fails the whole request: nothing of it
is written.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from typing_extensions import Unpack

from .. import _core
from ..backends.base import Entry
from ..engine.codec import Codec
from ..engine.modes import Server
from ..engine.pending import PendingReader
from ..engine.ranges import Range, parse_range
from ..errors import CheckError, CorruptionError, DecodeError, Refused, StorageError, TransportError
from ..types import MISSING, Mode, RangeOptions
from .fields import MAX_REASON

#: A function that may refuse changes: its arguments are a `Call`, a list of `CheckedChange` and a
#: `Lookup`.
Check = Callable[["Call", "list[CheckedChange]", "Lookup"], object]

#: Seconds after which a check is slow: all other writers wait for it.
SLOW_SECONDS: Final = 1.0
#: Seconds that the checks of one push may take before its client is asked to send fewer changes.
PUSH_SECONDS: Final = 10.0

#: The number of slow checks of this process, by the id of the server.
SLOW_CHECKS: Final[Counter[str]] = Counter()

logger = logging.getLogger("treehub_level")


class Call(NamedTuple):
    """The caller whose changes are checked.

    Attributes:
        principal: The name of the caller, as a token gives it; ``None`` without authentication.
        client: The id of the client store; ``None`` for a single write or a manual push.
    """

    principal: str | None
    client: str | None


@dataclass(frozen=True, slots=True)
class CheckedChange:
    """A change that a client has sent, and a check may refuse.

    Attributes:
        key: The key.
        before: The present value on the server; `MISSING` if there is none.
        after: The new value; `MISSING` if the change deletes the key.
    """

    key: str
    before: Any
    after: Any


class Lookup:
    """Reads of the store for a check. It sees the changes that were accepted before in its request.

    Args:
        reader: The reader.
        space: The key space of the store.
    """

    def __init__(self, reader: PendingReader, space: _core.KeySpace) -> None:
        self._reader = reader
        self._codec = Codec(Mode.SERVER, space)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key; ``default`` if it is absent."""
        return self.get_many([key], default)[0]

    def get_many(self, keys: Sequence[str], default: Any = None) -> list[Any]:
        """Return the value of each key, in order; ``default`` for an absent one."""
        stored = [self._codec.encoder.key(key) for key in keys]
        found = zip(stored, self._reader.get_many(stored), strict=True)
        return [default if value is None else self._codec.decoder.value(key, value) for key, value in found]

    def query(self, **options: Unpack[RangeOptions]) -> list[tuple[str, Any]]:
        """Return the entries of a range: see `Level.query`.

        Args:
            **options: Its bounds (``gt``, ``gte``, ``lt``, ``lte``, ``prefix``), ``reverse`` and
                ``limit``.
        """
        wanted: Range = parse_range(self._codec, "query", options)
        found: list[tuple[str, Any]] = []
        rows = self._reader.rows(wanted.start, wanted.stop, reverse=wanted.reverse)
        for key, value in rows:
            if wanted.limit is not None and len(found) >= wanted.limit:
                break
            found.append((_core.decode_key(key), self._codec.decoder.value(key, value)))
        return found


def require_check(check: object) -> Check | None:
    """Return a check, or ``None`` for none.

    Raises:
        TypeError: It is no function of three arguments, or one that must be awaited: it runs while
            all other writers wait.
    """
    if check is None:
        return None
    if not callable(check):
        raise TypeError(f"check is a function of (call, changes, read), not {check!r:.80}")
    if inspect.iscoroutinefunction(check) or inspect.iscoroutinefunction(getattr(check, "__call__", None)):  # noqa: B004
        raise TypeError("check is a plain function, not an async one: it runs inside the write transaction")
    try:
        signature = inspect.signature(check)
    except ValueError:  # a function of C without one
        return check
    try:
        signature.bind(None, [], None)
    except TypeError as error:
        raise TypeError(f"check is called as check(call, changes, read), and {check!r:.80} {error}") from error
    return check


def check_group(mode: Server, call: Call, entries: Sequence[Entry], reader: PendingReader) -> None:
    """Ask the check of a server about changes that are written together.

    Args:
        mode: The server.
        call: The caller.
        entries: The changes, encoded.
        reader: The store with the changes that were accepted before.

    Raises:
        Refused: The check refuses them.
        CheckError: The check failed.
        StorageError, CorruptionError, DecodeError: The store could not be read.
    """
    check = mode.check
    if check is None:
        return
    decoder = _core.Decoder()
    before = reader.get_many([key for key, _ in entries])
    changes = [
        CheckedChange(
            _core.decode_key(key),
            MISSING if old is None else decoder.value(key, old),
            MISSING if new is None else decoder.value(key, new),
        )
        for (key, new), old in zip(entries, before, strict=True)
    ]
    started = time.monotonic()
    try:
        result = check(call, changes, Lookup(reader, mode.space))
    except (Refused, StorageError, CorruptionError, DecodeError):  # the last three: of its reads
        raise
    except Exception as error:
        raise CheckError(f"the check of this server failed: {type(error).__name__}: {error!s:.300}") from error
    finally:
        _record_duration(mode, time.monotonic() - started, len(changes))
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise CheckError("the check of this server returned an awaitable: it must be a plain function")


class CheckTime:
    """The time that the checks of one push take, while all other writers wait."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + PUSH_SECONDS

    def require_more(self) -> None:
        """Require time for a further check.

        Raises:
            TransportError: There is none. The client sends fewer changes, as it does if a push is
                too large.
        """
        if time.monotonic() > self._deadline:
            raise TransportError(
                f"the check of this server has taken more than {PUSH_SECONDS:.0f} seconds for a part of this push: "
                "send fewer changes at a time. Nothing was written",
                status=413,
            )


def _record_duration(mode: Server, seconds: float, count: int) -> None:
    """Log and count a slow check."""
    if seconds > SLOW_SECONDS:
        SLOW_CHECKS[mode.store_id] += 1
        logger.warning(
            "the check of a server took %.1f seconds for %d changes: all other writers waited for it", seconds, count
        )


def reasons_of(refused: Refused, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Return the reason for each key of a group that was refused.

    Args:
        refused: The refusal.
        keys: The keys of the group.
    """
    reason = refused.reason[:MAX_REASON] or "refused"
    at_fault = {*keys} if refused.keys is None else {*refused.keys} & {*keys}
    others = f"written together with a refused change: {reason}"[:MAX_REASON]
    return ((key, reason if key in at_fault or not at_fault else others) for key in keys)
