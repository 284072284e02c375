"""The stored state of a client of the model: see ``model_client.py``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .model_messages import Ack, Epoch, Fill, Push, set_or_delete
from .sides import SWEPT, Content, Loss

# The state of a range that a client follows.
#: All keys of the range are as they were on the server at the client's CID.
COMPLETE = "complete"
#: The range is being filled, and the log is pulled for it: its dirty changes are compared with
#: the log. So a piece of the fill leaves them alone.
CHECKED = "checked"
#: The range is being filled, and the log is not pulled for it: a piece of the fill is a conflict
#: for a dirty change.
UNCHECKED = "unchecked"


@dataclass
class ClientState:
    """The stored state of a client.

    Attributes:
        followed: The state of each followed prefix.
        leaving: The prefixes that are not followed any more, but have dirty keys: the log is pulled
            for them, so that these keys lose to changes that are made meanwhile.
        filled: The range that is being filled, and the key up to which it is filled.
        batches: The keys of each local batch that has not been pushed whole.
        lost: The kind of loss of each dirty key that has lost, until the server's value is known.
        uncompared: The dirty keys of a range that a reset began to fill again, with the log, before
            they were compared with anything of the server.
        bases: The data of each key that was not filled when it became dirty.
        refused: Of the lost keys, the changes that a rule refused. A key that was written again
            since has not been judged.
        overtaken: Of the refused keys, those that others have changed: a key that was written again
            since has lost to them.
        is_at_head: True if the last page reached the server's head.
    """

    id: int
    data: dict[str, Content] = field(default_factory=dict)
    dirty: dict[str, Content] = field(default_factory=dict)
    base_values: dict[str, Content] = field(default_factory=dict)
    journal: tuple[Loss, ...] = ()
    cid: int = 0
    max_head: int = 0
    epochs: tuple[Epoch, ...] = ()
    seq: int = 0
    push: Push | None = None
    withheld_push: Push | None = None
    own_range: Ack | None = None
    is_resetting: bool = False
    server: int | None = None
    followed: dict[str, str] = field(default_factory=lambda: {"": UNCHECKED})
    leaving: set[str] = field(default_factory=set)
    filled: Fill | None = None
    batches: dict[int, frozenset[str]] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    refused: dict[str, Content] = field(default_factory=dict)
    overtaken: set[str] = field(default_factory=set)
    uncompared: set[str] = field(default_factory=set)
    bases: dict[str, Content] = field(default_factory=dict)
    is_at_head: bool = False

    @property
    def is_idle(self) -> bool:
        """True if no push and no fill is in progress, so that a manual sync is allowed."""
        is_filled = set(self.followed.values()) <= {COMPLETE} or not (self.cid or self.is_resetting)
        return is_filled and not (self.push or self.withheld_push or self.own_range or self.lost)

    def copy(self) -> ClientState:
        return replace(
            self,
            data=dict(self.data),
            dirty=dict(self.dirty),
            followed=dict(self.followed),
            leaving=set(self.leaving),
            batches=dict(self.batches),
            lost=dict(self.lost),
            refused=dict(self.refused),
            overtaken=set(self.overtaken),
            uncompared=set(self.uncompared),
            bases=dict(self.bases),
            base_values=dict(self.base_values),
        )

    def wants(self, key: str) -> bool:
        """Return True if the key lies in a followed range."""
        return any(map(key.startswith, self.followed))

    def prefixes(self, *states: str) -> tuple[str, ...]:
        """Return the followed prefixes that are in one of the states, in order."""
        return tuple(sorted(prefix for prefix, state in self.followed.items() if state in states))

    @property
    def fill(self) -> Fill | None:
        """The range that is filled next, and the key up to which it is filled."""
        pending = self.prefixes(CHECKED, UNCHECKED)
        if self.filled is not None and self.filled.prefix in pending:
            return self.filled
        return Fill(pending[0], "") if pending else None

    def is_unchecked(self, key: str) -> bool:
        """Return True if no value of the server was compared with a dirty change of the key."""
        if key in self.uncompared and self.wants(key):
            return True
        if any(map(key.startswith, self.prefixes(COMPLETE, CHECKED))) or (self.fill and self.fill.covers(key)):
            return False
        return any(map(key.startswith, self.prefixes(UNCHECKED)))

    def is_filled(self, key: str) -> bool:
        """Return True if the client has the server's value of a key, or a dirty change of it."""
        is_complete = any(map(key.startswith, self.prefixes(COMPLETE)))
        return is_complete or (self.fill is not None and self.fill.covers(key))

    def write(self, changes: dict[str, Content], *, keep_base: bool, unfilled: bool) -> None:
        """Write local changes.

        Args:
            changes: The changes.
            keep_base: True to record the base values of all keys.
            unfilled: True to remember which keys are not filled, although the log is pulled.
        """
        for key, content in changes.items():
            is_new = key not in self.dirty
            if unfilled and is_new and self.wants(key) and not (self.is_filled(key) or self.is_unchecked(key)):
                self.uncompared.add(key)
                self.bases[key] = self.data.get(key)
            if keep_base and key not in self.dirty and self.is_filled(key):
                self.base_values[key] = self.data.get(key)
            if (self.cid or self.is_resetting) and is_new and self.is_unchecked(key):
                self.bases[key] = self.data.get(key)
            set_or_delete(self.data, key, content)
            self.dirty[key] = content

    def drop_old_refusals(self) -> None:
        """Drop the refusals of keys that were written again: a rule has not judged that.

        Such a key stays lost if others have changed it meanwhile.
        """
        for key, content in [*self.refused.items()]:
            if self.dirty.get(key, SWEPT) != content:
                del self.refused[key]
                del self.lost[key]
                if key in self.overtaken:
                    self.lost[key] = "rejected"
                    self.overtaken.discard(key)

    def groups(self) -> list[frozenset[str]]:
        """Return the dirty keys in groups: batches that share a key are one."""
        groups = [frozenset({key}) for key in sorted(self.dirty)]
        for keys in self.batches.values():
            shared = [group for group in groups if group & keys]
            if len(shared) > 1:
                groups = [frozenset().union(*shared), *(group for group in groups if group not in shared)]
        return groups
