"""The verdict on a push: its groups are accepted, rejected or refused, each as a whole."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Final

from .. import _core
from ..backends.base import Entry
from ..engine.access import Access
from ..engine.modes import Server
from ..engine.pending import PendingReader
from ..errors import Refused
from .fields import Refusal
from .records import StoredRefusal
from .rules import Call, CheckTime, check_group, reasons_of

#: The most reasons of one push. Changes that are refused for further ones get a general reason.
MAX_REASONS: Final = 100
_GENERAL_REASON: Final = "a rule of the server refuses this change"


def group_bounds(count: int, groups: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Iterate over the groups of a push: a change outside of every given one is a group of one.

    Args:
        count: The number of changes in the push.
        groups: The runs of changes that belong together: the index of the first, and their number.

    Yields:
        The index of the first change, and that behind the last.
    """
    end = 0
    for first, length in (*groups, (count, 0)):
        for index in range(end, first):
            yield index, index + 1
        end = first + length
        if length:
            yield first, end


class Verdict:
    """The decision on the groups of a push, in their order.

    Args:
        push: The changes of the push, encoded.
        mode: The server.
        access: The rights of the caller.
        call: The caller.
        reader: The store. Each group is checked against it and the groups accepted before.

    Attributes:
        accepted: The changes that are accepted.
        runs: The accepted changes that belong together, as runs ``(first, count)`` of indices.
        rejected: The indices of the changes that are not accepted.
    """

    def __init__(self, push: Sequence[Entry], mode: Server, access: Access, call: Call, reader: PendingReader) -> None:
        self._push = push
        self._mode = mode
        self._access = access
        self._call = call
        self._reader = reader
        self._refused: dict[str, list[int]] = {}
        self.accepted: list[Entry] = []
        self.runs: list[tuple[int, int]] = []
        self.rejected: list[int] = []

    def judge(self, groups: Sequence[tuple[int, int]], changed: Container[bytes]) -> None:
        """Judge the groups of the push.

        Args:
            groups: The runs of changes that belong together.
            changed: The keys that the log after the client's CID contains.

        Raises:
            CheckError: The check of the server failed.
            TransportError: The checks take too long for one push.
        """
        time = CheckTime()
        for first, end in group_bounds(len(self._push), groups):
            if first and self._mode.check is not None:
                time.require_more()
            entries = self._push[first:end]
            is_accepted = not any(key in changed for key, _ in entries)
            if is_accepted:
                try:
                    self._check(entries)
                except Refused as refused:
                    is_accepted = False
                    self._refuse(refused, first, entries)
            if not is_accepted:
                self.rejected += range(first, end)
                continue
            if end - first > 1:
                self.runs.append((len(self.accepted), end - first))
            self.accepted += entries
            self._reader.accept(entries)

    def _check(self, entries: Sequence[Entry]) -> None:
        """Raise Refused if the caller may not write a group, or the check refuses it."""
        outside = [_core.decode_key(key) for key, _ in entries if not self._access.covers(key)]
        if outside:
            raise Refused(f"this token is for keys that begin with {self._access.shown}", keys=outside)
        check_group(self._mode, self._call, entries, self._reader)

    def _refuse(self, refused: Refused, first: int, entries: Sequence[Entry]) -> None:
        keys = [_core.decode_key(key) for key, _ in entries]
        for index, (_, reason) in enumerate(reasons_of(refused, keys), first):
            known = reason in self._refused or len(self._refused) < MAX_REASONS
            self._refused.setdefault(reason if known else _GENERAL_REASON, []).append(index)

    @property
    def refused(self) -> tuple[StoredRefusal, ...]:
        """The refusals, as they are stored."""
        return tuple((reason, tuple(_runs(indices))) for reason, indices in self._refused.items())


def _runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Iterate over the runs ``(first, count)`` of rising numbers."""
    start = 0
    for index in range(1, len(indices) + 1):
        if index == len(indices) or indices[index] != indices[index - 1] + 1:
            yield indices[start], index - start
            start = index


def refusals(refused: Sequence[StoredRefusal], push: Sequence[Entry], rejected: Container[str]) -> list[Refusal]:
    """Return stored refusals as they are sent.

    Args:
        refused: The refusals, as stored.
        push: The changes of the push.
        rejected: The rejected keys. Others are left out.
    """
    found: list[Refusal] = []
    for reason, runs in refused:
        entries = (entry for first, count in runs for entry in push[first : first + count])
        keys = [key for key in (_core.decode_key(key) for key, _ in entries) if key in rejected]
        if keys:
            found.append(Refusal(reason, keys))
    return found
