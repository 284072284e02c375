"""The messages of an exchange (``docs/protocol.md``): a `Request`, and three kinds of `Reply`.

This module validates received messages, field by field. Both sides apply the same limits.

Changes are held as bytes: as stored log records on the server's side, as encoded entries on the
client's. Only ``to_dict`` decodes them, so a transport that sends bytes need not decode them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, ClassVar, Final

from .. import _core
from ..backends.base import Entry, Row
from ..engine.records import ID, Commit, Epoch
from ..errors import ProtocolError
from .fields import (
    MAX_CHANGES,
    MAX_PREFIX_BYTES,
    MAX_PREFIXES,
    MAX_PUSH,
    MAX_READ,
    NONCE,
    PROTOCOL,
    Ack,
    Fields,
    Fill,
    Refusal,
    shown,
)

#: The maximum size of a page or a push, in bytes of keys and values.
MAX_BYTES: Final = 8 << 20
#: A row of a page as a server sends it: the CID and the record of a change, or a key and its value.
LogRow = tuple[int, bytes] | Entry
#: Changes that one call of the core encodes: it does not release the GIL.
_PART_CHANGES: Final = 2000
#: The maximum number of epochs in a request. A client sends the last ones.
MAX_EPOCHS: Final = 32


@dataclass(slots=True)
class Request:
    """A client's request: see ``docs/protocol.md`` for its fields. Changes are plain lists.

    Attributes:
        server: The id of the server that the client follows; ``None`` before the first exchange.
        client: The client's id.
        cid: The client's CID: the requested page begins after it.
        max_head: The highest server CID at which a page was read that the client has applied;
            ``hi`` in JSON.
        epochs: The last epochs of the server that the client has seen.
        nonce: 32 random hex digits, new for each request. The reply repeats them.
        seq: The sequence number of the frozen push, or of the last one.
        push_nonce: The nonce of the frozen push, ``push`` in JSON; ``None`` if nothing is pushed.
        changes: The changes of the frozen push; empty if nothing is pushed.
        groups: The runs of `changes` that belong together, each as the index of its first change
            and their number.
        withdraw: The keys of the frozen push, if the push is withdrawn. `changes` is empty then.
        limit: The maximum number of changes and entries in the reply.
        complete: The prefixes of which the client has all keys.
        partial: The prefixes for which the log is wanted, though the client lacks keys.
        fill: The range whose next part of the live entries is wanted. The log is wanted for the
            filled part.
        read: The keys whose present values are wanted.
        in_records: True if ``changes`` are records in bytes, as `decode_message` returns them.
    """

    server: str | None
    client: str
    cid: int
    max_head: int
    epochs: list[Epoch]
    nonce: str
    seq: int
    push_nonce: str | None = None
    changes: Sequence[Any] = ()
    groups: Sequence[tuple[int, int]] = ()
    withdraw: Sequence[str] = ()
    limit: int = MAX_CHANGES
    complete: Sequence[str] = ("",)
    partial: Sequence[str] = ()
    fill: Fill | None = None
    read: Sequence[str] = ()
    in_records: bool = False

    @property
    def is_push(self) -> bool:
        """True if the request pushes changes, or withdraws a push."""
        return bool(self.changes or self.withdraw)

    @property
    def keys(self) -> list[str]:
        """The keys of the push, whether it is sent or withdrawn. For the client's side."""
        assert not self.in_records, "a server encodes the changes, and reads the keys from them"
        return [change[0] for change in self.changes] or [*self.withdraw]

    @property
    def holds_data(self) -> bool:
        """True if the client relies on the deletes in the log: it has a complete or filled part."""
        return bool(self.complete or (self.fill and self.fill.after))

    def follows(self, key: str) -> bool:
        """Return True if the log is wanted for a key."""
        prefixes = (*self.complete, *self.partial)
        return key.startswith(prefixes) or (self.fill is not None and self.fill.covers(key))

    @classmethod
    def from_dict(cls, message: object, *, in_records: bool = False) -> Request:
        """Validate a request. The changes are only counted: their validation needs a key space.

        Args:
            message: The request, as decoded from JSON.
            in_records: True if its changes are records in bytes.

        Raises:
            ProtocolError: A field is missing, has the wrong type, or is out of range.
        """
        fields = Fields(message, "request")
        fields.protocol()
        changes = fields.array("changes", MAX_PUSH)
        request = cls(
            server=fields.optional_text("server", ID),
            client=fields.text("client", ID),
            cid=fields.cid("cid"),
            max_head=fields.cid("hi"),
            epochs=fields.epochs("epochs", MAX_EPOCHS),
            nonce=fields.text("nonce", NONCE),
            seq=fields.cid("seq"),
            push_nonce=fields.optional_text("push", NONCE),
            changes=changes,
            groups=fields.runs("groups", len(changes)),
            withdraw=fields.keys("withdraw", MAX_PUSH) if "withdraw" in fields else (),
            limit=fields.integer("limit", 1, MAX_CHANGES),
            complete=fields.prefixes("complete", [""]),
            partial=fields.prefixes("partial", []),
            fill=fields.fill("fill"),
            read=fields.keys("read", MAX_READ) if "read" in fields else (),
            in_records=in_records,
        )
        request._check(fields)
        return request

    def _check(self, fields: Fields) -> None:
        """Check the fields that depend on each other."""
        if self.changes and self.withdraw:
            raise fields.error("withdraw", "a push is either sent or withdrawn, not both")
        if self.is_push != (self.push_nonce is not None):
            raise fields.error("push", "a push has a nonce of its own, and a request without a push has null")
        fault = prefixes_fault([*self.complete, *self.partial])
        if fault is not None:
            raise fields.error("partial" if self.partial else "complete", fault)

    def to_dict(self) -> dict[str, Any]:
        """Return the request as a dict that can be encoded as JSON."""
        return {
            "protocol": PROTOCOL,
            "server": self.server,
            "client": self.client,
            "cid": self.cid,
            "hi": self.max_head,
            "epochs": [[*epoch] for epoch in self.epochs],
            "nonce": self.nonce,
            "seq": self.seq,
            "push": self.push_nonce,
            "changes": list(self.changes),
            **({"groups": [[*run] for run in self.groups]} if self.groups else {}),
            **({"withdraw": [*self.withdraw]} if self.withdraw else {}),
            "limit": self.limit,
            "complete": [*self.complete],
            "partial": [*self.partial],
            "fill": self.fill and [*self.fill],
            **({"read": [*self.read]} if self.read else {}),
        }


