"""The messages of an exchange (``docs/protocol.md``): a `Request`, and four kinds of `Reply`.

This module validates received messages, field by field. Both sides apply the same limits.

Changes are held as bytes: as stored log records on the server's side, as encoded entries on the
client's. Only ``to_dict`` decodes them, so a transport that sends bytes need not decode them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Final

from .. import _core
from ..backends.base import Entry
from ..engine.records import ID, Commit, Epoch
from ..errors import InvalidKeyError, ProtocolError
from .fields import MAX_CHANGES, MAX_KEYS, MAX_PUSH, NONCE, PROTOCOL, Ack, Fields, shown

#: The maximum size of a page or a push, in bytes of keys and values.
MAX_BYTES: Final = 8 << 20
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
        seq: The sequence number of the frozen push.
        nonce: 32 hex digits: the nonce of the push, or random ones if nothing is pushed.
        changes: The changes of the frozen push; empty if nothing is pushed.
        limit: The maximum number of changes, or keys, in the reply.
        reset: True during a reset.
        keys_after: In phase B of a reset, the key after which live keys are requested; ``""`` for
            the first.
        withdraw: The keys of the frozen push, if the push is withdrawn. ``changes`` is empty then.
        in_records: True if ``changes`` are records in bytes, as `decode_message` returns them.
    """

    server: str | None
    client: str
    cid: int
    max_head: int
    epochs: list[Epoch]
    seq: int
    nonce: str
    changes: Sequence[Any] = ()
    limit: int = MAX_CHANGES
    reset: bool = False
    keys_after: str | None = None
    withdraw: Sequence[str] = ()
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
        keys_after = fields.cursor("keys_after")
        request = cls(
            server=fields.optional_text("server", ID),
            client=fields.text("client", ID),
            cid=fields.cid("cid"),
            max_head=fields.cid("hi"),
            epochs=fields.epochs("epochs", MAX_EPOCHS),
            seq=fields.cid("seq"),
            nonce=fields.text("nonce", NONCE),
            changes=fields.array("changes", MAX_PUSH),
            limit=fields.integer("limit", 1, MAX_CHANGES if keys_after is None else MAX_KEYS),
            reset=fields.boolean("reset"),
            keys_after=keys_after,
            withdraw=fields.keys("withdraw", MAX_PUSH) if "withdraw" in fields else (),
            in_records=in_records,
        )
        if request.changes and request.withdraw:
            raise fields.error("withdraw", "a push is either sent or withdrawn, not both")
        if (request.changes or request.withdraw) and (request.reset or request.keys_after is not None):
            raise fields.error("changes", "nothing can be pushed during a reset")
        return request

    def to_dict(self) -> dict[str, Any]:
        """Return the request as a dict that can be encoded as JSON."""
        return {
            "protocol": PROTOCOL,
            "server": self.server,
            "client": self.client,
            "cid": self.cid,
            "hi": self.max_head,
            "epochs": [[*epoch] for epoch in self.epochs],
            "seq": self.seq,
            "nonce": self.nonce,
            "changes": list(self.changes),
            "limit": self.limit,
            "reset": self.reset,
            "keys_after": self.keys_after,
            **({"withdraw": [*self.withdraw]} if self.withdraw else {}),
        }


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
class Keys(Reply):
    """A part of the server's live keys, in order.

    Attributes:
        head: The server's CID.
        epochs: The epochs of the server that the client may not have seen.
        after: The key after which this part begins.
        keys: The keys, encoded.
        end: True if there are no keys after this part.
    """

    kind = "keys"

    head: int
    epochs: list[Epoch]
    after: str
    keys: list[bytes]
    end: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the reply as a dict that can be encoded as JSON."""
        return {
            **Reply.to_dict(self),
            "head": self.head,
            "epochs": [[*epoch] for epoch in self.epochs],
            "after": self.after,
            "keys": [_core.decode_key(key) for key in self.keys],
            "end": self.end,
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
    """

    kind = "page"

    cid: int
    head: int
    more: bool
    epochs: list[Epoch]
    ack: Ack | None
    rejected: list[str]
    commits: list[Commit]

    def header(self, count: int) -> dict[str, Any]:
        """Return all fields except ``page``, as a dict.

        Args:
            count: The number of changes in the page.
        """
        return {
            **Reply.to_dict(self),
            "cid": self.cid,
            "head": self.head,
            "more": self.more,
            "epochs": [[*epoch] for epoch in self.epochs],
            "ack": self.ack and [*self.ack],
            "rejected": self.rejected,
            "commits": [commit.to_list() for commit in self.commits],
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

    def to_dict(self) -> dict[str, Any]:
        """Return the reply as a dict that can be encoded as JSON."""
        if not self.records:
            return {**self.header(0), "page": []}
        cids, records = zip(*self.records, strict=True)
        page = [*map(list, zip(cids, _core.decode_changes(records), strict=True))]
        return {**self.header(len(page)), "page": page}

    def to_pulled(self, encoder: _core.Encoder) -> PulledPage:
        """Return the page as a client in the same process receives it.

        Raises:
            ProtocolError: The client's key space or limits do not allow a key or a value.
        """
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
        )


#: A reply as a client receives it.
ParsedReply = PulledPage | Keys | Reset | Forked


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
    if kind == "keys":
        return _parse_keys(fields, server, nonce, base, encoder)
    if kind == "reset":
        common, ack, rejected = fields.integer("common", 0, base), fields.ack(), fields.keys("rejected", MAX_PUSH)
        return Reset(server, nonce, base, common, ack, rejected, fields.cid("head"))
    if kind == "forked":
        return Forked(server, nonce, base)
    raise fields.error("kind", f'"page", "keys", "reset" or "forked" is needed, not {shown(kind)}')


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
        raise fields.error("more", "it is true, but the page holds no changes")
    if not more and to != head:
        raise fields.error("more", f"it is false, but the log continues to CID {head} and this page ends at CID {to}")
    entries = _check_size(_in_parts(encode, changes))
    epochs, rejected = fields.epochs("epochs"), fields.keys("rejected", MAX_PUSH)
    commits = fields.commits("commits", base, to)
    return PulledPage(server, nonce, base, to, head, more, epochs, ack, rejected, commits, cids, entries)


def _parse_keys(fields: Fields, server: str, nonce: str, base: int, encoder: _core.Encoder) -> Keys:
    after = fields.cursor("after")
    if after is None:
        raise fields.error("after", "it is null; a reply of this kind needs a key, or an empty string")
    names = fields.keys("keys", MAX_KEYS)
    last = after.encode()
    try:
        keys = [encoder.key(key) for key in names]
    except InvalidKeyError as error:
        raise fields.error("keys", str(error)) from error
    for key in keys:
        if key <= last:
            raise fields.error("keys", f"they must rise from {shown(after)} (exclusive); {shown(key)} does not")
        last = key
    end = fields.boolean("end")
    if not keys and not end:
        raise fields.error("end", "it is false, but the reply holds no keys")
    return Keys(server, nonce, base, fields.cid("head"), fields.epochs("epochs"), after, keys, end)


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
