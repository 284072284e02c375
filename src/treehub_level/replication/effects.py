"""`Effects`: the effects of one reply, or of one manual page, collected as one batch.

It shows the dirty changes, the losses and the groups of a client as the batch will leave them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cached_property

from .. import _core
from ..backends.base import Entry, Transaction
from ..engine.groups import Groups, group_bounds, group_key
from ..engine.modes import Client
from ..engine.scan import first_key, key_chunks
from ..engine.uncompared import UncomparedChanges, uncompared_entry
from ..types import JOURNAL, Conflict
from .base_values import BaseValueChanges, same_value
from .journal import LostChange, journal_entries
from .losses import CONFLICT, Loss, has_losses, loss_bounds, loss_entry, loss_key, parse_loss
from .merging import Answer, Merged, ReplySettler
from .records import dirty_change, parse_conflict
from .state import ClientState

#: Dirty changes to read at a time: each may have 4 MiB.
_DIRTY = 16


class Effects:
    """The effects of one batch on the data and the dirty changes of a client.

    Args:
        mode: The client.
        transaction: The transaction to read from.
        state: The client's state before the batch.
        settler: Settles the local changes that lose; ``None`` to journal all of them.

    Attributes:
        batch: The entries to write.
        bases: The base values that the batch changes.
        cleaned: The keys whose dirty change the batch deletes.
    """

    def __init__(
        self, mode: Client, transaction: Transaction, state: ClientState, settler: ReplySettler | None = None
    ) -> None:
        self._mode = mode
        self._settler = settler
        self._own = mode.records
        self._space = mode.space
        self._transaction = transaction
        self._following = state.following
        self.batch: list[Entry] = []
        self.bases = BaseValueChanges(transaction, mode.records, state.bases, state.following)
        self.cleaned: set[bytes] = set()
        self._journaled: list[LostChange] = []
        self._losses: dict[bytes, Loss | None] = {}
        #: The keys of groups that are marked as lost.
        self._lost_groups: set[bytes] = set()
        #: The keys of groups for which `lose_group` was called.
        self._overtaken: set[bytes] = set()
        #: The dirty records of merged changes.
        self._merged: dict[bytes, bytes] = {}
        self._compared: set[bytes] = set()

    # ------------------------------------------------------------------------------ dirty changes

    def record(self, key: bytes) -> bytes | None:
        """Return the dirty record of a key; ``None`` if the key is clean."""
        return next(self.records([key]))

    def records(self, keys: Sequence[bytes]) -> Iterator[bytes | None]:
        """Yield the dirty record of each key; ``None`` for a clean one.

        Raises:
            CorruptionError: A record is damaged.
        """
        for start in range(0, len(keys), _DIRTY):
            part = keys[start : start + _DIRTY]
            dirty_keys = [*map(self._space.dirty_key, part)]
            for key, dirty_key, record in zip(part, dirty_keys, self._transaction.get_many(dirty_keys), strict=True):
                if record is not None:
                    dirty_change(self._own, dirty_key, record)
                yield None if key in self.cleaned else self._merged.get(key, record)

    def is_dirty(self, key: bytes) -> bool:
        """Return True if a key is dirty."""
        if key in self.cleaned or key in self._merged:
            return key in self._merged
        return self._transaction.get(self._space.dirty_key(key)) is not None

    def has_dirty(self) -> bool:
        """Return True if the batch leaves a dirty change."""
        if self._merged:
            return True
        space = self._space
        with closing(self._transaction.scan(space.dirty_start, space.dirty_stop, values=False)) as cursor:
            while keys := cursor.fetch_keys(1000):
                if any(key[len(space.prefix) :] not in self.cleaned for key in keys):
                    return True
        return False

    @cached_property
    def _uncompared(self) -> UncomparedChanges:
        return UncomparedChanges(self._transaction, self._space, self._following)

    def is_unchecked(self, key: bytes) -> bool:
        """Return True if the dirty change of a key was compared with nothing of the server."""
        return (self._following if key in self._compared else self._uncompared).is_unchecked(key)

    def record_compared(self, key: bytes) -> None:
        """Record that the dirty change of a key was compared with the server's value."""
        self._compared.add(key)
        self.batch += self._uncompared.removing(key)

    def record_uncompared(self) -> None:
        """Record the dirty changes that the batch leaves, and that were compared with nothing."""
        space, strip = self._space, len(self._space.prefix)
        for keys in key_chunks(self._transaction, space.dirty_start, space.dirty_stop):
            for key in (dirty_key[strip:] for dirty_key in keys):
                if key not in self.cleaned and self.is_unchecked(key):
                    self.batch.append(uncompared_entry(space, key))
                    self.bases.keep(key)

    def clean(self, key: bytes) -> None:
        """Drop a dirty change. A key that is not followed is removed with it."""
        self.cleaned.add(key)
        self._merged.pop(key, None)
        self.batch.append((self._space.dirty_key(key), None))
        self.bases.forget(key)
        self.record_compared(key)
        if self._losses.get(key) is not None or self.has_losses:
            self._losses[key] = None
        if not self._following.wants(key):
            self.batch.append((key, None))

    def journal(self, lost: LostChange) -> None:
        """Append a local change that is lost to the journal."""
        self._journaled.append(lost)

    def take(self, key: bytes, value: bytes | None) -> None:
        """Write the server's value of a followed key; ``None`` deletes the key."""
        if self._following.wants(key):
            self.batch.append((key, value))

    # ------------------------------------------------------------------------------------ merging

    def asks_if_equal(self, key: bytes) -> bool:
        """Return True if the application settles equal changes of both sides, too."""
        return self._settler is not None and self._settler.asks_if_equal(key)

    def replace(
        self,
        losses: Sequence[LostChange],
        values: Sequence[bytes | None],
        *,
        is_whole: bool = True,
        is_filled: bool = False,
    ) -> int:
        """Replace dirty changes that lose together by the server's values, or as the settler says.

        Args:
            losses: The changes: all of a group, or a single one.
            values: The server's values.
            is_whole: False if these are a part of a group only: they are journaled.
            is_filled: True if a part of a fill has brought the values.

        Returns:
            The bytes of the merged changes.
        """
        answers: Sequence[Answer] = [JOURNAL] * len(losses)
        if self._settler is not None and is_whole:
            answers = self._settler.settle(losses)
        size = 0
        for lost, value, answer in zip(losses, values, answers, strict=True):
            if answer is JOURNAL:
                self.journal(lost)
            self.clean(lost.key)
            if isinstance(answer, Merged) and not same_value(answer.value, value):
                size += self._write_merged(lost.key, answer.value, value, is_filled=is_filled)
            elif lost.kind != "reset":
                self.take(lost.key, value)
            else:
                self.batch.append((lost.key, None))
        return size

    def _write_merged(self, key: bytes, value: bytes | None, remote: bytes | None, *, is_filled: bool) -> int:
        """Write a new dirty change that was made with knowledge of the server's value."""
        record = _core.join_record(key, value)
        self.cleaned.discard(key)
        self._merged[key] = record
        self.batch += _core.client_batch(self._space, [(key, value)])
        self.bases.learn_merged(key, remote, is_filled=is_filled)
        return len(record)

    # ------------------------------------------------------------------------------------- groups

    @cached_property
    def groups(self) -> Groups:
        """The groups of the client."""
        if first_key(self._transaction, *group_bounds(self._space)) is None:
            return Groups({})
        return Groups.load(self._transaction, self._own)

    def group(self, key: bytes) -> list[bytes]:
        """Return the dirty keys that belong together with a dirty key, itself included."""
        return self.groups.component(key, self.is_dirty)

    def end_groups(self, decided: frozenset[bytes] = frozenset(), last_group: int = 0) -> None:
        """Delete the groups that have ended.

        Args:
            decided: The accepted keys of a push that was decided.
            last_group: The highest number of a group when that push was frozen.
        """
        if not (self.cleaned or decided):
            return
        ended = self.groups.ended(self.cleaned | decided, self.is_dirty, decided, last_group)
        self.batch += [(group_key(self._space, number), None) for number in ended]

    # ------------------------------------------------------------------------------------- losses

    @cached_property
    def has_losses(self) -> bool:
        """True if the store has losses."""
        return has_losses(self._transaction, self._space)

    def loss(self, key: bytes) -> Loss | None:
        """Return the loss of a dirty change; ``None`` if it is not lost, or was written again."""
        if key in self._losses:
            return self._losses[key]
        if not self.has_losses:
            return None
        stored_key = loss_key(self._space, key)
        record = self._transaction.get(stored_key)
        if record is None:
            return None
        loss, change = parse_loss(self._own, stored_key, record), self.record(key)
        present = None if change is None else loss.of(change)
        if present is not loss:
            self._losses[key] = present
        return present

    def lose(self, key: bytes, loss: Loss) -> None:
        """Mark a dirty change as lost. It stays until the server's value is known."""
        self._losses[key] = loss

    def lose_group(self, key: bytes) -> bool:
        """Mark the group of a dirty key as lost to a change of others, if it has other keys.

        A change that was refused before counts as overtaken: see `Loss`.

        Returns:
            True if the change waits for the server's value.
        """
        loss = self.loss(key)
        if loss is not None and loss.kind == "refused":
            self.lose(key, loss._replace(is_overtaken=True))
        self._overtaken.add(key)
        if key in self._lost_groups:
            return True
        group = self.group(key)
        if len(group) == 1:
            return loss is not None
        self._lost_groups.update(group)
        for other in group:
            if self.loss(other) is None:
                self.lose(other, CONFLICT)
        return True

    def refuse(self, key: bytes, reason: str | None, record: bytes) -> None:
        """Mark a dirty change as refused by the server.

        Args:
            key: The key.
            reason: The reason of the refusal.
            record: The refused change record.
        """
        self.lose(key, Loss("refused", reason, record, is_overtaken=key in self._overtaken))

    def leaves_losses(self) -> bool:
        """Return True if the batch leaves a loss of a change that was not written again since."""
        if any(loss is not None for loss in self._losses.values()):
            return True
        start, stop = loss_bounds(self._space)
        chunks = key_chunks(self._transaction, start, stop) if self.has_losses else ()
        return any(self.loss(key[len(start) :]) is not None for keys in chunks for key in keys)

    # ----------------------------------------------------------------------------------- the batch

    def finish(self) -> list[Conflict]:
        """Complete the batch, and return the conflicts that it journals."""
        journaled = journal_entries(self._transaction, self._own, self._journaled)
        self.batch += journaled
        self.batch += self.bases.entries()
        self.batch += [loss_entry(self._space, key, loss) for key, loss in self._losses.items()]
        return [parse_conflict(self._own, key, record or b"") for key, record in journaled]