def prefixes_fault(prefixes: Sequence[str]) -> str | None:
    """Return a sentence if a client may not follow so many prefixes; else ``None``."""
    size = sum(len(prefix.encode()) for prefix in prefixes)
    if len(prefixes) <= MAX_PREFIXES and size <= MAX_PREFIX_BYTES:
        return None
    return (
        f"a client follows at most {MAX_PREFIXES} prefixes of {MAX_PREFIX_BYTES} bytes in total, and these are "
        f"{len(prefixes)} of {size} bytes"
    )


@dataclass(slots=True)
class Reply:
    """The fields that every reply has.

    Attributes:
        server: The server's id.
        nonce: The nonce of the request.
        base: The client's CID in the request.
    """

    kind: ClassVar[str]

    server: str
    nonce: str
    base: int

    def to_dict(self) -> dict[str, Any]:
        """Return the reply as a dict that can be encoded as JSON."""
        return {
            "protocol": PROTOCOL,
            "kind": self.kind,
            "server": self.server,
            "nonce": self.nonce,
            "base": self.base,
        }


@dataclass(slots=True)
class Forked(Reply):
    """Two stores share one client id. The server has not judged the push."""

    kind = "forked"


@dataclass(slots=True)
class Reset(Reply):
    """The client must reset: the histories differ, or the log lacks deletes that the client needs.

    Attributes:
        common: The last CID that both histories have in common, at most the CID of the request.
        ack: The decision on the push, if an earlier request had it decided.
        rejected: The keys of the push that the log does not show as accepted.
        head: The server's CID.
    """

    kind = "reset"

    common: int
    ack: Ack | None
    rejected: list[str]
    head: int

    def to_dict(self) -> dict[str, Any]:
        """Return the reply as a dict that can be encoded as JSON."""
        return {
            **Reply.to_dict(self),
            "common": self.common,
            "ack": self.ack and [*self.ack],
            "rejected": self.rejected,
            "head": self.head,
        }


