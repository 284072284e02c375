"""Merging: an application settles the local changes that lose to the server's values.

The function ``on_conflict`` of a sync is asked in the step that takes the server's reply. The value
that it returns is written in the batch of that step, as a new local change that was made with
knowledge of the server's value. So the server decides again, and no crash comes in between.
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from weakref import WeakSet

from .. import _core
from ..engine import clock
from ..engine.modes import Client
from ..types import JOURNAL, KEEP_SERVER, MISSING, Change, Conflict, Settlement
from .canonical import same_record
from .journal import LostChange

#: A function that settles a conflict: it returns the value to write, `MISSING` to delete the key, a
#: `Change` of the key, `KEEP_SERVER` or `JOURNAL`.
OnConflict = Callable[[Conflict], Any]

#: The number of times in a session that a change of a key, refused again each time, is repaired.
MAX_REPAIRS: Final = 3
#: The number of times in a session that a merged change of a key is rejected, since others write
#: the key all the time, before it waits for the next session.
MAX_REJECTIONS: Final = 8

#: The clients that were told that a function needs base values.
_WARNED: WeakSet[Client] = WeakSet()

logger = logging.getLogger("treehub_level")


class Merged(NamedTuple):
    """A merged value, encoded: it is written instead of a lost change. ``None`` deletes the key."""

    value: bytes | None


Answer = Merged | Settlement


def require_on_conflict(function: object) -> OnConflict | None:
    """Return a function that settles conflicts, or ``None`` for none.

    Raises:
        TypeError: It is no function of one argument, or one that must be awaited: it runs while all
            other writers wait.
    """
    if function is None:
        return None
    if not callable(function):
        raise TypeError(f"on_conflict is a function of one conflict, not {function!r:.80}")
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        raise TypeError(
            "on_conflict is a plain function, not an async one: it runs inside the write transaction that takes the "
            "server's changes. To settle conflicts with await, return JOURNAL, and use conflicts() and restore() later"
        )
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function of C without one
        return function
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(f"on_conflict is called as on_conflict(conflict), and {function!r:.80} {error}") from error
    return function


@dataclass(slots=True)
class Settlements:
    """The changes that one reply has made a function settle.

    Attributes:
        settled: The keys of the changes that were settled, and not journaled.
        written: Those of them whose merged change is to be pushed.
        repaired: Those of them that the server had refused.
        failed: The errors of the function, by key. These changes were journaled.
    """

    settled: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)


class Merger:
    """The function of an application that settles conflicts, during one session.

    Args:
        function: The function.
        mode: The client.
    """

    def __init__(self, function: OnConflict, mode: Client) -> None:
        self._function = function
        self._mode = mode
        self._encoder = _core.Encoder(mode.space)
        self._repairs: Counter[str] = Counter()
        self._rejections: Counter[str] = Counter()
        self._written: set[str] = set()
        _warn_without_base_values(function, mode)

    def settlement_of_reply(self) -> ReplySettler:
        """Return an object that settles the changes which lose to one reply."""
        return ReplySettler(self, self._mode)

    def asks_if_equal(self, key: str) -> bool:
        """Return True if the function is asked also if the server has the same new value."""
        asks = getattr(self._function, "asks_if_equal", False)
        return bool(asks(key) if callable(asks) else asks)

    def may_repair(self, key: str) -> bool:
        """Return True if a refused change of a key may be repaired once more."""
        return self._repairs[key] < MAX_REPAIRS

    def answer(self, conflict: Conflict) -> Answer:
        """Call the function, and encode its answer.

        Raises:
            Exception: The function failed, or its answer is illegal.
        """
        answer = self._function(conflict)
        if isinstance(answer, Settlement):
            return answer
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise TypeError("on_conflict returned an awaitable: it must be a plain function")
        if isinstance(answer, Change):
            if answer.key != conflict.key:
                raise ValueError(f"on_conflict returned a change of another key, {answer.key!r:.80}")
            answer = MISSING if answer.deleted else answer.value
        if answer is MISSING:
            return Merged(None)
        if answer is None and not _has_null(conflict):
            raise TypeError(
                "on_conflict returned None, and neither side of the conflict is null: return a value, MISSING, "
                "KEEP_SERVER or JOURNAL on every path"
            )
        return Merged(self._encoder.value(answer))

    def record(self, settlements: Settlements, rejected: Iterable[str]) -> None:
        """Record the effects of a reply that was taken.

        Args:
            settlements: The changes that were settled.
            rejected: The keys that the reply rejects.
        """
        self._rejections.update(self._written.intersection(rejected))
        self._written.update(settlements.written)
        self._repairs.update(settlements.repaired)

    @property
    def contended(self) -> list[str]:
        """The keys whose merged changes were rejected too often to be pushed in this session."""
        return [key for key, count in self._rejections.items() if count >= MAX_REJECTIONS]


class ReplySettler:
    """Settles the changes that lose to one reply.

    Args:
        merger: The function.
        mode: The client.

    Attributes:
        settlements: The changes that were settled so far.
    """

    def __init__(self, merger: Merger, mode: Client) -> None:
        self._merger = merger
        self._records = mode.records
        self.settlements = Settlements()

    def asks_if_equal(self, key: bytes) -> bool:
        """See `Merger.asks_if_equal`."""
        return self._merger.asks_if_equal(_core.decode_key(key))

    def settle(self, losses: Sequence[LostChange]) -> list[Answer]:
        """Return the answer to each of some changes that lose together.

        The changes of a group are settled as a whole. If one of them is to be journaled, all are.
        """
        journaled: list[Answer] = [JOURNAL] * len(losses)
        names = [_core.decode_key(lost.key) for lost in losses]
        refused = [name for name, lost in zip(names, losses, strict=True) if lost.kind == "refused"]
        if not all(map(self._merger.may_repair, refused)):
            return journaled
        answers: list[Answer] = []
        for lost in losses:
            answer = self._answer(lost, is_group=len(losses) > 1)
            if answer is JOURNAL:
                return journaled
            answers.append(answer)
        pairs = [*zip(losses, answers, strict=True)]
        if refused and all(_is_local(lost, answer) for lost, answer in pairs):
            return journaled  # the rule has refused just that
        settlements = self.settlements
        settlements.repaired += refused
        settlements.settled += names
        settlements.written += [name for name, answer in zip(names, answers, strict=True) if answer is not KEEP_SERVER]
        return answers

    def _answer(self, lost: LostChange, *, is_group: bool) -> Answer:
        """Return the answer to a loss.

        A change of a group may have lost only since its group has: the server has the same value,
        or still the base value. The function is not asked then.
        """
        is_equal = lost.remote is not None and same_record(lost.local, lost.remote)
        if is_equal and not (lost.kind == "refused" or self._differs_from_base(lost)):
            return KEEP_SERVER
        if is_group and lost.kind != "refused" and _is_base(lost.remote, lost.base):
            return Merged(_core.split_record(lost.local)[1])
        answer = self._ask(lost)
        is_needless = is_equal and lost.kind != "refused"
        return KEEP_SERVER if is_needless and answer is JOURNAL else answer  # nothing is lost

    def _ask(self, lost: LostChange) -> Answer:
        """Return the answer of the function; `JOURNAL` if it fails."""
        try:
            return self._merger.answer(lost.to_conflict(self._records, clock.now()))
        except Exception as error:
            key = _core.decode_key(lost.key)
            logger.warning("on_conflict failed for the key %r: the conflict goes to the journal", key, exc_info=error)
            self.settlements.failed[key] = error.with_traceback(None)
            return JOURNAL

    def _differs_from_base(self, lost: LostChange) -> bool:
        """Return True if both sides made the same change, and the function is to be asked."""
        return lost.base is not None and self.asks_if_equal(lost.key) and not _is_base(lost.remote, lost.base)


def _is_base(remote: bytes | None, base: bytes | None) -> bool:
    """Return True if the server's value is still the base value, which is known."""
    return remote is not None and base is not None and same_record(base, remote)


def _is_local(lost: LostChange, answer: Answer) -> bool:
    """Return True if an answer is the lost change itself."""
    return isinstance(answer, Merged) and same_record(lost.local, _core.join_record(lost.key, answer.value))


def _has_null(conflict: Conflict) -> bool:
    """Return True if one side of a conflict has stored ``None``."""
    sides = (conflict.local, conflict.remote)
    return any(side is not None and not side.deleted and side.value is None for side in sides)


def _warn_without_base_values(function: OnConflict, mode: Client) -> None:
    """Log once that a function needs base values, and the client keeps none."""
    recording = mode.recording
    keeps_base = recording is not None and recording.keeps_all
    if getattr(function, "needs_base", False) and not keeps_base and mode not in _WARNED:
        _WARNED.add(mode)
        logger.warning(
            "on_conflict needs base values, and this level keeps none: its conflicts go to the journal. Open the level "
            "with keep_base=True"
        )