@dataclass(slots=True)
class FillPart:
    """A part of the live entries of a range, in key order, read at the end of its page.

    It holds all entries after ``after`` up to ``to``, or to the end of the range, except those of
    the prefixes that the client has complete.

    Attributes:
        prefix: The prefix of the range.
        after: The key after which the part begins; ``""`` for the beginning.
        to: The last key that the part says something of, if it is not the last part.
        end: True if the part reaches the end of the range.
        entries: The keys and their encoded values.
    """

    prefix: str
    after: str
    to: str
    end: bool
    entries: list[Row]

    def covers(self, key: str) -> bool:
        """Return True if the part says which value the key has, or that it has none."""
        return key.startswith(self.prefix) and self.after < key and (self.end or key <= self.to)

    def header(self) -> dict[str, Any]:
        """Return all fields except the entries, as a dict."""
        return {
            "prefix": self.prefix,
            "after": self.after,
            "to": self.to,
            "end": self.end,
            "count": len(self.entries),
        }


@dataclass(slots=True)
class Page(Reply):
    """A part of the log and the decision on the push, without the changes themselves.

    Attributes:
        cid: The client's CID after applying the page.
        head: The server's CID.
        more: True if the client must send another request: the log continues after this page, or
            the push was not judged.
        epochs: The epochs of the server that the client may not have seen.
        ack: The decision on the push; ``None`` if it was not judged, or if nothing was pushed.
        rejected: The keys of the push that the server rejected, or that the log does not show as
            accepted.
        commits: The recorded commits of the changes in the page, in CID order.
        refused: The refusals of those of the rejected keys that a rule, or the rights of the
            token, refuses.
        values: The present values of the rejected keys and of those that the request reads,
            encoded; ``None`` for an absent key. Keys whose values do not fit into the page are
            missing. Only a page that reaches the head has any.
        fill: The next part of the range that the client fills. Only a page that reaches the head
            has one, and not if anything was pushed or if nothing fits into the page any more.
        refill: True if the log after the page is longer than the data that the client follows.
    """

    kind = "page"

    cid: int
    head: int
    more: bool
    epochs: list[Epoch]
    ack: Ack | None
    rejected: list[str]
    commits: list[Commit]
    refused: list[Refusal] = field(default_factory=list, kw_only=True)
    values: list[Entry] = field(default_factory=list, kw_only=True)
    fill: FillPart | None = field(default=None, kw_only=True)
    refill: bool = field(default=False, kw_only=True)

    def header(self, count: int) -> dict[str, Any]:
        """Return all fields except the rows: ``page``, ``values`` and ``entries``.

        Args:
            count: The number of changes in the page.
        """
        optional = {
            "commits": [commit.to_list() for commit in self.commits],
            "refused": [[*refusal] for refusal in self.refused],
            "value_count": len(self.values),
            "fill": self.fill and self.fill.header(),
            "refill": self.refill,
        }
        return {
            **Reply.to_dict(self),
            "cid": self.cid,
            "head": self.head,
            "more": self.more,
            "epochs": [[*epoch] for epoch in self.epochs],
            "ack": self.ack and [*self.ack],
            "rejected": self.rejected,
            **{name: value for name, value in optional.items() if value},
            "count": count,
        }


@dataclass(slots=True)
class PulledPage(Page):
    """A page as a client receives it.

    Attributes:
        cids: The CID of each change, in rising order.
        entries: The changes, encoded.
    """

    cids: Sequence[int]
    entries: list[Entry]


@dataclass(slots=True)
class LogPage(Page):
    """A page as a server creates it.

    Attributes:
        records: The CID and the stored log record of each change.
    """

    records: list[tuple[int, bytes]]

    def rows(self) -> list[LogRow]:
        """Return all rows: those of ``page``, then of ``values``, then the entries of ``fill``."""
        return [*self.records, *self.values, *(self.fill.entries if self.fill else ())]

    def to_dict(self) -> dict[str, Any]:
        """Return the reply as a dict that can be encoded as JSON."""
        message = {**self.header(len(self.records)), "page": []}
        if self.records:
            cids, records = zip(*self.records, strict=True)
            message["page"] = [*map(list, zip(cids, _core.decode_changes(records), strict=True))]
        if self.values:
            message["values"] = _core.decode_changes([_core.join_record(*row) for row in self.values])
        if self.fill:
            message["entries"] = _core.decode_changes([_core.join_record(*row) for row in self.fill.entries])
        return message

    def to_pulled(self, encoder: _core.Encoder) -> PulledPage:
        """Return the page as a client in the same process receives it.

        Raises:
            ProtocolError: The client's key space or limits do not allow a key or a value.
        """
        fill = self.fill
        if fill is not None:
            fill = replace(
                fill, entries=_entries_of(encoder.records([_core.join_record(*row) for row in fill.entries]))
            )
        return PulledPage(
            self.server,
            self.nonce,
            self.base,
            self.cid,
            self.head,
            self.more,
            self.epochs,
            self.ack,
            self.rejected,
            self.commits,
            [cid for cid, _ in self.records],
            _in_parts(encoder.records, [record for _, record in self.records]),
            refused=self.refused,
            values=_in_parts(encoder.records, [_core.join_record(*row) for row in self.values]),
            fill=fill,
            refill=self.refill,
        )


#: A reply as a client receives it.
ParsedReply = PulledPage | Reset | Forked


def parse_reply(message: object, encoder: _core.Encoder, *, in_records: bool = False) -> ParsedReply:
    """Validate a server's reply.

    Args:
        message: The reply, decoded from JSON.
        encoder: The encoder for the client's key space.
        in_records: True if the changes of a page are encoded records, in bytes.

    Raises:
        ProtocolError: A field is missing, has the wrong type, is out of range, or contradicts
            another.
    """
    fields = Fields(message, "reply")
    fields.protocol()
    server = fields.text("server", ID)
    nonce = fields.text("nonce", NONCE)
    base = fields.cid("base")
    kind = fields.get("kind")
    if kind == "page":
        return _parse_page(fields, server, nonce, base, encoder.records if in_records else encoder.changes)
    if kind == "reset":
        common, ack, rejected = fields.integer("common", 0, base), fields.ack(), fields.keys("rejected", MAX_PUSH)
        return Reset(server, nonce, base, common, ack, rejected, fields.cid("head"))
    if kind == "forked":
        return Forked(server, nonce, base)
    raise fields.error("kind", f'"page", "reset" or "forked" is needed, not {shown(kind)}')


def _parse_page(
    fields: Fields, server: str, nonce: str, base: int, encode: Callable[[Sequence[Any]], list[Entry]]
) -> PulledPage:
    head = fields.cid("head")
    to = fields.integer("cid", base, head)
    more = fields.boolean("more")
    ack = fields.ack()
    cids, changes = fields.numbered_changes("page", base, to)
    fields.integer("count", len(cids), len(cids))
    if more and to == base:
        raise fields.error("more", "it is true, but the page ends where it begins")
    if not more and to != head:
        raise fields.error("more", f"it is false, but the log continues to CID {head} and this page ends at CID {to}")
    entries = _in_parts(encode, changes)
    epochs, rejected = fields.epochs("epochs"), fields.keys("rejected", MAX_PUSH)
    values, fill = _parse_values(fields, encode), _parse_fill(fields, encode)
    if more and (values or fill):
        raise fields.error("more", "it is true, but the page has values of its end")
    _check_size([*entries, *values, *(fill.entries if fill else ())])
    return PulledPage(
        server,
        nonce,
        base,
        to,
        head,
        more,
        epochs,
        ack,
        rejected,
        fields.commits("commits", base, to) if "commits" in fields else [],
        cids,
        entries,
        refused=fields.refusals("refused", rejected),
        values=values,
        fill=fill,
        refill="refill" in fields and fields.boolean("refill"),
    )


def _parse_values(fields: Fields, encode: Callable[[Sequence[Any]], list[Entry]]) -> list[Entry]:
    """Return the present values of keys. Each key occurs once."""
    rows = fields.array("values", MAX_PUSH + MAX_READ) if "values" in fields else ()
    if rows or "value_count" in fields:
        fields.integer("value_count", len(rows), len(rows))
    values = _encoded(fields, "values", encode, rows)
    if len({key for key, _ in values}) < len(values):
        raise fields.error("values", "a key occurs twice")
    return values


def _parse_fill(fields: Fields, encode: Callable[[Sequence[Any]], list[Entry]]) -> FillPart | None:
    """Return the part of a range; ``None`` if there is none."""
    if "fill" not in fields:
        if "entries" in fields and fields.get("entries"):
            raise fields.error("entries", "there are some, but no field says of which range")
        return None
    part = Fields(fields.get("fill"), 'field "fill"')
    rows = fields.array("entries", MAX_CHANGES)
    part.integer("count", len(rows), len(rows))
    fill = Fill(part.prefix("prefix"), part.prefix("after"))
    to, end = part.prefix("to"), part.boolean("end")
    entries = _entries_of(_encoded(fields, "entries", encode, rows))
    if len(entries) < len(rows):
        raise fields.error("entries", "each item is [key, value]")
    if (fill.after and not fill.after.startswith(fill.prefix)) or (to != fill.after and not to.startswith(fill.prefix)):
        raise part.error("prefix", f"{shown(fill.after)} to {shown(to)} do not lie in the range {shown(fill.prefix)}")
    if to < fill.after or (to == fill.after and not end):
        raise part.error("to", f"{shown(to)} is not after {shown(fill.after)}, and this is not the last part")
    keys = [key for key, _ in entries]
    if not all(map(operator.lt, [fill.after.encode(), *keys], keys)) or (keys and keys[-1] > to.encode()):
        raise fields.error("entries", f"their keys must rise from {shown(fill.after)} (exclusive) to {shown(to)}")
    if not all(key.startswith(fill.prefix.encode()) for key in keys):
        raise fields.error("entries", f"their keys must begin with {shown(fill.prefix)}")
    return FillPart(fill.prefix, fill.after, to, end, entries)


def _encoded(
    fields: Fields, name: str, encode: Callable[[Sequence[Any]], list[Entry]], rows: Sequence[Any]
) -> list[Entry]:
    try:
        return _in_parts(encode, rows)
    except ProtocolError as error:
        raise fields.error(name, str(error)) from error


def _entries_of(entries: list[Entry]) -> list[Row]:
    """Return the entries that are no deletes."""
    return [(key, value) for key, value in entries if value is not None]


def encode_changes(changes: Sequence[Any], encoder: _core.Encoder, *, in_records: bool = False) -> list[Entry]:
    """Encode the changes of a page or a push.

    Args:
        changes: The changes.
        encoder: The encoder for the key space of the store.
        in_records: True if the changes are records in bytes.

    Raises:
        ProtocolError: A change is malformed, or the changes are larger than `MAX_BYTES`.
    """
    return _check_size(_in_parts(encoder.records if in_records else encoder.changes, changes))


def _in_parts(encode: Callable[[Sequence[Any]], list[Entry]], changes: Sequence[Any]) -> list[Entry]:
    """Encode changes, some at a time, so that other threads run in between."""
    if len(changes) <= _PART_CHANGES:
        return encode(changes)
    entries: list[Entry] = []
    try:
        for start in range(0, len(changes), _PART_CHANGES):
            entries += encode(changes[start : start + _PART_CHANGES])
    except ProtocolError:
        encode(changes)  # its error has the number of the change in the whole page
        raise
    return entries


def _check_size(entries: list[Entry]) -> list[Entry]:
    size = sum(map(len, filter(None, chain.from_iterable(entries))))
    if size > MAX_BYTES:
        raise ProtocolError(f"changes: {size} bytes of keys and values, and at most {MAX_BYTES} are allowed")
    return entries
